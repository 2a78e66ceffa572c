#include "gradweave/frontend/command/inputs.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>
#include <set>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gradweave/frontend/command/session_flags.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/data/npy.h"
#include "gradweave/frontend/image.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::command {
namespace {

absl::Status DoesNotFit(const Node& input, absl::Span<const int64_t> sizes, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("the shape [", absl::StrJoin(sizes, ","), "] does not fit input '",
                                                 PrintableText(input.name), "', ", input.outputs[0].ToString(), why));
}

std::set<std::string> SymbolsOf(const Graph& graph, absl::Span<const NodeId> inputs) {
  std::set<std::string> symbols;
  for (const NodeId id : inputs) graph.node(id).outputs[0].shape.CollectSymbols(symbols);
  return symbols;
}

template <typename Fill>
absl::StatusOr<std::vector<Feed>> MakeFeeds(Graph& graph, absl::Span<const NodeId> inputs, const DimBindings& sizes,
                                            Fill fill) {
  std::vector<Feed> feeds;
  for (const NodeId id : inputs) {
    const TensorType type = BoundType(graph.node(id), sizes);
    GW_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Create(type.dtype, type.shape.sizes()));
    fill(tensor);
    feeds.emplace_back(graph.value(id), std::move(tensor));
  }
  return feeds;
}

// Reads an image as bytes [channels, height, width] with the input's sizes, where these are known.
absl::StatusOr<Tensor> ReadImage(const Node& input, const std::string& path, std::vector<std::string>& notes) {
  const Shape& shape = input.outputs[0].shape;
  const int rank = shape.rank();
  const auto known = [&](int from_end) {
    return rank >= from_end && shape[rank - from_end].is_known() ? shape[rank - from_end].size() : int64_t{0};
  };
  const int64_t channels = known(3);
  if (rank < 3 || (channels != 1 && channels != 3)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": an image does not fit input '", PrintableText(input.name),
                                                   "', ", input.outputs[0].ToString(),
                                                   "; [...,1,height,width] or [...,3,height,width] is expected"));
  }
  GW_ASSIGN_OR_RETURN(const Image image, ReadPngImage(path, static_cast<int>(channels)));
  const int64_t height = known(2) > 0 ? known(2) : image.height, width = known(1) > 0 ? known(1) : image.width;
  if (height != image.height || width != image.width) {
    notes.push_back(
        absl::StrCat(path, ": resized from ", image.width, " x ", image.height, " to ", width, " x ", height));
  }
  Tensor pixels(kUint8, {channels, height, width});
  for (int64_t channel = 0; channel < channels; ++channel) {
    GrayImage plane(image.width, image.height);
    for (size_t i = 0; i < plane.pixels.size(); ++i) plane.pixels[i] = image.pixels[i * channels + channel];
    if (height != image.height || width != image.width) plane = Resized(plane, width, height);
    std::copy(plane.pixels.begin(), plane.pixels.end(), pixels.mutable_data<uint8_t>() + channel * height * width);
  }
  return pixels;
}

}  // namespace

absl::Status BindSizes(const Node& input, absl::Span<const int64_t> sizes, DimBindings& bindings) {
  const Shape& shape = input.outputs[0].shape;
  if (static_cast<int>(sizes.size()) != shape.rank()) {
    return DoesNotFit(input, sizes, absl::StrCat("; ", Counted(shape.rank(), "size"), " are expected"));
  }
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const std::optional<std::string> symbol = shape[axis].AsSymbol();
    if (!symbol.has_value()) continue;
    const auto [at, is_new] = bindings.emplace(*symbol, sizes[axis]);
    if (!is_new && at->second != sizes[axis]) {
      return DoesNotFit(input, sizes, absl::StrCat("; ", *symbol, " is ", at->second, " already"));
    }
  }
  const Shape bound = shape.Substitute(bindings);
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (bound[axis].is_known() && bound[axis].size() != sizes[axis]) {
      return DoesNotFit(input, sizes, absl::StrCat("; size ", axis, " has to be ", bound[axis].size()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<DimBindings> SizesOf(Graph& graph, const NamedTexts& shapes) {
  DimBindings bindings;
  for (const auto& [name, text] : shapes.items) {
    GW_ASSIGN_OR_RETURN(const Value input, FindNamed(graph, OpKind::kInput, "input", name));
    std::vector<int64_t> sizes;
    for (absl::string_view part : absl::StrSplit(text, ',')) {
      int64_t size = 0;
      if (!absl::SimpleAtoi(part, &size) || size < 1 || size > int64_t{1} << 31) {
        return absl::InvalidArgumentError(absl::StrCat("--shape ", PrintableText(name), "=", PrintableText(text),
                                                       ": sizes in [1, 2^31] with commas between them are expected"));
      }
      sizes.push_back(size);
    }
    GW_RETURN_IF_ERROR(BindSizes(input.node(), sizes, bindings));
  }
  return bindings;
}

TensorType BoundType(const Node& input, const DimBindings& sizes) {
  DimBindings all = sizes;
  std::set<std::string> symbols;
  input.outputs[0].shape.CollectSymbols(symbols);
  for (const std::string& symbol : symbols) all.emplace(symbol, 1);
  return {input.outputs[0].dtype, input.outputs[0].shape.Substitute(all)};
}

std::string SizesText(const Graph& graph, absl::Span<const NodeId> inputs, const DimBindings& sizes) {
  std::vector<std::string> texts;
  for (const std::string& symbol : SymbolsOf(graph, inputs)) {
    const auto size = sizes.find(symbol);
    texts.push_back(absl::StrCat(symbol, " = ", size == sizes.end() ? 1 : size->second));
  }
  return absl::StrJoin(texts, ", ");
}

absl::StatusOr<std::vector<Feed>> ZeroFeeds(Graph& graph, absl::Span<const NodeId> inputs, const DimBindings& sizes) {
  return MakeFeeds(graph, inputs, sizes, [](Tensor&) {});
}

absl::StatusOr<std::vector<Feed>> RandomFeeds(Graph& graph, absl::Span<const NodeId> inputs, const DimBindings& sizes,
                                              uint64_t seed) {
  std::mt19937_64 random(seed);
  return MakeFeeds(graph, inputs, sizes, [&](Tensor& tensor) {
    if (!IsFloating(tensor.dtype())) return;
    VisitDType(tensor.dtype(), [&](auto zero) {
      using T = decltype(zero);
      // 24 bits fit into every floating type. The standard's distributions differ between
      // libraries.
      for (T& value : tensor.mutable_values<T>())
        value = static_cast<T>(std::ldexp(static_cast<double>(random() >> 40), -24));
    });
  });
}

std::optional<Tensor> Converted(const Tensor& tensor, DType dtype) {
  if (tensor.dtype() == dtype) return tensor;
  auto is_real = [](DType any) { return IsFloating(any) || IsHalf(any); };
  auto is_integer = [is_real](DType any) { return !is_real(any) && any != kBool; };
  if (is_real(dtype) && is_real(tensor.dtype())) return tensor.Cast(dtype);
  if (IsFloating(dtype) && tensor.dtype() == kUint8) {
    Tensor scaled(kFloat32, tensor.sizes());  // The loader scales batches of bytes in the same way.
    std::transform(tensor.values<uint8_t>().begin(), tensor.values<uint8_t>().end(), scaled.mutable_data<float>(),
                   [](uint8_t byte) { return static_cast<float>(byte) / 255.0f; });
    return scaled.Cast(dtype);
  }
  if (is_integer(dtype) && is_integer(tensor.dtype())) {
    const Tensor converted = tensor.Cast(dtype);
    if (SameBits(converted.Cast(tensor.dtype()), tensor)) return converted;
  }
  return std::nullopt;
}

absl::StatusOr<Tensor> ReadInput(const Node& input, const std::string& path, std::vector<std::string>& notes) {
  const TensorType& type = input.outputs[0];
  GW_ASSIGN_OR_RETURN(const FileKind kind, KindOf(path));
  if (kind != FileKind::kNpy && kind != FileKind::kPng) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": an array of numpy (.npy) or a PNG image is expected, and this is ", KindName(kind)));
  }
  GW_ASSIGN_OR_RETURN(Tensor tensor, kind == FileKind::kNpy ? data::ReadNpy(path) : ReadImage(input, path, notes));
  if (tensor.rank() + 1 == type.shape.rank() && !type.shape[0].is_known()) {
    std::vector<int64_t> sizes(tensor.sizes().begin(), tensor.sizes().end());
    sizes.insert(sizes.begin(), 1);
    tensor = tensor.Reshaped(sizes);
  }
  const std::optional<Tensor> converted = Converted(tensor, type.dtype);
  DimBindings sizes;
  if (const absl::Status fits = BindSizes(input, tensor.sizes(), sizes); !fits.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", fits.message()));
  }
  if (!converted.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the array is ", tensor.type().ToString(), ", and input '",
                                                   PrintableText(input.name), "' is ", type.ToString(),
                                                   "; convert it with astype"));
  }
  return *converted;
}

absl::StatusOr<std::vector<Feed>> FeedsByFlags(Graph& graph, std::vector<std::string>& notes) {
  GW_ASSIGN_OR_RETURN(DimBindings sizes, SizesOf(graph, absl::GetFlag(FLAGS_shape)));
  std::vector<Feed> feeds;
  for (const auto& [name, path] : absl::GetFlag(FLAGS_input).items) {
    GW_ASSIGN_OR_RETURN(const Value input, FindNamed(graph, OpKind::kInput, "input", name));
    if (HasAll(feeds, {input.port().node})) {
      return absl::InvalidArgumentError(absl::StrCat("--input gives two files for '", PrintableText(name), "'"));
    }
    GW_ASSIGN_OR_RETURN(Tensor tensor, ReadInput(input.node(), path, notes));
    if (const absl::Status fits = BindSizes(input.node(), tensor.sizes(), sizes); !fits.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", fits.message()));
    }
    feeds.emplace_back(input, std::move(tensor));
  }
  if (!absl::GetFlag(FLAGS_random)) return feeds;
  std::vector<NodeId> missing;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kInput && !HasAll(feeds, {node.id})) missing.push_back(node.id);
  }
  GW_ASSIGN_OR_RETURN(std::vector<Feed> random, RandomFeeds(graph, missing, sizes, absl::GetFlag(FLAGS_seed)));
  std::move(random.begin(), random.end(), std::back_inserter(feeds));
  return feeds;
}

bool HasAll(absl::Span<const Feed> feeds, absl::Span<const NodeId> inputs) {
  return std::all_of(inputs.begin(), inputs.end(), [&](NodeId input) {
    return std::any_of(feeds.begin(), feeds.end(), [&](const Feed& feed) { return feed.first.port().node == input; });
  });
}

absl::Status MissingInput(const Graph& graph, const NamedOutput& output, absl::Span<const Feed> feeds) {
  for (const NodeId input : output.inputs) {
    if (HasAll(feeds, {input})) continue;
    const std::string name = PrintableText(graph.node(input).name);
    return absl::InvalidArgumentError(absl::StrCat("output '", PrintableText(output.name), "' needs input '", name,
                                                   "', ", graph.node(input).outputs[0].ToString(), "; give --input ",
                                                   name, "=FILE, or --random"));
  }
  return absl::OkStatus();
}

}  // namespace gradweave::command
