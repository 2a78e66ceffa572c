#include "gradweave/runtime/cpu/executable.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/plan/memory_plan.h"
#include "gradweave/runtime/cpu/region_steps.h"
#include "gradweave/runtime/plan/value_lifetimes.h"

namespace gradweave {
namespace {

constexpr size_t kAlignment = 64;
// Products with more weights take so long that copying these is little beside it.
constexpr size_t kMostKeptBytes = 32 << 20;

size_t RoundUp(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Contents are left as they are: whatever reads memory of the arena has written it before.
absl::StatusOr<std::shared_ptr<std::byte>> AllocateArena(size_t bytes) {
  void* memory = std::aligned_alloc(kAlignment, std::max<size_t>(RoundUp(bytes), kAlignment));
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the plan's ", bytes, " bytes; a smaller batch needs less"));
  }
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory), std::free);
}

absl::Span<const void* const> AsConst(void* const* pointers, int count) {
  return {reinterpret_cast<const void* const*>(pointers), static_cast<size_t>(count)};
}

}  // namespace

// Decides where each value lives and writes the executable's steps.
class Planner {
 public:
  Planner(Executable& executable, const KernelRegistry& kernels, const VariableStorage& variables,
          const CompileOptions& options)
      : out_(executable), graph_(executable.graph_), kernels_(kernels), variables_(variables), options_(options) {}

  absl::Status Plan() {
    GW_RETURN_IF_ERROR(MakeSteps());
    GW_ASSIGN_OR_RETURN(assignments_, values_.FindAssignments(graph_));
    values_.FindLastUses(graph_, out_.steps_, assignments_);
    PlaceAssignmentsInVariables();
    AddCopiesOfVariables();
    AssignBuffers();
    return Bind();
  }

 private:
  // Where the elements of a value are; of a value that shares another's memory, where the other's are.
  struct Place {
    enum Kind { kUnset, kArena, kConstant, kVariable, kFeed } kind = kUnset;
    int index = -1;        // Of the buffer or the feed.
    void* data = nullptr;  // Of a constant or a variable.
  };
  Port Root(Port port) const { return values_.Root(port); }
  Place& PlaceOf(Port root) { return places_[root.node][root.output]; }

  absl::Status MakeSteps();
  int64_t Bytes(Port port) const;
  void PlaceAssignmentsInVariables();
  void AddCopiesOfVariables();
  void AssignBuffers();
  size_t PlaceKept();
  absl::Status Bind();

  Executable& out_;
  Graph& graph_;
  const KernelRegistry& kernels_;
  const VariableStorage& variables_;
  const CompileOptions& options_;

  ValueLifetimes values_;
  std::vector<absl::InlinedVector<Place, 1>> places_;  // By node and output, of roots.
  std::vector<int> step_of_;                           // By node; -1: no step.
  absl::flat_hash_set<Port> tiled_;                    // Values that regions keep in tiles.
  std::vector<Assignment> assignments_;
  std::vector<BufferLifetime> buffers_;
};

absl::Status Planner::MakeSteps() {
  GW_ASSIGN_OR_RETURN(RegionSteps planned, FindRegionSteps(graph_, kernels_, options_));
  out_.choices_ = std::move(planned.choices);
  tiled_ = std::move(planned.tiled);
  const int n = graph_.num_nodes();
  places_.resize(n);
  step_of_.assign(n, -1);
  for (const Node& node : graph_.nodes()) {
    values_.AddNode(node, planned.in_batch_region[node.id] ? -1 : AliasedOperand(node));
    places_[node.id].resize(node.outputs.size());
    if (node.op->name == "Input") {
      places_[node.id][0] = {Place::kFeed, static_cast<int>(out_.input_names_.size()), nullptr};
      out_.input_names_.push_back(node.name);
    } else if (node.op->name == "Constant") {
      places_[node.id][0] = {Place::kConstant, -1, const_cast<void*>(node.attribute<Tensor>("value").raw_data())};
    } else if (node.op->name == "Variable") {
      auto storage = variables_.find(node.name);
      GW_CHECK(storage != variables_.end(), node.name);
      places_[node.id][0] = {Place::kVariable, -1, const_cast<void*>(storage->second.tensor.raw_data())};
    }
  }
  for (RegionStep& step : planned.steps) {
    for (NodeId id : step.nodes) step_of_[id] = static_cast<int>(out_.steps_.size());
    out_.steps_.push_back({.kernel = std::move(step.kernel),
                           .node = step.nodes.back(),
                           .num_nodes = static_cast<int>(step.nodes.size()),
                           .operands = std::move(step.operands),
                           .outputs = std::move(step.outputs)});
  }
  return absl::OkStatus();
}

int64_t Planner::Bytes(Port port) const {
  const TensorType& type = graph_.type(port);
  return tiled_.contains(port) ? kernels_.regions()->tiled_bytes(type) : type.byte_size();
}

// A new value can be written straight into the variable if nothing reads the old one afterwards and nothing that comes
// later can fail.
void Planner::PlaceAssignmentsInVariables() {
  int last_fallible = -1;
  for (size_t step = 0; step < out_.steps_.size(); ++step) {
    if (out_.steps_[step].kernel.fallible) last_fallible = static_cast<int>(step);
  }
  for (Assignment& assignment : assignments_) {
    Place& place = PlaceOf(assignment.value);
    const int producer = step_of_[assignment.value.node];
    if (place.kind != Place::kUnset || producer < 0 || producer <= last_fallible) continue;
    if (!values_.MayWriteToVariable(assignment, out_.steps_[producer], producer)) continue;
    place = PlaceOf(assignment.variable);
    assignment.in_place = true;
  }
}

// A variable's value that is fetched or assigned to another variable is copied first: by then its own assignment may
// have taken effect.
void Planner::AddCopiesOfVariables() {
  for (Assignment& assignment : assignments_) {
    if (PlaceOf(assignment.value).kind != Place::kVariable || assignment.in_place) continue;
    if (graph_.node(assignment.value.node).op->name != "Variable") continue;
    const OpDefinition* identity = graph_.node(assignment.value.node).op->registry->Find("StopGradient");
    GW_CHECK(identity != nullptr, "the registry lacks StopGradient");
    const absl::StatusOr<NodeId> copy = graph_.AddNode(identity, {}, {assignment.value});
    GW_CHECK(copy.ok(), copy.status().ToString());
    const int step = static_cast<int>(out_.steps_.size());
    const size_t bytes = graph_.type(assignment.value).byte_size();
    Kernel kernel{.name = "copy", .run = [bytes](const KernelArguments& arguments) {
                    std::memcpy(arguments.outputs[0], arguments.operands[0], bytes);
                    return absl::OkStatus();
                  }};
    const Port port{*copy, 0};
    out_.steps_.push_back({.kernel = std::move(kernel),
                           .node = *copy,
                           .num_nodes = 1,
                           .operands = {assignment.value},
                           .outputs = {port}});
    values_.AddNode(graph_.node(*copy), -1);
    values_.Use(port, ValueLifetimes::kEnd);
    places_.emplace_back().emplace_back();
    step_of_.push_back(step);
    assignment.value = port;
  }
}

void Planner::AssignBuffers() {
  const int end = static_cast<int>(out_.steps_.size());
  for (int step = 0; step < end; ++step) {
    const Executable::Step& current = out_.steps_[step];
    absl::InlinedVector<int, 2> taken;  // Buffers of operands that an output of this step has taken over.
    for (int output = 0; output < static_cast<int>(current.outputs.size()); ++output) {
      const Port port = current.outputs[output];
      Place& place = PlaceOf(port);
      if (place.kind != Place::kUnset) continue;
      const int last = std::max(step, std::min(values_.LastUse(port), end));
      const std::optional<Port> overwritten = values_.FindOverwritten(current, step, output, [&](Port root) {
        const Place& candidate = PlaceOf(root);
        // The root's buffer may have been handed on before; what counts is who reads this value, and that is over.
        return candidate.kind == Place::kArena && Bytes(root) == Bytes(port) &&
               std::find(taken.begin(), taken.end(), candidate.index) == taken.end();
      });
      if (overwritten.has_value()) {
        const int reused = PlaceOf(*overwritten).index;
        taken.push_back(reused);
        buffers_[reused].last = std::max(buffers_[reused].last, last);
        place = {Place::kArena, reused, nullptr};
      } else {
        buffers_.push_back({Bytes(port), step, last});
        place = {Place::kArena, static_cast<int>(buffers_.size()) - 1, nullptr};
      }
    }
  }
}

// Gives memory of their own to kernels that can keep something of constants and of variables that the graph leaves as
// they are. Returns how much.
size_t Planner::PlaceKept() {
  absl::flat_hash_set<Port> assigned;
  for (const Assignment& assignment : assignments_) assigned.insert(assignment.variable);
  size_t bytes = 0;
  if (!options_.keep_weights) return bytes;
  for (auto& step : out_.steps_) {
    if (step.kernel.kept_bytes == 0 || bytes + step.kernel.kept_bytes > kMostKeptBytes) continue;
    Executable::Kept kept{.offset = bytes};
    bool can_keep = true;
    for (int operand : step.kernel.kept_operands) {
      const Port root = Root(step.operands[operand]);
      const Place::Kind kind = PlaceOf(root).kind;
      can_keep &= kind == Place::kConstant || (kind == Place::kVariable && !assigned.contains(root));
      if (kind == Place::kVariable) kept.versions.push_back(variables_.at(graph_.node(root.node).name).version.get());
    }
    if (!can_keep) continue;
    bytes += RoundUp(step.kernel.kept_bytes);
    step.kept = static_cast<int>(out_.kept_.size());
    out_.kept_.push_back(std::move(kept));
  }
  return bytes;
}

absl::Status Planner::Bind() {
  const MemoryPlan plan = PlanMemory(buffers_);
  const size_t kept_bytes = PlaceKept();
  size_t scratch_bytes = 0;
  for (const auto& step : out_.steps_) {
    scratch_bytes = std::max(scratch_bytes,
                             RoundUp(step.kept < 0 ? step.kernel.scratch_bytes : step.kernel.scratch_bytes_with_kept));
  }
  out_.arena_bytes_ = plan.arena_bytes + static_cast<int64_t>(scratch_bytes + kept_bytes);
  out_.lower_bound_bytes_ = plan.lower_bound_bytes + static_cast<int64_t>(scratch_bytes + kept_bytes);
  GW_ASSIGN_OR_RETURN(out_.arena_, AllocateArena(out_.arena_bytes_));
  out_.scratch_ = out_.arena_.get() + plan.arena_bytes;
  out_.kept_memory_ = out_.scratch_ + scratch_bytes;

  // Adds the address of a value, or a note to put the feed's there.
  auto add_pointer = [&](Port port) {
    const Place& place = PlaceOf(Root(port));
    const int index = static_cast<int>(out_.pointers_.size());
    out_.pointers_.push_back(place.kind == Place::kArena ? out_.arena_.get() + plan.offsets[place.index] : place.data);
    if (place.kind == Place::kFeed) out_.feed_patches_.push_back({index, place.index});
    return index;
  };
  for (auto& step : out_.steps_) {
    step.first_operand = static_cast<int>(out_.pointers_.size());
    for (Port operand : step.operands) add_pointer(operand);
    for (Port output : step.outputs) add_pointer(output);
  }
  if (auto fetches = graph_.outputs().find(kFetches); fetches != graph_.outputs().end()) {
    int result = 0;
    for (Port port : fetches->second) {
      out_.result_copies_.push_back(
          {add_pointer(port), nullptr, result++, static_cast<size_t>(graph_.type(port).byte_size())});
    }
  }
  for (const Assignment& assignment : assignments_) {
    out_.assigned_versions_.push_back(variables_.at(graph_.node(assignment.variable.node).name).version.get());
    if (assignment.in_place) continue;
    out_.variable_copies_.push_back({add_pointer(assignment.value), PlaceOf(assignment.variable).data, -1,
                                     static_cast<size_t>(graph_.type(assignment.variable).byte_size())});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Executable>> Executable::Compile(Graph graph, const KernelRegistry& kernels,
                                                                const VariableStorage& variables,
                                                                const CompileOptions& options) {
  auto executable = std::make_unique<Executable>();
  executable->graph_ = std::move(graph);
  executable->variables_ = variables;
  GW_RETURN_IF_ERROR(Planner(*executable, kernels, executable->variables_, options).Plan());
  return executable;
}

absl::Status Executable::Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool,
                             uint64_t seed, uint64_t run_number, Profiler* profiler) {
  for (const FeedPatch& patch : feed_patches_) pointers_[patch.pointer] = const_cast<void*>(feeds[patch.feed]);
  KernelArguments arguments;
  arguments.scratch = scratch_;
  arguments.pool = &pool;
  arguments.seed = seed;
  arguments.run_number = run_number;
  arguments.profiler = profiler;
  for (uint64_t* version : assigned_versions_) ++*version;
  for (Step& step : steps_) {
    Kept* const kept = step.kept < 0 ? nullptr : &kept_[step.kept];
    uint64_t made_of = 0;
    if (kept != nullptr) {
      for (const uint64_t* version : kept->versions) made_of += *version;
      arguments.kept = kept_memory_ + kept->offset;
      arguments.kept_is_current = kept->made_of == made_of;
    } else {
      arguments.kept = nullptr;
      arguments.kept_is_current = false;
    }
    void* const* pointers = pointers_.data() + step.first_operand;
    arguments.operands = AsConst(pointers, static_cast<int>(step.operands.size()));
    arguments.outputs = {pointers + step.operands.size(), step.outputs.size()};
    const double begin = profiler == nullptr ? 0 : profiler->Now();
    absl::Status status = step.kernel.run(arguments);
    if (profiler != nullptr) {
      const double end = profiler->Now();
      profiler->AddSpan(0, absl::StrCat(graph_.node(step.node).display_name(), ": ", step.kernel.name), begin, end);
      step.microseconds = end - begin;
      step.part_microseconds = profiler->TakeParts();
    }
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(status.message(), "; in ", DescribeNode(graph_, graph_.node(step.node))));
    }
    if (kept != nullptr) kept->made_of = made_of;
  }
  for (const Copy& copy : result_copies_) {
    if (copy.bytes > 0) std::memcpy(results[copy.result].mutable_raw_data(), pointers_[copy.pointer], copy.bytes);
  }
  for (const Copy& copy : variable_copies_) {
    if (copy.bytes > 0) std::memcpy(copy.to, pointers_[copy.pointer], copy.bytes);
  }
  return absl::OkStatus();
}

std::string Executable::Describe() const {
  std::string text = absl::StrFormat("%-5s %-36s %-24s %-26s %12s %13s %11s %8s\n", "step", "node", "kernel", "output",
                                     "bytes", "FLOPs", "us", "GFLOP/s");
  auto flops_of = [&](NodeId id) {
    const Node& node = graph_.node(id);
    const TensorTypes operands = graph_.OperandTypes(node);
    return node.op->flops == nullptr ? 0 : node.op->flops(OpView(*node.op, node.attributes, operands), node.outputs);
  };
  // Times are there after a profiled run alone.
  auto times = [](double microseconds, double flops) {
    if (microseconds <= 0) return std::string();
    return absl::StrFormat(" %11.1f %8.1f", microseconds, flops / microseconds / 1e3);
  };
  double total_flops = 0, total_microseconds = 0;
  for (size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    double flops = 0;
    for (const Kernel::Part& part : step.kernel.parts) flops += part.flops;
    if (step.kernel.parts.empty()) flops = flops_of(step.node);
    int64_t bytes = 0;
    for (Port output : step.outputs) bytes += graph_.type(output).byte_size();
    total_flops += flops;
    total_microseconds += step.microseconds;
    const std::string name =
        step.num_nodes == 1 ? graph_.node(step.node).display_name() : absl::StrCat(step.num_nodes, " nodes");
    const std::string output = step.outputs.size() == 1 ? graph_.type(step.outputs[0]).ToString()
                                                        : absl::StrCat(step.outputs.size(), " values");
    absl::StrAppendFormat(&text, "%-5d %-36s %-24s %-26s %12d %13.0f%s\n", i, name, step.kernel.name, output, bytes,
                          flops, times(step.microseconds, flops));
    for (size_t k = 0; k < step.kernel.parts.size(); ++k) {
      const Kernel::Part& part = step.kernel.parts[k];
      const double microseconds = k < step.part_microseconds.size() ? step.part_microseconds[k] : 0;
      absl::StrAppendFormat(&text, "      %-36s %-24s %-26s %12s %13.0f%s\n", graph_.node(part.node).display_name(),
                            part.name, graph_.node(part.node).outputs[0].ToString(), "", part.flops,
                            times(microseconds, part.flops));
    }
  }
  absl::StrAppendFormat(&text, "%d steps, %.0f FLOPs, planned peak %d bytes, lower bound %d bytes", steps_.size(),
                        total_flops, arena_bytes_, lower_bound_bytes_);
  if (total_microseconds > 0) {
    absl::StrAppendFormat(&text, "; %.1f us, %.1f GFLOP/s", total_microseconds, total_flops / total_microseconds / 1e3);
  }
  text += "\n";
  for (const std::string& choice : choices_) absl::StrAppend(&text, choice, "\n");
  return text;
}

absl::StatusOr<std::vector<Tensor>> EvaluateNode(const KernelRegistry& kernels, const Node& node,
                                                 absl::Span<const Tensor> operands) {
  TensorTypes types;
  std::vector<const void*> inputs;
  for (const Tensor& operand : operands) {
    types.push_back(operand.type());
    inputs.push_back(operand.raw_data());
  }
  const KernelFactory* factory = kernels.Find(node.op->name);
  if (factory == nullptr) return absl::UnimplementedError(node.op->name);
  GW_ASSIGN_OR_RETURN(Kernel kernel, (*factory)({node, types, 1}));
  std::vector<Tensor> results;
  std::vector<void*> outputs;
  for (const TensorType& type : node.outputs) {
    GW_ASSIGN_OR_RETURN(Tensor result, Tensor::Create(type.dtype, type.shape.sizes()));
    outputs.push_back(result.mutable_raw_data());
    results.push_back(std::move(result));
  }
  ThreadPool caller_only(1);
  GW_ASSIGN_OR_RETURN(std::shared_ptr<std::byte> scratch, AllocateArena(kernel.scratch_bytes));
  KernelArguments arguments;
  arguments.operands = inputs;
  arguments.outputs = outputs;
  arguments.scratch = scratch.get();
  arguments.pool = &caller_only;
  GW_RETURN_IF_ERROR(kernel.run(arguments));
  return results;
}

}  // namespace gradweave
