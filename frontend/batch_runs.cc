#include "gradweave/frontend/batch_runs.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/frontend/named_tensors.h"
#include "gradweave/frontend/seconds.h"
#include "gradweave/frontend/shard_sessions.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

using Clock = std::chrono::steady_clock;

// The number of plans to keep; sequences of many lengths need many.
constexpr size_t kMostRuns = 64;

// Adds x to `sum` element by element.
void Add(const Tensor& x, Tensor& sum) {
  const absl::Span<double> to = sum.mutable_values<double>();
  for (size_t i = 0; i < to.size(); ++i) to[i] += x.values<double>()[i];
}

std::string InputsOf(const Graph& graph) {
  std::vector<std::string> inputs;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kInput)
      inputs.push_back(absl::StrCat("'", node.name, "', ", node.outputs[0].ToString()));
  }
  return inputs.empty() ? "none" : absl::StrJoin(inputs, "; ");
}

// Checks that the array fits the input, and returns the dtype of batches.
absl::StatusOr<DType> CheckArray(const char* caller, const data::Dataset::Array& array, int64_t samples,
                                 const Node& input) {
  const TensorType& type = input.outputs[0];
  auto error = [&](absl::string_view problem) {
    return absl::InvalidArgumentError(absl::StrCat(caller, ": input '", input.name, "' is ", type.ToString(),
                                                   " and its array ", array.TypeToString(samples), ": ", problem));
  };
  const bool changes = !array.standardization.mean.empty() || !array.augmentations.empty();
  const bool as_it_is = type.dtype == array.dtype && !(changes && array.batch_dtype() != array.dtype);
  if (!as_it_is && type.dtype != array.batch_dtype())
    return error("the dtypes have to be the same, or float32 and uint8");
  if (type.shape.rank() != static_cast<int>(array.sizes.size()) + 1)
    return error("they have to have the same number of axes");
  for (int axis = 1; axis < type.shape.rank(); ++axis) {
    if (!type.shape[axis].is_known()) continue;
    if (array.is_sequence && axis == 1)
      return error("axis 1 of the input has to be a symbol, because batches have sequences of different lengths");
    if (type.shape[axis].size() != array.sizes[axis - 1]) return error(absl::StrCat("axis ", axis, " differs"));
  }
  return as_it_is ? array.dtype : array.batch_dtype();
}

// Returns InvalidArgument if one of the values needs an input that the data set has no array for.
// The session reports values of other graphs.
absl::Status CheckAllInputsFed(const BatchRequest& request) {
  const Graph& graph = request.session.graph();
  std::vector<bool> needed(graph.num_nodes(), false);
  auto need = [&](const Value& value) {
    if (!value.valid() || value.port().node >= graph.num_nodes()) return;
    if (graph.node(value.port().node).serial == value.serial()) needed[value.port().node] = true;
  };
  for (const Metric::Sum& sum : request.sums) need(sum.value);
  for (const Value& value : request.latest) need(value);
  for (const Update& update : request.updates) {
    for (const Value& assignment : update.assignments) need(assignment);
  }
  for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
    const Node& node = graph.node(id);
    // A run does not read a variable's initial value.
    if (!needed[id] || node.op->kind == OpKind::kVariable) continue;
    if (node.op->kind == OpKind::kInput && request.dataset.IndexOf(node.name) < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          request.caller, ": the run needs input '", node.name, "', ", node.outputs[0].ToString(),
          ", and the data set has no array of that name; its arrays are ",
          absl::StrJoin(request.dataset.arrays(), ", ", [&](std::string* out, const data::Dataset::Array& array) {
            absl::StrAppend(out, "'", array.name, "', ", array.TypeToString(request.dataset.size()));
          })));
    }
    for (Port input : node.inputs) needed[input.node] = true;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<BatchRuns::Feeding>> BatchRuns::Match(const BatchRequest& request) {
  const data::Dataset& dataset = request.dataset;
  GW_RETURN_IF_ERROR(dataset.status());
  if (dataset.size() == 0) {
    return absl::InvalidArgumentError(absl::StrCat(request.caller, ": the data set has no samples"));
  }
  const Graph& graph = request.session.graph();
  std::vector<Feeding> feedings;
  for (const data::Dataset::Array& array : dataset.arrays()) {
    const NodeId id = graph.FindNamed(array.name);
    if (id < 0 || graph.node(id).op->kind != OpKind::kInput) {
      return absl::InvalidArgumentError(absl::StrCat(request.caller, ": the graph has no input '", array.name,
                                                     "' for the array of that name; its inputs are ", InputsOf(graph),
                                                     "; Dataset::Select leaves arrays out"));
    }
    GW_ASSIGN_OR_RETURN(const DType dtype, CheckArray(request.caller, array, dataset.size(), graph.node(id)));
    // A handle to read with; nothing changes the graph.
    feedings.push_back({Value(const_cast<Graph*>(&graph), {id, 0}), dtype});
  }
  GW_RETURN_IF_ERROR(CheckAllInputsFed(request));
  return feedings;
}

absl::Status BatchRuns::StartEpoch(int64_t epoch, int64_t first_batch, bool keep_sums) {
  StartOrder(epoch, first_batch);
  if (keep_sums) return absl::OkStatus();
  samples_ = 0;
  dropped_sums_.clear();
  for (auto& [key, run] : runs_) {
    if (run.run != nullptr) GW_RETURN_IF_ERROR(run.run->ClearSums());
    run.has_sums = false;
    run.restored.clear();
  }
  return absl::OkStatus();
}

std::vector<Fetch> BatchRuns::Fetches(int64_t batch_size, int update) const {
  std::vector<Fetch> fetches;
  for (const Metric::Sum& sum : request_.sums) {
    fetches.push_back(Fetch::RunningSum(sum.value, sum.is_mean ? static_cast<double>(batch_size) : 1));
  }
  for (const Value& value : request_.latest) fetches.push_back(value);
  if (!request_.updates.empty()) fetches.push_back(request_.updates[update]);
  return fetches;
}

absl::StatusOr<BatchRuns::Run*> BatchRuns::Find(int update, int64_t batch_size, int64_t whole_size,
                                                absl::Span<const int64_t> lengths) {
  key_.assign({batch_size, update});
  key_.insert(key_.end(), lengths.begin(), lengths.end());
  if (request_.options.shards > 1) key_.push_back(whole_size);
  const auto found = runs_.find(key_);
  if (found != runs_.end()) return &found->second;
  if (runs_.size() >= kMostRuns) {
    const auto oldest = std::min_element(runs_.begin(), runs_.end(), [](const auto& a, const auto& b) {
      return a.second.last_used < b.second.last_used;
    });
    if (oldest->second.has_sums) GW_RETURN_IF_ERROR(AddSums(oldest->second, dropped_sums_));
    if (latest_run_ == &oldest->second) latest_run_ = nullptr;
    runs_.erase(oldest);
  }
  return &runs_[key_];
}

absl::Status BatchRuns::Start(Run& run, int64_t batch_size) {
  if (!run.restored.empty()) {
    GW_RETURN_IF_ERROR(run.run->SetSums(run.restored));
    run.restored.clear();
  }
  run.has_sums = true;
  run.last_used = ++uses_;
  latest_run_ = &run;
  samples_ += batch_size;
  const Clock::time_point start = Clock::now();
  const absl::Status status = run.run->Start();
  seconds_ += SecondsSince(start);
  return status;
}

absl::StatusOr<std::vector<Tensor>> BatchRuns::SumsOf(const Run& run) const {
  if (!run.restored.empty() || run.run == nullptr) return run.restored;
  GW_RETURN_IF_ERROR(run.run->Finish());
  const std::vector<Tensor>& results = run.run->results();
  return std::vector<Tensor>(results.begin(), results.begin() + static_cast<int64_t>(request_.sums.size()));
}

absl::Status BatchRuns::AddSums(const Run& run, std::vector<Tensor>& to) const {
  GW_ASSIGN_OR_RETURN(const std::vector<Tensor> sums, SumsOf(run));
  for (size_t i = 0; i < sums.size(); ++i) {
    if (to.size() <= i) {
      to.push_back(sums[i].Clone());
    } else {
      Add(sums[i], to[i]);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Tensor>> BatchRuns::Sums() {
  const Clock::time_point start = Clock::now();
  std::vector<Tensor> sums;
  for (const Tensor& sum : dropped_sums_) sums.push_back(sum.Clone());
  // Adds the sums of the full batch size first, because its batches ran first.
  for (auto run = runs_.rbegin(); run != runs_.rend(); ++run) {
    if (run->second.has_sums) GW_RETURN_IF_ERROR(AddSums(run->second, sums));
  }
  if (latest_run_ != nullptr) {
    const std::vector<Tensor>& results = latest_run_->run->results();
    latest_.assign(results.begin() + static_cast<int64_t>(request_.sums.size()), results.end());
  }
  seconds_ += SecondsSince(start);
  return sums;
}

absl::StatusOr<NamedTensors> BatchRuns::SaveState() {
  NamedTensors state = {{"samples", Tensor::Scalar(samples_)},
                        {"uses", Tensor::Scalar(uses_)},
                        {"seconds", Tensor::Scalar(seconds_)},
                        {"runs", Tensor::Scalar(static_cast<int64_t>(runs_.size()))}};
  auto add = [&](absl::string_view prefix, const std::vector<Tensor>& sums) {
    for (size_t i = 0; i < sums.size(); ++i) state.emplace_back(absl::StrCat(prefix, "sum ", i), sums[i].Clone());
  };
  add("dropped/", dropped_sums_);
  int64_t number = 0;
  for (const auto& [key, run] : runs_) {
    const std::string prefix = absl::StrCat("run ", number++, "/");
    state.emplace_back(prefix + "key", Tensor::Of<int64_t>({static_cast<int64_t>(key.size())}, key));
    state.emplace_back(prefix + "last_used", Tensor::Scalar(run.last_used));
    if (!run.has_sums) continue;
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor> sums, SumsOf(run));
    add(prefix, sums);
  }
  return state;
}

// Returns the sums under the prefix; none if there are none.
absl::StatusOr<std::vector<Tensor>> BatchRuns::ReadSums(const NamedTensors& state, absl::string_view prefix) const {
  std::vector<Tensor> sums;
  for (size_t i = 0; i < request_.sums.size(); ++i) {
    const Tensor* sum = gradweave::Find(state, absl::StrCat(prefix, "sum ", i));
    if (sum == nullptr && i == 0) return sums;
    const Value& value = request_.sums[i].value;
    if (sum == nullptr || sum->dtype() != kFloat64 || !value.valid() || !(sum->shape() == value.shape())) {
      return absl::InvalidArgumentError("the sums of its metrics do not fit the metrics of this training");
    }
    sums.push_back(sum->Clone());
  }
  return sums;
}

absl::Status BatchRuns::RestoreState(const NamedTensors& state) {
  GW_ASSIGN_OR_RETURN(samples_, Integer(state, "samples"));
  GW_ASSIGN_OR_RETURN(uses_, Integer(state, "uses"));
  GW_ASSIGN_OR_RETURN(seconds_, Number(state, "seconds"));
  GW_ASSIGN_OR_RETURN(dropped_sums_, ReadSums(state, "dropped/"));
  GW_ASSIGN_OR_RETURN(const int64_t runs, Integer(state, "runs", 0, kMostRuns));
  for (int64_t i = 0; i < runs; ++i) {
    const std::string prefix = absl::StrCat("run ", i, "/");
    const Tensor* key = gradweave::Find(state, prefix + "key");
    // Batch size, update and lengths of sequences.
    if (key == nullptr || key->dtype() != kInt64 || key->rank() != 1 || key->size(0) < 2) {
      return absl::InvalidArgumentError(absl::StrCat("'", prefix, "key' is missing or wrong"));
    }
    Run& run = runs_[std::vector<int64_t>(key->data<int64_t>(), key->data<int64_t>() + key->size(0))];
    GW_ASSIGN_OR_RETURN(run.last_used, Integer(state, prefix + "last_used"));
    GW_ASSIGN_OR_RETURN(run.restored, ReadSums(state, prefix));
    run.has_sums = !run.restored.empty();
  }
  return absl::OkStatus();
}

// Feeds the session with the batches of a loader.
class FedBatchRuns : public BatchRuns {
 public:
  FedBatchRuns(const BatchRequest& request, std::vector<Feeding> feedings)
      : BatchRuns(request, std::move(feedings)), loader_(request.dataset, WithDTypes(request.options, feedings_)) {}

  absl::Status status() const { return loader_.status(); }

  std::vector<Feed> LatestFeeds() const override {
    std::vector<Feed> feeds;
    for (size_t i = 0; i < feedings_.size() && latest_batch_ != nullptr; ++i)
      feeds.emplace_back(feedings_[i].input, latest_batch_->arrays[i]);
    return feeds;
  }

  absl::StatusOr<int64_t> RunNext(int update) override {
    const data::Batch* batch = latest_batch_ = loader_.Next();
    if (batch == nullptr) {
      GW_RETURN_IF_ERROR(loader_.status());
      return 0;
    }
    lengths_.clear();
    for (size_t i = 0; i < feedings_.size(); ++i) {
      if (request_.dataset.arrays()[i].is_sequence) lengths_.push_back(batch->arrays[i].size(1));
    }
    GW_ASSIGN_OR_RETURN(Run * run, Find(update, batch->size, batch->whole_size, lengths_));
    if (run->run == nullptr) {
      GW_ASSIGN_OR_RETURN(run->run, request_.session.Prepare(LatestFeeds(), Fetches(batch->whole_size, update)));
    } else {
      for (size_t i = 0; i < feedings_.size(); ++i)
        GW_RETURN_IF_ERROR(run->run->SetFeed(static_cast<int>(i), batch->arrays[i]));
    }
    GW_RETURN_IF_ERROR(Start(*run, batch->whole_size));
    return batch->whole_size;
  }

 private:
  static data::BatchOptions WithDTypes(data::BatchOptions options, const std::vector<Feeding>& feedings) {
    for (const Feeding& feeding : feedings) options.dtypes.push_back(feeding.dtype);
    return options;
  }
  void StartOrder(int64_t epoch, int64_t first_batch) override { loader_.StartEpoch(epoch, first_batch); }

  data::BatchLoader loader_;
  const data::Batch* latest_batch_ = nullptr;
  std::vector<int64_t> lengths_;
};

// Keeps the data set on the device and gathers the batches there.
class GatheredBatchRuns : public BatchRuns {
 public:
  GatheredBatchRuns(const BatchRequest& request, std::vector<Feeding> feedings, std::vector<TableFeed> tables)
      : BatchRuns(request, std::move(feedings)),
        tables_(std::move(tables)),
        order_(request.dataset.size()),
        batch_size_(std::min(request.options.batch_size, request.dataset.size())) {}

  // Returns ResourceExhausted if the data set does not fit in the device's memory.
  absl::Status Prepare() { return FindForSize(batch_size_, 0).status(); }

  absl::StatusOr<int64_t> RunNext(int update) override {
    const absl::Span<const int64_t> rows = absl::MakeConstSpan(order_).subspan(next_, batch_size_);
    if (rows.empty()) return 0;
    const int64_t size = static_cast<int64_t>(rows.size());
    next_ += size;
    GW_ASSIGN_OR_RETURN(Run * run, FindForSize(size, update));
    GW_RETURN_IF_ERROR(run->run->SetRows(rows));
    GW_RETURN_IF_ERROR(Start(*run, size));
    return size;
  }

 private:
  void StartOrder(int64_t epoch, int64_t first_batch) override {
    data::FillEpochOrder(absl::MakeSpan(order_), request_.options.shuffle, request_.options.seed, epoch);
    next_ = std::min(first_batch, data::NumBatches(request_.dataset.size(), batch_size_)) * batch_size_;
    next_ = std::min(next_, request_.dataset.size());
  }

  absl::StatusOr<Run*> FindForSize(int64_t size, int update) {
    GW_ASSIGN_OR_RETURN(Run * run, Find(update, size, size, {}));
    if (run->run == nullptr) {
      GW_ASSIGN_OR_RETURN(run->run, request_.session.PrepareRows(tables_, size, Fetches(size, update)));
    }
    return run;
  }

  const std::vector<TableFeed> tables_;
  std::vector<int64_t> order_;
  const int64_t batch_size_;
  int64_t next_ = 0;
};

absl::StatusOr<std::unique_ptr<BatchRuns>> BatchRuns::Make(const BatchRequest& given) {
  BatchRequest request = given;
  if (const distributed::Communicator* const communicator = CommunicatorOf(request.session); communicator != nullptr) {
    request.options.shard = communicator->shard();
    request.options.shards = communicator->shards();
    request.always_feed = true;
  }
  GW_ASSIGN_OR_RETURN(std::vector<Feeding> feedings, Match(request));
  // A CUDA device keeps the data set if it fits, because feeding a batch takes longer than a step.
  const std::vector<data::Dataset::Array>& arrays = request.dataset.arrays();
  const bool same_for_all_epochs = std::all_of(arrays.begin(), arrays.end(), [](const data::Dataset::Array& array) {
    return array.augmentations.empty() && !array.is_sequence && !array.is_generated;
  });
  if (!request.session.device().is_cpu() && same_for_all_epochs && !request.always_feed) {
    std::vector<TableFeed> tables;
    for (size_t i = 0; i < arrays.size(); ++i) {
      GW_ASSIGN_OR_RETURN(Tensor table, request.dataset.TableOf(static_cast<int>(i)));
      tables.emplace_back(feedings[i].input, std::move(table));
    }
    auto runs = std::make_unique<GatheredBatchRuns>(request, feedings, std::move(tables));
    const absl::Status status = runs->Prepare();
    if (status.ok()) return runs;
    if (status.code() != absl::StatusCode::kResourceExhausted) return status;
  }
  auto runs = std::make_unique<FedBatchRuns>(request, std::move(feedings));
  GW_RETURN_IF_ERROR(runs->status());
  return runs;
}

}  // namespace gradweave
