// Sessions for tests of layers and optimizers.
#ifndef GRADWEAVE_FRONTEND_TEST_SESSION_H_
#define GRADWEAVE_FRONTEND_TEST_SESSION_H_

#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"

namespace gradweave {

// A session of the graph, which has to be without errors.
inline Session Start(const Graph& graph) {
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  EXPECT_TRUE(session.ok()) << session.status();
  return *std::move(session);
}

inline void RunOnce(Session& session, const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches) {
  const absl::StatusOr<std::vector<Tensor>> results = session.Run(feeds, fetches);
  ASSERT_TRUE(results.ok()) << results.status();
}

// The elements of a variable.
inline std::vector<double> Variable(const Session& session, absl::string_view name) {
  const absl::StatusOr<Tensor> value = session.GetVariable(name);
  EXPECT_TRUE(value.ok()) << value.status();
  return value.ok() ? value->ToDoubles() : std::vector<double>();
}

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_TEST_SESSION_H_
