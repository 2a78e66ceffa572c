#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/frontend/c/gradweave.h"
#include "gradweave/frontend/c/handles.h"
#include "gradweave/frontend/c/status.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "gradweave/runtime/session/device.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {
namespace {

// The engine's enumerations of choices have the order of gw_choice.
template <typename Choice>
constexpr bool kInOrder = static_cast<int>(Choice::kAuto) == GW_AUTO&& static_cast<int>(Choice::kNever) ==
                          GW_NEVER&& static_cast<int>(Choice::kAlways) == GW_ALWAYS;
static_assert(kInOrder<BatchTiles> && kInOrder<RowFusion>);

absl::StatusOr<SessionOptions> Convert(const gw_session_options& options) {
  for (const auto& [name, choice] : {std::pair("batch_tiles", options.batch_tiles),
                                     {"row_fusion", options.row_fusion},
                                     {"toom_cook", options.toom_cook}}) {
    if (choice < GW_AUTO || choice > GW_ALWAYS)
      return absl::InvalidArgumentError(absl::StrCat(name, " is ", choice, ", which is not a gw_choice"));
  }
  SessionOptions result{.threads = options.threads,
                        .batch_tiles = static_cast<BatchTiles>(options.batch_tiles),
                        .row_fusion = static_cast<RowFusion>(options.row_fusion),
                        .toom_cook = options.toom_cook != GW_NEVER,
                        .memory_budget = options.memory_budget};
  if (options.device != nullptr && absl::string_view(options.device) == "best") {
    result.device = Device::Best();
  } else if (options.device != nullptr) {
    GW_ASSIGN_OR_RETURN(result.device, Device::Parse(options.device));
  }
  return result;
}

absl::StatusOr<std::vector<Feed>> Convert(const Graph& graph, const gw_feed* feeds, size_t count) {
  std::vector<Feed> result;
  if (count > 0) GW_RETURN_IF_ERROR(CheckGiven({{"feeds", feeds}}));
  for (size_t i = 0; i < count; ++i) {
    if (feeds[i].name == nullptr || feeds[i].tensor == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("the ", feeds[i].name == nullptr ? "name" : "tensor", " of feed ", i, " is NULL"));
    }
    GW_ASSIGN_OR_RETURN(const Value input, FindNode(graph, GW_INPUT, feeds[i].name));
    result.emplace_back(input, feeds[i].tensor->tensor);
  }
  return result;
}

absl::StatusOr<std::vector<Fetch>> Convert(const Graph& graph, const char* const* fetches, size_t count) {
  std::vector<Fetch> result;
  if (count > 0) GW_RETURN_IF_ERROR(CheckGiven({{"fetches", fetches}}));
  for (size_t i = 0; i < count; ++i) {
    if (fetches[i] == nullptr) return absl::InvalidArgumentError(absl::StrCat("the name of fetch ", i, " is NULL"));
    GW_ASSIGN_OR_RETURN(const NamedOutput output, FindOutput(graph, fetches[i]));
    result.push_back(output.is_update ? Fetch(Update{output.values}) : Fetch(output.values[0]));
  }
  return result;
}

// Sets the handles of a prepared run to its results, which come without the updates.
void ShareResults(gw_run& run) {
  const std::vector<Tensor>& tensors = run.run->results();
  size_t next = 0;
  for (std::optional<gw_tensor>& result : run.results) {
    if (result.has_value()) result->tensor = tensors[next++];
  }
}

std::unique_ptr<gw_run> Handle(std::unique_ptr<PreparedRun> prepared, const std::vector<Fetch>& fetches) {
  auto run = std::make_unique<gw_run>();
  run->run = std::move(prepared);
  run->results.resize(fetches.size());
  for (size_t i = 0; i < fetches.size(); ++i) {
    if (!fetches[i].is_update()) run->results[i].emplace();
  }
  ShareResults(*run);
  return run;
}

}  // namespace
}  // namespace gradweave

using namespace gradweave;  // NOLINT: the functions below are those of the C interface alone.

gw_status gw_session_create(const gw_model* model, const gw_session_options* options, gw_session** session) {
  return Guard("gw_session_create", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"session", session}}));
    *session = nullptr;
    GW_RETURN_IF_ERROR(CheckGiven({{"model", model}}));
    GW_ASSIGN_OR_RETURN(SessionOptions converted, Convert(options != nullptr ? *options : gw_session_options{}));
    converted.seed = options != nullptr && options->seed != nullptr ? *options->seed : model->model.seed;
    converted.run_number = model->model.run_number;
    converted.variables = model->model.variables;
    GW_ASSIGN_OR_RETURN(Session created, Session::Create(model->model.graph, std::move(converted)));
    *session = new gw_session{std::move(created)};
    return absl::OkStatus();
  });
}

void gw_session_destroy(gw_session* session) { delete session; }

gw_status gw_session_run(gw_session* session, const gw_feed* feeds, size_t num_feeds, const char* const* fetches,
                         size_t num_fetches, gw_tensor** results) {
  return Guard("gw_session_run", [&]() -> absl::Status {
    if (num_fetches > 0) GW_RETURN_IF_ERROR(CheckGiven({{"results", results}}));
    for (size_t i = 0; i < num_fetches; ++i) results[i] = nullptr;
    GW_RETURN_IF_ERROR(CheckGiven({{"session", session}}));
    const Graph& graph = session->session.graph();
    GW_ASSIGN_OR_RETURN(const std::vector<Feed> feed, Convert(graph, feeds, num_feeds));
    GW_ASSIGN_OR_RETURN(const std::vector<Fetch> fetch, Convert(graph, fetches, num_fetches));
    // Allocates the handles first, because after the run the variables have changed.
    std::vector<std::unique_ptr<gw_tensor>> handles(num_fetches);
    for (size_t i = 0; i < num_fetches; ++i) {
      if (!fetch[i].is_update()) handles[i] = std::make_unique<gw_tensor>();
    }
    GW_ASSIGN_OR_RETURN(std::vector<Tensor> tensors, session->session.Run(feed, fetch));
    size_t next = 0;
    for (size_t i = 0; i < num_fetches; ++i) {
      if (handles[i] == nullptr) continue;
      handles[i]->tensor = std::move(tensors[next++]);
      results[i] = handles[i].release();
    }
    return absl::OkStatus();
  });
}

gw_status gw_session_get_variable(const gw_session* session, const char* name, gw_tensor** value) {
  return Guard("gw_session_get_variable", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"value", value}}));
    *value = nullptr;
    GW_RETURN_IF_ERROR(CheckGiven({{"session", session}, {"name", name}}));
    GW_RETURN_IF_ERROR(FindNode(session->session.graph(), GW_VARIABLE, name).status());
    GW_ASSIGN_OR_RETURN(Tensor tensor, session->session.GetVariable(name));
    *value = new gw_tensor{std::move(tensor)};
    return absl::OkStatus();
  });
}

gw_status gw_session_set_variable(gw_session* session, const char* name, const gw_tensor* value) {
  return Guard("gw_session_set_variable", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"session", session}, {"name", name}, {"value", value}}));
    GW_RETURN_IF_ERROR(FindNode(session->session.graph(), GW_VARIABLE, name).status());
    return session->session.SetVariable(name, value->tensor);
  });
}

gw_status gw_session_save(const gw_session* session, const char* path) {
  return Guard("gw_session_save", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"session", session}, {"path", path}}));
    return SaveModel(session->session, path);
  });
}

gw_status gw_session_prepare(gw_session* session, const gw_feed* feeds, size_t num_feeds, const char* const* fetches,
                             size_t num_fetches, gw_run** run) {
  return Guard("gw_session_prepare", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"run", run}}));
    *run = nullptr;
    GW_RETURN_IF_ERROR(CheckGiven({{"session", session}}));
    const Graph& graph = session->session.graph();
    GW_ASSIGN_OR_RETURN(const std::vector<Feed> feed, Convert(graph, feeds, num_feeds));
    GW_ASSIGN_OR_RETURN(const std::vector<Fetch> fetch, Convert(graph, fetches, num_fetches));
    GW_ASSIGN_OR_RETURN(std::unique_ptr<PreparedRun> prepared, session->session.Prepare(feed, fetch));
    *run = Handle(std::move(prepared), fetch).release();
    return absl::OkStatus();
  });
}

gw_status gw_session_prepare_rows(gw_session* session, const gw_feed* tables, size_t num_tables, int64_t num_rows,
                                  const char* const* fetches, size_t num_fetches, gw_run** run) {
  return Guard("gw_session_prepare_rows", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"run", run}}));
    *run = nullptr;
    GW_RETURN_IF_ERROR(CheckGiven({{"session", session}}));
    const Graph& graph = session->session.graph();
    GW_ASSIGN_OR_RETURN(const std::vector<TableFeed> table, Convert(graph, tables, num_tables));
    GW_ASSIGN_OR_RETURN(const std::vector<Fetch> fetch, Convert(graph, fetches, num_fetches));
    GW_ASSIGN_OR_RETURN(std::unique_ptr<PreparedRun> prepared, session->session.PrepareRows(table, num_rows, fetch));
    *run = Handle(std::move(prepared), fetch).release();
    return absl::OkStatus();
  });
}

gw_status gw_run_execute(gw_run* run) {
  return Guard("gw_run_execute", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"run", run}}));
    return run->run->Run();
  });
}

gw_status gw_run_set_feed(gw_run* run, size_t index, const gw_tensor* tensor) {
  return Guard("gw_run_set_feed", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"run", run}, {"tensor", tensor}}));
    // The engine's numbers are smaller; its message for the largest of them is as good.
    return run->run->SetFeed(index < INT32_MAX ? static_cast<int>(index) : INT32_MAX, tensor->tensor);
  });
}

gw_status gw_run_set_rows(gw_run* run, const int64_t* rows, size_t num_rows) {
  return Guard("gw_run_set_rows", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"run", run}}));
    if (num_rows > 0) GW_RETURN_IF_ERROR(CheckGiven({{"rows", rows}}));
    return run->run->SetRows(absl::Span<const int64_t>(rows, num_rows));
  });
}

gw_status gw_run_result(const gw_run* run, size_t index, const gw_tensor** result) {
  return Guard("gw_run_result", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"result", result}}));
    *result = nullptr;
    GW_RETURN_IF_ERROR(CheckGiven({{"run", run}}));
    if (index >= run->results.size()) {
      return absl::OutOfRangeError(
          absl::StrCat("there is no fetch ", index, ": the run was prepared with ", run->results.size()));
    }
    if (!run->results[index].has_value())
      return absl::InvalidArgumentError(absl::StrCat("fetch ", index, " is an update and has no result"));
    *result = &*run->results[index];
    return absl::OkStatus();
  });
}

void gw_run_destroy(gw_run* run) { delete run; }
