// Runs that were prepared once. session.cc makes them.
#include <algorithm>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/runtime/session/session.h"
#include "gradweave/runtime/session/session_state.h"

namespace gradweave {

PreparedRun::PreparedRun(std::unique_ptr<State> state) : state_(std::move(state)) {}
PreparedRun::~PreparedRun() {
  Session::State& session = *state_->session;
  if (session.is_copy()) {
    (void)state_.release();  // NOLINT(bugprone-unused-return-value): it is left to the parent.
    return;
  }
  std::lock_guard lock(session.mutex);
  // The run ends before its feeds are freed. No caller is left to receive its error.
  if (session.started == state_.get()) session.Settle();
  state_->executable = nullptr;
  session.ForgetSums(*state_);
  session.ForgetTables(*state_);
}

absl::Status PreparedRun::Run(const RunOptions& options) try {
  Session::State& session = *state_->session;
  GW_RETURN_IF_ERROR(session.CheckProcess("PreparedRun::Run"));
  std::lock_guard lock(session.mutex);
  session.Settle();
  GW_RETURN_IF_ERROR(std::exchange(state_->failure, absl::OkStatus()));
  return session.RunPlan(*state_->executable, state_->addresses, absl::MakeSpan(state_->results), options);
}
GW_CATCH_OUT_OF_MEMORY("Run")

absl::Status PreparedRun::Start(const RunOptions& options) try {
  Session::State& session = *state_->session;
  GW_RETURN_IF_ERROR(session.CheckProcess("PreparedRun::Start"));
  std::lock_guard lock(session.mutex);
  // Runs of one plan follow each other without a wait.
  if (session.started != state_.get()) session.Settle();
  GW_RETURN_IF_ERROR(std::exchange(state_->failure, absl::OkStatus()));
  GW_RETURN_IF_ERROR(
      session.StartPlan(*state_->executable, state_->addresses, absl::MakeSpan(state_->results), options));
  session.started = state_.get();
  return absl::OkStatus();
}
GW_CATCH_OUT_OF_MEMORY("Start")

absl::Status PreparedRun::Finish() try {
  GW_RETURN_IF_ERROR(state_->session->CheckProcess("PreparedRun::Finish"));
  std::lock_guard lock(state_->session->mutex);
  state_->session->Settle();
  return std::exchange(state_->failure, absl::OkStatus());
}
GW_CATCH_OUT_OF_MEMORY("Finish")

absl::Status PreparedRun::ClearSums() try {
  GW_RETURN_IF_ERROR(state_->session->CheckProcess("PreparedRun::ClearSums"));
  std::lock_guard lock(state_->session->mutex);
  GW_RETURN_IF_ERROR(state_->session->ClearSums(*state_));
  return std::exchange(state_->failure, absl::OkStatus());
}
GW_CATCH_OUT_OF_MEMORY("ClearSums")

absl::Status PreparedRun::SetSums(absl::Span<const Tensor> sums) try {
  GW_RETURN_IF_ERROR(state_->session->CheckProcess("PreparedRun::SetSums"));
  std::lock_guard lock(state_->session->mutex);
  GW_RETURN_IF_ERROR(state_->session->SetSums(*state_, sums));
  return std::exchange(state_->failure, absl::OkStatus());
}
GW_CATCH_OUT_OF_MEMORY("SetSums")

const std::vector<Tensor>& PreparedRun::results() const { return state_->results; }

absl::Status PreparedRun::SetFeed(int i, const Tensor& tensor) try {
  GW_RETURN_IF_ERROR(state_->session->CheckProcess("PreparedRun::SetFeed"));
  if (state_->reads_tables || i < 0 || i >= static_cast<int>(state_->feeds.size())) {
    return absl::InvalidArgumentError(absl::StrCat("SetFeed: there is no feed ", i));
  }
  Feed& feed = state_->feeds[i];
  if (!(feed.second.type() == tensor.type())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "SetFeed: feed ", i, " was prepared as ", feed.second.type().ToString(), " and is ", tensor.type().ToString()));
  }
  // If there is no memory for the new addresses, the old feed stays.
  Tensor other = tensor;
  std::swap(feed.second, other);
  absl::Cleanup undo = [&] { std::swap(feed.second, other); };
  GW_ASSIGN_OR_RETURN(state_->addresses, state_->session->FeedAddresses(*state_->executable, state_->feeds));
  std::move(undo).Cancel();
  return absl::OkStatus();
}
GW_CATCH_OUT_OF_MEMORY("SetFeed")

absl::Status PreparedRun::SetRows(absl::Span<const int64_t> rows) try {
  GW_RETURN_IF_ERROR(state_->session->CheckProcess("PreparedRun::SetRows"));
  if (!state_->reads_tables) return absl::InvalidArgumentError("SetRows: the run was not made by PrepareRows");
  if (state_->feeds.empty()) return absl::OkStatus();
  Tensor& numbers = state_->feeds[0].second;
  if (numbers.num_elements() != static_cast<int64_t>(rows.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("SetRows: the run was prepared for ", numbers.num_elements(), " rows and is given ", rows.size()));
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    // A number that does not fit would become the number of another row.
    if (rows[i] < 0 || rows[i] > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(
          absl::StrCat("SetRows: row ", rows[i], " at position ", i, " is outside [0, 2^31)"));
    }
  }
  std::copy(rows.begin(), rows.end(), numbers.mutable_data<int32_t>());
  return absl::OkStatus();
}
GW_CATCH_OUT_OF_MEMORY("SetRows")

}  // namespace gradweave
