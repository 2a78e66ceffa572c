// Session: runs a graph.
#ifndef GRADWEAVE_RUNTIME_SESSION_SESSION_H_
#define GRADWEAVE_RUNTIME_SESSION_SESSION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/cuda/options.h"
#include "gradweave/runtime/plan/compile_options.h"
#include "gradweave/runtime/session/device.h"
#include "gradweave/runtime/session/profile.h"

namespace gradweave {

// Assignments that a run carries out together, such as a training step. Made by optimizers.
struct Update {
  std::vector<Value> assignments;  // Values of Assign nodes.
  // Whether a run may be asked for it if it has no assignments. A training step without any is a mistake.
  bool may_be_empty = false;
};

struct SessionOptions {
  Device device = Device::Cpu();
  int threads = 0;    // 1 to 1024, or as many of them as the system gives; 0: as many as the machine has processors.
  uint64_t seed = 0;  // Of random ops, initial values among them.

  // Results with and without tiles differ by rounding.
  BatchTiles batch_tiles = BatchTiles::kAuto;
  // On a CUDA device a kernel of rows is generated, as CudaOptions::generated_kernels allows, and gives the same bits.
  // Plans that compute values a second time for the sake of a memory budget fuse no rows.
  RowFusion row_fusion = RowFusion::kAuto;
  // Whether convolutions may take Toom and Cook's algorithm, with half the multiplications or less. An element's error
  // is then within 1e-6 of the largest sum of absolute terms in its row, and mostly that of a direct sum.
  bool toom_cook = true;

  // Bytes that a run's plan may take for intermediate values and scratch; 0: as many as are fastest. Where a plan takes
  // more, values are computed a second time instead of being kept. Where that does not help enough either, a run is a
  // ResourceExhausted error that says how many bytes it takes.
  int64_t memory_budget = 0;

  CudaOptions cuda = {};  // For a CUDA device, where the session has one.

  // To go on from a saved state; CreateSession of checkpoint.h sets these.
  // Values to copy in by name; the other variables compute their initial values.
  std::vector<std::pair<std::string, Tensor>> variables = {};
  uint64_t run_number = 1;  // Of the first run; random ops' numbers depend on it. Initial values have 0.
};

// What a run computes: a value, whose tensor it returns, or an update, which it carries out.
class Fetch {
 public:
  Fetch(Value value) : values_{value}, is_update_(false) {}  // NOLINT
  Fetch(const Update& update)                                // NOLINT
      : values_(update.assignments), is_update_(true), may_be_empty_(update.may_be_empty) {}
  // Of a PreparedRun: the sum of weight times the value over its runs since it was made or ClearSums was called, in
  // float64. The sum is kept where the session computes, so a loop need not wait for every run to know it. The value's
  // shape is known and it is a number.
  static Fetch RunningSum(Value value, double weight = 1) {
    Fetch fetch(value);
    fetch.weight_ = weight;
    return fetch;
  }
  absl::Span<const Value> values() const { return values_; }
  bool is_update() const { return is_update_; }
  bool may_be_empty() const { return may_be_empty_; }
  std::optional<double> weight() const { return weight_; }  // Of a running sum.

 private:
  std::vector<Value> values_;
  bool is_update_;
  bool may_be_empty_ = false;
  std::optional<double> weight_;
};

using Feed = std::pair<Value, Tensor>;

// An input and the table whose rows it is fed. Rows of bytes become numbers from 0 to 1 for a float32 input.
using TableFeed = std::pair<Value, Tensor>;

// A run prepared once and repeated: feeds and fetches are bound to tensors, and Run allocates nothing. Belongs to its
// session.
class PreparedRun;

// Runs values of a graph and keeps its variables.
//
//   absl::StatusOr<gw::Session> session = gw::Session::Create(graph);
//   absl::StatusOr<std::vector<gw::Tensor>> results = session->Run({{image, images}, {label, labels}}, {loss, step});
//
// The graph is copied at Create: nodes added later are not known to the session. The sizes of symbols come from the
// feeds; the plan made for them is kept, for the 32 latest combinations of sizes, feeds and fetches. One run at a time:
// calls from several threads wait for each other.
//
// Nodes run on SessionOptions::device unless they name another (Scope::SetDevice): the CPU and one other device may
// share a graph. Nodes that the other device has no kernel for run on the CPU, which is told once on stderr. Variables
// are on the device that uses them. Where a CUDA device itself fails in a run, all variables are as before it, or all
// have their new values, and the error says so; where it fails so that nobody can know, those whose values were on the
// device alone are lost: reading them is a DataLoss error until SetVariable gives them a value.
class Session {
 public:
  // Computes the initial values of the variables. Errors: the first error of the graph's builder calls; Unavailable for
  // a device that this machine or build lacks; InvalidArgument for options outside their range, nodes on more than one
  // device beside the CPU, options.variables of another dtype or shape, and initial values that need an input; NotFound
  // for options.variables that the graph lacks.
  static absl::StatusOr<Session> Create(const Graph& graph, SessionOptions options = {});

  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  // Runs what the fetches need. Returns a tensor for each fetched value, in order, none for updates. InvalidArgument
  // for a missing feed, one that is fed twice or is no Input, or has the wrong dtype or shape, sizes of a symbol that
  // disagree, a variable assigned twice; OutOfRange for data such as a label no class has. After an error the variables
  // are as before.
  absl::StatusOr<std::vector<Tensor>> Run(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches);

  // Plans the run for feeds of the sizes that these tensors have. Run on the result reads the same tensors' storage
  // each time and writes into the same result tensors.
  absl::StatusOr<std::unique_ptr<PreparedRun>> Prepare(const std::vector<Feed>& feeds,
                                                       const std::vector<Fetch>& fetches);

  // As Prepare, for inputs that are fed so many rows of tables, the same rows of all. The session keeps the tables, on
  // a CUDA device in its memory, and only the rows' numbers come from outside: PreparedRun::SetRows, 0 before it.
  // InvalidArgument where a table does not fit its input.
  absl::StatusOr<std::unique_ptr<PreparedRun>> PrepareRows(const std::vector<TableFeed>& tables, int64_t rows,
                                                           const std::vector<Fetch>& fetches);

  // A copy of the variable's current value. NotFound where there is none of the name.
  absl::StatusOr<Tensor> GetVariable(absl::string_view name) const;
  // Copies the value in; InvalidArgument for another dtype or shape.
  absl::Status SetVariable(absl::string_view name, const Tensor& value);
  // Names of all variables, in the graph's order.
  std::vector<std::string> VariableNames() const;

  // The graph as it was at Create. Values of it may be fed and fetched too.
  const Graph& graph() const;
  // The device that nodes which name none run on.
  Device device() const;
  // The threads that runs use.
  int threads() const;
  uint64_t seed() const;
  // Of the next run: SessionOptions::run_number plus the runs since. With the seed it determines what random ops give.
  uint64_t run_number() const;

  // Runs as Run does, and tells what took how long. The results are not given back; updates take effect.
  absl::StatusOr<Profile> ProfileRun(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches);

  // The plan that a run would follow, as a table: each step's node, kernel, memory and FLOPs, with a CUDA device its
  // device too, the same for the parts of
  // steps that run many nodes in tiles, and the planned peak beside its lower bound.
  absl::StatusOr<std::string> DescribePlan(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches);

 private:
  friend class PreparedRun;
  struct State;
  explicit Session(std::unique_ptr<State> state);
  std::shared_ptr<State> state_;
};

// May outlive its session.
class PreparedRun {
 public:
  ~PreparedRun();
  // As Session::Run, into results().
  absl::Status Run();

  // As Run, but need not wait for the end: where the whole plan is on a CUDA device and has run before, it is handed to
  // the device, with what feeds hold now. Further runs may be started while it is under way, and change nothing if it
  // fails. Its error is that of this object's next call that runs or waits; the session's other calls wait and go on
  // with what was before it. Where the device itself fails so that nobody can know what it has done, variables whose
  // values the host has are as before the first of the runs under way. Results are there after Finish.
  absl::Status Start();
  // Waits for the runs that were started; results() are those of the last. Without it, nobody is told of an error.
  absl::Status Finish();
  // Sets running sums to 0, after waiting as Finish does.
  absl::Status ClearSums();

  // One tensor for each fetched value; the next Run overwrites them.
  const std::vector<Tensor>& results() const;
  // Reads this tensor's storage for feed number i from now on; same dtype and sizes as before, or InvalidArgument.
  absl::Status SetFeed(int i, const Tensor& tensor);
  // Of a run made by PrepareRows: the numbers of the rows that runs read from now on, as many as were prepared. One
  // that the tables lack fails the run.
  absl::Status SetRows(absl::Span<const int64_t> rows);

 private:
  friend class Session;
  struct State;
  explicit PreparedRun(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_SESSION_SESSION_H_
