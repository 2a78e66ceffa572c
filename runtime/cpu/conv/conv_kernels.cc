#include "gradweave/runtime/cpu/conv/conv_kernels.h"

#include <memory>

#include "absl/status/status.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/conv/filter_gradient.h"
#include "gradweave/runtime/cpu/conv/implicit_conv.h"
#include "gradweave/runtime/cpu/conv/packed_filter.h"

namespace gradweave {
namespace {

constexpr char kBFloat16Convolution[] = "bfloat16 convolution";

// Makes the kernel of y, or of dx. Its operands are the tensor that is convolved, the filter, and
// the bias if there is one.
Kernel ImplicitKernel(const KernelRequest& request, const ImplicitConvolution& convolution,
                      const char* name = kImplicitProduct) {
  const auto conv = std::make_shared<const ImplicitConvolution>(convolution);
  const bool has_bias = request.operands.size() == 3;
  const size_t bytes = conv->workspace_bytes(), packed_bytes = conv->packed_floats() * sizeof(float);
  const auto run = [=](const KernelArguments& arguments) {
    const ImplicitConvolution::Filter filter =
        PackFilter(*conv, arguments, 1, arguments.scratch + arguments.pool->num_threads() * bytes);
    arguments.pool->ParallelFor(conv->tasks(), [&](int64_t task, int thread) {
      if (arguments.stopped()) return;
      conv->Run(arguments.operand<float>(0), filter, has_bias ? arguments.operand<float>(2) : nullptr, task,
                arguments.scratch + thread * bytes, arguments.output<float>());
    });
    return absl::OkStatus();
  };
  return {.name = name,
          .run = run,
          .scratch_bytes = request.threads * bytes + (conv->reads_in_place() ? 0 : RoundUp(packed_bytes, kAlignment)),
          .kept_bytes = packed_bytes,
          .scratch_bytes_with_kept = request.threads * bytes,
          .kept_operands = {1},
          .kept_layout = conv->packed_layout()};
}

Kernel FilterGradKernel(const KernelRequest& request, const FilterGradient& filter_gradient,
                        const char* name = kImplicitProduct) {
  const auto gradient = std::make_shared<const FilterGradient>(filter_gradient);
  const size_t bytes = gradient->workspace_bytes();
  const auto run = [=](const KernelArguments& arguments) {
    float* const sums = reinterpret_cast<float*>(arguments.scratch + arguments.pool->num_threads() * bytes);
    arguments.pool->ParallelFor(gradient->tasks(), [&](int64_t task, int thread) {
      if (arguments.stopped()) return;
      gradient->Run(arguments.operand<float>(0), arguments.operand<float>(1), task, arguments.scratch + thread * bytes,
                    sums);
    });
    arguments.pool->ParallelFor(gradient->add_tasks(),
                                [&](int64_t task, int) { gradient->Add(task, sums, arguments.output<float>()); });
    return absl::OkStatus();
  };
  return {.name = name, .run = run, .scratch_bytes = request.threads * bytes + gradient->sums_bytes()};
}

Estimate EstimateOf(const Work& work) { return Estimate().Add(Loop::kImplicit, work); }

}  // namespace

ImplicitConvolution::Filter PackFilter(const ImplicitConvolution& convolution, const KernelArguments& arguments,
                                       int operand, std::byte* scratch) {
  const float* const filter = arguments.operand<float>(operand);
  if (arguments.kept == nullptr && convolution.reads_in_place()) return {filter, nullptr};
  float* const packed = reinterpret_cast<float*>(arguments.kept != nullptr ? arguments.kept : scratch);
  if (!arguments.kept_is_current) {
    arguments.pool->ParallelFor(convolution.pack_tasks(),
                                [&](int64_t task, int) { convolution.Pack(filter, task, packed); });
  }
  return {filter, packed};
}

void AddImplicitConv2D(const KernelRequest& request, const ConvGeometry& g, std::vector<KernelChoice>& choices) {
  if (!ImplicitConvolution::Fits(g, false)) return;
  const ImplicitConvolution conv = ImplicitConvolution::Forward(g, request.threads);
  choices.push_back({kImplicitProduct, EstimateOf(conv.work()), [=] { return ImplicitKernel(request, conv); }});
}

void AddImplicitConv2DInputGrad(const KernelRequest& request, const ConvGeometry& g,
                                std::vector<KernelChoice>& choices) {
  if (!ImplicitConvolution::Fits(g, true)) return;
  const ImplicitConvolution conv = ImplicitConvolution::InputGradient(g, request.threads);
  choices.push_back({kImplicitProduct, EstimateOf(conv.work()), [=] { return ImplicitKernel(request, conv); }});
}

void AddImplicitConv2DFilterGrad(const KernelRequest& request, const ConvGeometry& g,
                                 std::vector<KernelChoice>& choices) {
  if (!FilterGradient::Fits(g)) return;
  const FilterGradient gradient(g, request.threads);
  choices.push_back(
      {kImplicitProduct, EstimateOf(gradient.work()), [=] { return FilterGradKernel(request, gradient); }});
}

ConvGeometry GeometryOf(const Node& node, absl::Span<const TensorType> operands, OpKind kind) {
  const Shape &first = operands[0].shape, &second = operands[1].shape, &output = node.outputs[0].shape;
  if (kind == OpKind::kConv2D) return ConvGeometry(node, first, second, output);
  if (kind == OpKind::kConv2DInputGrad) return ConvGeometry(node, output, second, first);
  return ConvGeometry(node, first, output, second);
}

bool HasBFloat16Convolution(const Node& node, absl::Span<const TensorType> operands) {
  // Each column is gathered, rounded and packed before it is multiplied with so many rows. With
  // fewer rows, float32 kernels and tiles of samples take less time in all.
  constexpr int64_t kLeastRows = 96, kLeastTaps = 32;
  const ConvGeometry g = GeometryOf(node, operands, node.op->kind);
  const bool is_input_gradient = node.op->kind == OpKind::kConv2DInputGrad;
  if ((is_input_gradient ? g.group_channels() : g.group_outputs()) < kLeastRows || g.taps() < kLeastTaps) return false;
  return node.op->kind == OpKind::kConv2DFilterGrad ? FilterGradient::Fits(g)
                                                    : ImplicitConvolution::Fits(g, is_input_gradient);
}

void RegisterBFloat16Convolutions(KernelRegistry& registry) {
  registry.Add("BFloat16Conv2D", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const ConvGeometry g = GeometryOf(request.node, request.operands, OpKind::kConv2D);
    return ImplicitKernel(request, ImplicitConvolution::Forward(g, request.threads, true), kBFloat16Convolution);
  });
  registry.Add("BFloat16Conv2DInputGrad", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const ConvGeometry g = GeometryOf(request.node, request.operands, OpKind::kConv2DInputGrad);
    return ImplicitKernel(request, ImplicitConvolution::InputGradient(g, request.threads, true), kBFloat16Convolution);
  });
  registry.Add("BFloat16Conv2DFilterGrad", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const ConvGeometry g = GeometryOf(request.node, request.operands, OpKind::kConv2DFilterGrad);
    return FilterGradKernel(request, FilterGradient(g, request.threads, true), kBFloat16Convolution);
  });
}

}  // namespace gradweave
