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
#include "gradweave/runtime/kernel/run_options.h"
#include "gradweave/runtime/plan/compile_options.h"
#include "gradweave/runtime/session/device.h"
#include "gradweave/runtime/session/profile.h"

namespace gradweave {
namespace distributed {
class Group;
}

// Assignments that a run carries out together, such as a training step. Optimizers make them.
struct Update {
  std::vector<Value> assignments;  // Values of Assign nodes.
  // True if it is fine to run the update without assignments. For a training step it is an error.
  bool may_be_empty = false;
};

struct SessionOptions {
  Device device = Device::Cpu();
  int threads = 0;    // In [1, 1024]; fewer if the system refuses some. 0 means one for each processor.
  uint64_t seed = 0;  // Random ops use it, also those of initial values.

  // Results with and without tiles differ by rounding.
  BatchTiles batch_tiles = BatchTiles::kAuto;
  // A CUDA device generates a kernel for each row region if CudaOptions::generated_kernels allows
  // it. The bits are the same.
  RowFusion row_fusion = RowFusion::kAuto;
  // Allows the algorithms of Toom, Cook and Winograd for convolutions, which halve the
  // multiplications or better. In tiles, the error of an element is then at most 1e-6 of the
  // largest sum of absolute terms in its row. For a 3x3 convolution outside of tiles, it is at most
  // 5e-6 of the largest such sum in its square of 4x4 elements (docs/cpu.md).
  bool toom_cook = true;

  // kBFloat16 or kFloat16: products and convolutions of float32 values round their operands to this
  // type, sum in float32, and round their results to it. Variables, reductions, normalizations,
  // losses and updates stay float32; see graph/passes/mixed_precision.h. In float16, gradients below
  // 6e-8 vanish, so training needs LossScaling (frontend/loss_scaling.h).
  std::optional<DType> mixed_precision = std::nullopt;

  // Upper limit in bytes for intermediate values and scratch of one run; 0 means no limit. If a
  // plan exceeds the limit, the session uses the fastest plan that it finds within the limit:
  // without some tiles or fused rows if those are kAuto, without packed weights, or with recomputed
  // values. If it finds none, the run returns ResourceExhausted with the bytes of the smallest
  // plan. With batch_tiles kAuto, a limit may change results by rounding.
  int64_t memory_budget = 0;

  CudaOptions cuda = {};  // Options of the session's CUDA device, if it has one.

  // With a group, the session computes one shard of each batch. Runs are fed with the shard's
  // samples. They return sums, means and variables of the whole batch, and values of the shard's
  // samples; see graph/passes/data_parallel.h. The sessions of all shards have the same graph,
  // options and seed, and make the same runs in the same order. Fit and Evaluate read the samples
  // of each shard themselves.
  std::shared_ptr<distributed::Group> group = nullptr;
  int local_shard = 0;  // Index among the process's shards. Fit and Evaluate take shard 0 and run the others too.

  // The state to continue from; CreateSession of checkpoint.h sets it. `variables` has values by
  // name, which the session copies. The other variables compute their initial values.
  std::vector<std::pair<std::string, Tensor>> variables = {};
  uint64_t run_number = 1;  // Number of the first run, on which random numbers depend. Initial values use 0.
};

// One request of a run: a value, whose tensor the run returns, or an update, which it carries out.
class Fetch {
 public:
  Fetch(Value value) : values_{value}, is_update_(false) {}  // NOLINT
  Fetch(const Update& update)                                // NOLINT
      : values_(update.assignments), is_update_(true), may_be_empty_(update.may_be_empty) {}
  // For a PreparedRun: the sum of weight * value in float64 over its runs since Prepare or
  // ClearSums. The sum stays on the session's device, so a loop does not wait for every run. The
  // value has a numeric dtype and a known shape.
  static Fetch RunningSum(Value value, double weight = 1) {
    Fetch fetch(value);
    fetch.weight_ = weight;
    return fetch;
  }
  absl::Span<const Value> values() const { return values_; }
  bool is_update() const { return is_update_; }
  bool may_be_empty() const { return may_be_empty_; }
  std::optional<double> weight() const { return weight_; }  // Set for a running sum.

 private:
  std::vector<Value> values_;
  bool is_update_;
  bool may_be_empty_ = false;
  std::optional<double> weight_;
};

using Feed = std::pair<Value, Tensor>;

// An input, and the table that has its rows. If the input is float32 and the table uint8, the rows
// are divided by 255.
using TableFeed = std::pair<Value, Tensor>;

// A run that is prepared once and repeated. Its feeds and fetches are bound to tensors, and Run
// allocates nothing.
class PreparedRun;

// Runs values of a graph and keeps its variables.
//
//   absl::StatusOr<gw::Session> session = gw::Session::Create(graph);
//   absl::StatusOr<std::vector<gw::Tensor>> results = session->Run({{image, images}, {label, labels}}, {loss, step});
//
// Create copies the graph, so the session does not know nodes that are added later. The feeds
// determine the sizes of symbols. The session keeps the plans for the 32 latest combinations of
// sizes, feeds and fetches; they share memory for one run. It does one run at a time: calls from
// several threads wait for each other.
//
// Nodes run on SessionOptions::device unless they name another (Scope::SetDevice). The CPU and one
// other device may share a graph. If the other device has no kernel for a node, the CPU runs it,
// and a line on stderr reports it once. Variables are on the device that uses them. If a CUDA
// device fails in a run, either all variables keep their values or all have the new ones, and the
// error says which. If the device's state is unknown, the values that only the device had are lost:
// reading such a variable returns DataLoss until SetVariable gives it a value.
//
// A session that was moved from may be destroyed and assigned to. Calls that return a Status fail
// with FailedPrecondition, and the others end the program with a message.
//
// fork() copies a session without its threads and devices. In the child, calls of the copy and of
// its prepared runs that return a Status fail with FailedPrecondition. A child may destroy the
// copy, whose memory stays in use until the child ends. It may create sessions of its own.
class Session {
 public:
  // Copies the graph and computes the initial values of the variables. Returns the first error of
  // the graph's builder calls; Unavailable for a device that this machine or build does not have;
  // InvalidArgument for options outside their range, nodes on more than one device besides the CPU,
  // options.variables with another dtype or shape, and initial values that need an input; NotFound
  // for options.variables that are not in the graph.
  static absl::StatusOr<Session> Create(const Graph& graph, SessionOptions options = {});

  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  // Runs the nodes that the fetches need. Returns a tensor for each fetched value, in order, and
  // none for updates. Returns InvalidArgument for a missing or repeated feed, a feed that is not an
  // Input or has the wrong dtype or shape, values of another graph, different sizes for one symbol,
  // an update without assignments, and a variable that is assigned twice; OutOfRange for bad data,
  // such as an invalid label; Cancelled or DeadlineExceeded if the options stop the run. An error
  // changes no variable.
  //
  // The run checks the options before each step of the plan, and inside long steps. If they stop
  // the run, the session keeps its state and the run number. They are not checked while a run waits
  // for other runs of the session, or while its plan is made. On a CUDA device they are checked
  // when the host waits for the device; a run without such a wait can be stopped only before it
  // begins.
  absl::StatusOr<std::vector<Tensor>> Run(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches,
                                          const RunOptions& options = {});

  // Plans a run for feeds with the sizes of these tensors. PreparedRun::Run reads the storage of
  // these tensors each time and writes into the same result tensors. Errors are those of Run.
  absl::StatusOr<std::unique_ptr<PreparedRun>> Prepare(const std::vector<Feed>& feeds,
                                                       const std::vector<Fetch>& fetches);

  // Like Prepare, for inputs that read `rows` rows of tables, the same rows of each. The session
  // keeps the tables in the memory of its device. PreparedRun::SetRows sets the row numbers, which
  // are 0 at first. A table that several runs share is kept once, and until the last of them is
  // destroyed. Returns InvalidArgument if a table does not fit its input.
  absl::StatusOr<std::unique_ptr<PreparedRun>> PrepareRows(const std::vector<TableFeed>& tables, int64_t rows,
                                                           const std::vector<Fetch>& fetches);

  // Returns a copy of the variable's value, or NotFound.
  absl::StatusOr<Tensor> GetVariable(absl::string_view name) const;
  // Copies the value into the variable. Returns InvalidArgument for another dtype or shape, or
  // NotFound.
  absl::Status SetVariable(absl::string_view name, const Tensor& value);
  // Names of all variables, in the graph's order.
  std::vector<std::string> VariableNames() const;

  // The graph as it was at Create. Values of it may be fed and fetched too.
  const Graph& graph() const;
  // The device of nodes that name none.
  Device device() const;
  // The number of threads that runs use.
  int threads() const;
  // The options of Create, without `variables`.
  const SessionOptions& options() const;
  uint64_t seed() const;
  // The number of the next run: SessionOptions::run_number plus the runs since Create. The seed and
  // the run number determine the random numbers.
  uint64_t run_number() const;
  // Gives the next run this number, to continue or to repeat runs with their random numbers. Does
  // nothing in a copy that fork() has made.
  void SetRunNumber(uint64_t number);

  // Like Run, but returns the time of each step instead of the results. Updates take effect.
  absl::StatusOr<Profile> ProfileRun(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches,
                                     const RunOptions& options = {});

  // Returns the plan of a run as a table: node, kernel, memory and FLOPs of each step and of its
  // parts, its device if there are several, and the planned peak with its lower bound.
  absl::StatusOr<std::string> DescribePlan(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches);

 private:
  friend class PreparedRun;
  struct State;
  explicit Session(std::unique_ptr<State> state);
  absl::Status CheckUsable(absl::string_view call) const;
  const State& CheckedState(absl::string_view call) const;
  std::shared_ptr<State> state_;  // Null if the session was moved from.
};

// It may outlive its session.
class PreparedRun {
 public:
  ~PreparedRun();
  // Like Session::Run; the results are in results(). If the options stop the run, the results do
  // not change.
  absl::Status Run(const RunOptions& options = {});

  // Like Run, but may return before the run ends. If the whole plan is on a CUDA device and has run
  // before, Start copies the feeds and hands the run to the device. More runs may be started
  // meanwhile; they change nothing if an earlier one fails. The next call of this object that runs
  // or waits returns the error. Other calls of the session wait first. If the device fails and its
  // state is unknown, variables with a copy on the host return to their values from before the
  // first started run. Results are valid after Finish. The options are checked before the run
  // begins, and as in Run if Start does not return before the run ends.
  absl::Status Start(const RunOptions& options = {});
  // Waits for the started runs and returns their error; without it the error is not reported.
  // Afterwards results() has the results of the last run.
  absl::Status Finish();
  // Sets running sums to 0, after waiting as Finish does.
  absl::Status ClearSums();
  // Sets running sums to these values, float64 in the order of the fetches, after waiting as Finish
  // does. Returns InvalidArgument for another number of values or another type.
  absl::Status SetSums(absl::Span<const Tensor> sums);

  // One tensor for each fetched value, in order. The next run overwrites them.
  const std::vector<Tensor>& results() const;
  // Uses the storage of this tensor for feed i from now on. Returns InvalidArgument if its dtype or
  // sizes differ from those of Prepare.
  absl::Status SetFeed(int i, const Tensor& tensor);
  // Sets the row numbers that the next runs read. Returns InvalidArgument if the run was not made
  // by PrepareRows, for a different count, and for a number outside of [0, 2^31). A number in this
  // range that is outside of the tables fails the run.
  absl::Status SetRows(absl::Span<const int64_t> rows);

 private:
  friend class Session;
  struct State;
  explicit PreparedRun(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_SESSION_SESSION_H_
