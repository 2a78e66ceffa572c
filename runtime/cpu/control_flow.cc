#include "gradweave/runtime/cpu/control_flow.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cpu/body_program.h"

namespace gradweave {
namespace {

StepOptions BodyOptions(const StepOptions& options, const KernelRequest& request) {
  StepOptions of_body = options;
  of_body.threads = request.threads;
  of_body.toom_cook = request.toom_cook;
  return of_body;
}

// Hands out aligned places in the scratch of a kernel.
class ScratchLayout {
 public:
  size_t Add(size_t bytes) {
    const size_t offset = bytes_;
    bytes_ += RoundUp(bytes, kAlignment);
    return offset;
  }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
};

// The states of a loop. A step reads them where the step before it has written them.
struct States {
  std::vector<size_t> bytes, offsets;  // Sizes, and the places in scratch of every other step.
  std::vector<const void*> now;        // Where they are.

  void Add(size_t state_bytes, ScratchLayout& layout) {
    bytes.push_back(state_bytes);
    offsets.push_back(layout.Add(state_bytes));
    now.push_back(nullptr);
  }
  int count() const { return static_cast<int>(bytes.size()); }
  void Begin(const KernelArguments& arguments) {
    for (int i = 0; i < count(); ++i) now[i] = arguments.operands[i];
  }
  // Where a step writes the state: in turn, the outputs and scratch.
  void* Next(int i, bool to_output, const KernelArguments& arguments) const {
    return to_output ? arguments.outputs[i] : arguments.scratch + offsets[i];
  }
  void End(const KernelArguments& arguments) const {
    for (int i = 0; i < count(); ++i) {
      if (now[i] != arguments.outputs[i] && bytes[i] > 0) std::memcpy(arguments.outputs[i], now[i], bytes[i]);
    }
  }
};

// A scanned input or output: `outer` blocks for each step, `bytes` each.
struct Stack {
  int64_t outer = 1, length = 0;
  size_t bytes = 0;
  size_t buffer = 0;  // The place in scratch of one slice, if its blocks do not lie one behind the other.

  Stack(const TensorType& type, int64_t axis, ScratchLayout& layout) {
    length = type.shape[static_cast<int>(axis)].size();
    bytes = DTypeSize(type.dtype);
    for (int i = 0; i < type.shape.rank(); ++i) {
      if (i < axis) outer *= type.shape[i].size();
      if (i > axis) bytes *= static_cast<size_t>(type.shape[i].size());
    }
    if (!is_direct()) buffer = layout.Add(static_cast<size_t>(outer) * bytes);
  }

  bool is_direct() const { return outer == 1; }
  size_t offset(int64_t block, int64_t step) const { return static_cast<size_t>(block * length + step) * bytes; }
  // Copies a slice from the whole (`gather`) or to it.
  void Move(bool gather, std::byte* whole, std::byte* slice, int64_t step, ThreadPool& pool) const {
    // 64 KiB are worth a thread's while.
    const auto grain = static_cast<int64_t>(size_t{65536} / (bytes + 1) + 1);
    ParallelForRange(pool, outer, grain, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        std::byte* const one = whole + offset(block, step);
        std::byte* const other = slice + static_cast<size_t>(block) * bytes;
        std::memcpy(gather ? other : one, gather ? one : other, bytes);
      }
    });
  }
};

struct ScanLoop {
  std::unique_ptr<BodyProgram> body;
  size_t body_offset = 0;
  int64_t length = 0;
  bool reverse = false;
  States states = {};
  std::vector<Stack> inputs = {}, outputs = {};
  std::vector<int> output_of_state = {};  // The output whose slices are the state after each step; -1: none.

  absl::Status Run(const KernelArguments& arguments) {
    const int first_input = states.count(), first_captured = first_input + static_cast<int>(inputs.size());
    body->Begin(arguments.scratch + body_offset);
    states.Begin(arguments);
    for (int i = first_captured; i < static_cast<int>(arguments.operands.size()); ++i) {
      body->SetOperand(i, arguments.operands[i]);
    }
    for (int64_t step = 0; step < length; ++step) {
      if (arguments.stopped()) return absl::OkStatus();
      GW_RETURN_IF_ERROR(RunStep(arguments, step));
    }
    states.End(arguments);
    return absl::OkStatus();
  }

  absl::Status RunStep(const KernelArguments& arguments, int64_t step) {
    const int first_input = states.count();
    const int64_t slice = reverse ? length - 1 - step : step;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Stack& input = inputs[i];
      auto* const whole = static_cast<std::byte*>(const_cast<void*>(arguments.operands[first_input + i]));
      if (!input.is_direct()) input.Move(true, whole, arguments.scratch + input.buffer, slice, *arguments.pool);
      body->SetOperand(first_input + static_cast<int>(i),
                       input.is_direct() ? whole + input.offset(0, slice) : arguments.scratch + input.buffer);
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      body->SetResult(first_input + static_cast<int>(i), SliceOf(arguments, i, slice));
    }
    for (int i = 0; i < states.count(); ++i) {
      body->SetOperand(i, states.now[i]);
      const int output = output_of_state[i];
      // The last step writes to the outputs.
      void* const next = output >= 0 ? SliceOf(arguments, static_cast<size_t>(output), slice)
                                     : states.Next(i, (length - 1 - step) % 2 == 0, arguments);
      body->SetResult(i, next);
      states.now[i] = next;
    }
    GW_RETURN_IF_ERROR(body->Run(arguments));
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i].is_direct()) continue;
      outputs[i].Move(false, Whole(arguments, i), arguments.scratch + outputs[i].buffer, slice, *arguments.pool);
    }
    return absl::OkStatus();
  }

  std::byte* Whole(const KernelArguments& arguments, size_t output) const {
    return arguments.output<std::byte>(states.count() + static_cast<int>(output));
  }
  // Where the body writes a slice of an output.
  std::byte* SliceOf(const KernelArguments& arguments, size_t output, int64_t slice) const {
    return outputs[output].is_direct() ? Whole(arguments, output) + outputs[output].offset(0, slice)
                                       : arguments.scratch + outputs[output].buffer;
  }
};

absl::StatusOr<Kernel> MakeScan(const KernelRequest& request, const StepOptions& options) {
  const Graph& body = *request.attribute<Body>("body");
  const auto num_states = static_cast<int>(request.attribute<int64_t>("states"));
  const Integers& input_axes = request.attribute<Integers>("input_axes");
  const Integers& output_axes = request.attribute<Integers>("output_axes");
  auto loop = std::make_shared<ScanLoop>(
      ScanLoop{.length = request.attribute<Shape>("length")[0].size(), .reverse = request.attribute<bool>("reverse")});
  ScratchLayout layout;
  for (int i = 0; i < num_states; ++i) loop->states.Add(request.operand(i).byte_size(), layout);
  for (size_t i = 0; i < input_axes.size(); ++i) {
    loop->inputs.emplace_back(request.operand(num_states + static_cast<int>(i)), input_axes[i], layout);
  }
  for (size_t i = 0; i < output_axes.size(); ++i) {
    loop->outputs.emplace_back(request.output(num_states + static_cast<int>(i)), output_axes[i], layout);
  }
  // A state that is an output too stays in the output.
  std::vector<int> priority;
  for (int pass = 0; pass < 2; ++pass) {
    for (size_t i = 0; i < loop->outputs.size(); ++i) {
      if (loop->outputs[i].is_direct() == (pass == 0)) priority.push_back(num_states + static_cast<int>(i));
    }
    for (int i = 0; i < num_states && pass == 0; ++i) priority.push_back(i);
  }
  GW_ASSIGN_OR_RETURN(loop->body, BodyProgram::Make(body, BodyOptions(options, request), priority,
                                                    num_states + static_cast<int>(input_axes.size())));
  for (int i = 0; i < num_states; ++i) {
    const int writer = loop->body->writer(i);
    loop->output_of_state.push_back(writer >= num_states ? writer - num_states : -1);
  }
  loop->body_offset = layout.Add(loop->body->bytes());
  Kernel kernel{.name = absl::StrCat("loop of ", loop->length, " steps, ", loop->body->num_steps(), " kernels each"),
                .run = [loop](const KernelArguments& arguments) { return loop->Run(arguments); },
                .scratch_bytes = layout.bytes(),
                .fallible = loop->body->fallible()};
  loop->body->AddParts(request.node.id, static_cast<double>(loop->length), kernel);
  return kernel;
}

// All results of a body, in their order.
std::vector<int> AllResults(const Graph& body) {
  std::vector<int> all(BodyPorts(body, kBodyResults).size());
  std::iota(all.begin(), all.end(), 0);
  return all;
}

absl::StatusOr<std::unique_ptr<BodyProgram>> MakeProgram(const KernelRequest& request, absl::string_view attribute,
                                                         const StepOptions& options, int first_constant) {
  const Graph& body = *request.attribute<Body>(attribute);
  return BodyProgram::Make(body, BodyOptions(options, request), AllResults(body), first_constant);
}

absl::StatusOr<Kernel> MakeIf(const KernelRequest& request, const StepOptions& options) {
  struct Branches {
    std::unique_ptr<BodyProgram> then_branch, else_branch;
  };
  const auto branches = std::make_shared<Branches>();
  // One run has nothing to keep for another.
  const int first_constant = static_cast<int>(request.operands.size());
  GW_ASSIGN_OR_RETURN(branches->then_branch, MakeProgram(request, "then_branch", options, first_constant));
  GW_ASSIGN_OR_RETURN(branches->else_branch, MakeProgram(request, "else_branch", options, first_constant));
  Kernel kernel{.name = absl::StrCat("branch of ", branches->then_branch->num_steps(), " or ",
                                     branches->else_branch->num_steps(), " kernels"),
                .run =
                    [branches](const KernelArguments& arguments) {
                      BodyProgram& taken =
                          *arguments.operand<bool>(0) ? *branches->then_branch : *branches->else_branch;
                      taken.Begin(arguments.scratch);
                      for (int i = 1; i < static_cast<int>(arguments.operands.size()); ++i) {
                        taken.SetOperand(i - 1, arguments.operands[i]);
                      }
                      for (int i = 0; i < static_cast<int>(arguments.outputs.size()); ++i) {
                        taken.SetResult(i, arguments.outputs[i]);
                      }
                      return taken.Run(arguments);
                    },
                .scratch_bytes = std::max(branches->then_branch->bytes(), branches->else_branch->bytes()),
                .fallible = branches->then_branch->fallible() || branches->else_branch->fallible()};
  branches->then_branch->AddParts(request.node.id, 0, kernel);
  branches->else_branch->AddParts(request.node.id, 0, kernel);
  return kernel;
}

struct WhileLoop {
  std::unique_ptr<BodyProgram> condition, body;
  size_t condition_offset = 0, body_offset = 0, holds_offset = 0;
  int64_t most_steps = 0;
  States states = {};

  absl::Status Run(const KernelArguments& arguments) {
    condition->Begin(arguments.scratch + condition_offset);
    body->Begin(arguments.scratch + body_offset);
    states.Begin(arguments);
    for (int i = states.count(); i < static_cast<int>(arguments.operands.size()); ++i) {
      condition->SetOperand(i, arguments.operands[i]);
      body->SetOperand(i, arguments.operands[i]);
    }
    auto* const holds = reinterpret_cast<bool*>(arguments.scratch + holds_offset);
    condition->SetResult(0, holds);
    for (int64_t step = 0;; ++step) {
      if (arguments.stopped()) return absl::OkStatus();
      for (int i = 0; i < states.count(); ++i) condition->SetOperand(i, states.now[i]);
      GW_RETURN_IF_ERROR(condition->Run(arguments));
      if (!*holds) break;
      if (step == most_steps) {
        return absl::OutOfRangeError(absl::StrCat("While: the condition still holds after ", most_steps,
                                                  " steps, the greatest number that most_steps allows"));
      }
      for (int i = 0; i < states.count(); ++i) {
        body->SetOperand(i, states.now[i]);
        void* const next = states.Next(i, step % 2 == 0, arguments);
        body->SetResult(i, next);
        states.now[i] = next;
      }
      GW_RETURN_IF_ERROR(body->Run(arguments));
    }
    states.End(arguments);
    return absl::OkStatus();
  }
};

absl::StatusOr<Kernel> MakeWhile(const KernelRequest& request, const StepOptions& options) {
  const auto num_states = static_cast<int>(request.attribute<int64_t>("states"));
  auto loop = std::make_shared<WhileLoop>(WhileLoop{.most_steps = request.attribute<int64_t>("most_steps")});
  ScratchLayout layout;
  for (int i = 0; i < num_states; ++i) loop->states.Add(request.operand(i).byte_size(), layout);
  GW_ASSIGN_OR_RETURN(loop->condition, MakeProgram(request, "condition", options, num_states));
  GW_ASSIGN_OR_RETURN(loop->body, MakeProgram(request, "body", options, num_states));
  loop->condition_offset = layout.Add(loop->condition->bytes());
  loop->body_offset = layout.Add(loop->body->bytes());
  loop->holds_offset = layout.Add(sizeof(bool));
  Kernel kernel{.name = absl::StrCat("loop of at most ", loop->most_steps, " steps, ",
                                     loop->condition->num_steps() + loop->body->num_steps(), " kernels each"),
                .run = [loop](const KernelArguments& arguments) { return loop->Run(arguments); },
                .scratch_bytes = layout.bytes(),
                .fallible = true};
  loop->condition->AddParts(request.node.id, 0, kernel);
  loop->body->AddParts(request.node.id, 0, kernel);
  return kernel;
}

}  // namespace

void RegisterControlFlowKernels(KernelRegistry& registry, const StepOptions& options) {
  struct Row {
    const char* op;
    absl::StatusOr<Kernel> (*make)(const KernelRequest&, const StepOptions&);
  };
  for (const Row& row : {Row{"Scan", MakeScan}, Row{"If", MakeIf}, Row{"While", MakeWhile}}) {
    registry.Add(row.op, [row, options](const KernelRequest& request) { return row.make(request, options); });
  }
}

}  // namespace gradweave
