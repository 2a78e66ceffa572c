// The C interface: what its functions do, beside the same in C++.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/c/gradweave.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/c/handles.h"
#include "tests/c/linear_model.h"

extern "C" int HeaderWorksInC(void);

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// y = x w, and the loss is the sum of squares: its gradient with respect to x is 2 (x w) w'. The
// step adds 1 to w.
class CApi : public ::testing::Test {
 protected:
  void SetUp() override {
    Graph graph;
    Scope scope(graph);
    const Value w = AddLinearModel(scope);
    const Value steps = scope.Variable("steps", scope.Constant(Tensor::Scalar<int64_t>(0)), {.trainable = false});
    graph.SetOutput("step", {Assign(w, w + 1.0), Assign(steps, steps + 1)});
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .seed = 5});
    ASSERT_TRUE(session.ok()) << session.status();
    ASSERT_TRUE(SaveModel(*session, path_).ok());
    ASSERT_EQ(gw_model_load(path_.c_str(), nullptr, &model_.handle), GW_OK) << gw_last_error();
    ASSERT_EQ(gw_session_create(model_.handle, nullptr, &session_.handle), GW_OK) << gw_last_error();
    ASSERT_EQ(gw_tensor_view(GW_FLOAT32, 2, sizes_, x_, nullptr, nullptr, &tensor_.handle), GW_OK);
  }

  // Runs with x as it is, and returns the elements of one result.
  std::vector<float> Run(gw_session* session, const char* fetch) {
    const gw_feed feed = {"x", tensor_.handle};
    TensorHandle result;
    EXPECT_EQ(gw_session_run(session, &feed, 1, &fetch, 1, &result.handle), GW_OK) << gw_last_error();
    return Floats(result.handle);
  }
  static std::vector<float> Floats(const gw_tensor* tensor) {
    const float* const data = static_cast<const float*>(gw_tensor_data(tensor));
    return std::vector<float>(data, data + gw_tensor_num_bytes(tensor) / sizeof(float));
  }

  const std::string path_ = ::testing::TempDir() + "/c_api.gw";
  float x_[4] = {1, 0, 1, 1};
  const int64_t sizes_[2] = {2, 2};
  ModelHandle model_;
  SessionHandle session_;
  TensorHandle tensor_;
};

TEST_F(CApi, HasTheVersionOfTheLibrary) {
  EXPECT_STREQ(gw_version(), kVersion);
  EXPECT_STREQ(gw_status_name(GW_NOT_FOUND), "NOT_FOUND");
  EXPECT_STREQ(gw_status_name(99), "UNKNOWN");
  EXPECT_STREQ(gw_dtype_name(GW_UINT8), "uint8");
  EXPECT_STREQ(gw_dtype_name(GW_BFLOAT16), "bfloat16");
  EXPECT_EQ(gw_dtype_size(GW_BFLOAT16), 2u);
  EXPECT_STREQ(gw_dtype_name(GW_UINT64), "uint64");
  EXPECT_STREQ(gw_dtype_name(13), "");
  EXPECT_EQ(HeaderWorksInC(), 1);
}

TEST_F(CApi, DescribesTheModel) {
  std::ostringstream text;
  for (gw_kind kind : {GW_INPUT, GW_OUTPUT, GW_VARIABLE}) {
    size_t count = 0;
    ASSERT_EQ(gw_model_count(model_.handle, kind, &count), GW_OK);
    for (size_t i = 0; i < count; ++i) {
      gw_description d;
      ASSERT_EQ(gw_model_describe(model_.handle, kind, i, &d), GW_OK);
      text << d.name << " " << gw_dtype_name(d.dtype);
      for (int axis = 0; axis < d.rank; ++axis) text << " " << d.dimensions[axis] << "=" << d.sizes[axis];
      text << (d.trainable ? " trainable" : "") << (d.is_update ? " update" : "") << "\n";
    }
  }
  EXPECT_EQ(text.str(),
            "x float32 batch=-1 2=2\n"
            "both:0 float32 batch=-1 1=1\nboth:1 float32 batch=-1 2=2\nloss float32\nstep float32 update\n"
            "y float32 batch=-1 1=1\n"
            "w float32 2=2 1=1 trainable\nsteps int64\n");
  gw_description found;
  ASSERT_EQ(gw_model_find(model_.handle, GW_VARIABLE, "steps", &found), GW_OK);
  EXPECT_EQ(found.dtype, GW_INT64);
}

TEST_F(CApi, RunsWithTheCallersMemory) {
  EXPECT_THAT(Run(session_.handle, "y"), ElementsAre(2, 5));
  x_[0] = 4;
  EXPECT_THAT(Run(session_.handle, "y"), ElementsAre(8, 5));
  EXPECT_THAT(Run(session_.handle, "both:1"), ElementsAre(5, 1, 2, 2));
}

TEST_F(CApi, ResultsAreInTheOrderOfTheFetchesAndUpdatesHaveNone) {
  const gw_feed feed = {"x", tensor_.handle};
  const char* const fetches[] = {"loss", "step", "y"};
  gw_tensor* results[3];
  ASSERT_EQ(gw_session_run(session_.handle, &feed, 1, fetches, 3, results), GW_OK) << gw_last_error();
  EXPECT_THAT(Floats(results[0]), ElementsAre(29));
  EXPECT_EQ(results[1], nullptr);
  EXPECT_THAT(Floats(results[2]), ElementsAre(2, 5));
  gw_tensor_destroy(results[0]);
  gw_tensor_destroy(results[2]);
  EXPECT_THAT(Run(session_.handle, "y"), ElementsAre(3, 7));
}

TEST_F(CApi, AddsGradients) {
  const char* const wrt[] = {"x"};
  ASSERT_EQ(gw_model_add_gradients(model_.handle, "loss", wrt, 1, "grad/"), GW_OK) << gw_last_error();
  ASSERT_EQ(gw_model_add_gradients(model_.handle, "loss", nullptr, 0, "all/"), GW_OK) << gw_last_error();
  // Gradients have gradients.
  ASSERT_EQ(gw_model_add_gradients(model_.handle, "grad/x", wrt, 1, "second/"), GW_OK) << gw_last_error();
  SessionHandle session;
  ASSERT_EQ(gw_session_create(model_.handle, nullptr, &session.handle), GW_OK) << gw_last_error();
  EXPECT_THAT(Run(session.handle, "grad/x"), ElementsAre(8, 12, 20, 30));     // 2 y w'.
  EXPECT_THAT(Run(session.handle, "all/w"), ElementsAre(14, 10));             // 2 x' y.
  EXPECT_THAT(Run(session.handle, "second/x"), ElementsAre(20, 30, 20, 30));  // 2 (w_0 + w_1) w'.
  gw_description d;
  EXPECT_EQ(gw_model_find(model_.handle, GW_OUTPUT, "all/steps", &d), GW_NOT_FOUND);  // It is not trainable.
}

TEST_F(CApi, AFailedGradientLeavesTheModelAsItWas) {
  const char* const wrt[] = {"steps"};
  EXPECT_EQ(gw_model_add_gradients(model_.handle, "loss", wrt, 1, "grad/"), GW_INVALID_ARGUMENT);
  EXPECT_THAT(gw_last_error(), HasSubstr("gw_model_add_gradients: "));
  SessionHandle session;
  ASSERT_EQ(gw_session_create(model_.handle, nullptr, &session.handle), GW_OK) << gw_last_error();
  EXPECT_STREQ(gw_last_error(), "");
  EXPECT_THAT(Run(session.handle, "y"), ElementsAre(2, 5));
}

TEST_F(CApi, ReadsAndWritesVariablesAndSaves) {
  float numbers[] = {7, -1};
  const int64_t sizes[] = {2, 1};
  TensorHandle value, read;
  ASSERT_EQ(gw_tensor_view(GW_FLOAT32, 2, sizes, numbers, nullptr, nullptr, &value.handle), GW_OK);
  ASSERT_EQ(gw_session_set_variable(session_.handle, "w", value.handle), GW_OK) << gw_last_error();
  numbers[0] = 0;  // The session has a copy.
  ASSERT_EQ(gw_session_get_variable(session_.handle, "w", &read.handle), GW_OK) << gw_last_error();
  EXPECT_THAT(Floats(read.handle), ElementsAre(7, -1));

  const std::string saved = ::testing::TempDir() + "/c_api_saved.gw";
  ASSERT_EQ(gw_session_save(session_.handle, saved.c_str()), GW_OK) << gw_last_error();
  const absl::StatusOr<Model> loaded = LoadModel(saved);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->variables[0].second.ToDoubles(), (std::vector<double>{7, -1}));
  EXPECT_EQ(loaded->seed, 5u);
  EXPECT_THAT(loaded->graph.outputs(), ::testing::SizeIs(4));

  // A model saves its own values, with what was added to it.
  ASSERT_EQ(gw_model_add_gradients(model_.handle, "loss", nullptr, 0, "grad/"), GW_OK) << gw_last_error();
  ASSERT_EQ(gw_model_save(model_.handle, saved.c_str()), GW_OK) << gw_last_error();
  const absl::StatusOr<Model> again = LoadModel(saved);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->variables[0].second.ToDoubles(), (std::vector<double>{2, 3}));
  EXPECT_TRUE(again->graph.outputs().contains("grad/w"));
}

TEST_F(CApi, LoadsFromMemory) {
  std::stringstream file;
  file << std::ifstream(path_, std::ios::binary).rdbuf();
  std::string bytes = file.str();
  ModelHandle model;
  ASSERT_EQ(gw_model_load_bytes(bytes.data(), bytes.size(), nullptr, &model.handle), GW_OK) << gw_last_error();
  bytes.assign(bytes.size(), 'x');
  SessionHandle session;
  ASSERT_EQ(gw_session_create(model.handle, nullptr, &session.handle), GW_OK) << gw_last_error();
  EXPECT_THAT(Run(session.handle, "y"), ElementsAre(2, 5));
}

TEST_F(CApi, APreparedRunOutlivesItsHandlesAndReadsItsFeedsEachTime) {
  const gw_feed feed = {"x", tensor_.handle};
  const char* const fetches[] = {"step", "y"};
  RunHandle run;
  ASSERT_EQ(gw_session_prepare(session_.handle, &feed, 1, fetches, 2, &run.handle), GW_OK) << gw_last_error();
  const gw_tensor* result = nullptr;
  ASSERT_EQ(gw_run_result(run.handle, 1, &result), GW_OK) << gw_last_error();
  model_.Reset();
  session_.Reset();
  tensor_.Reset();
  ASSERT_EQ(gw_run_execute(run.handle), GW_OK) << gw_last_error();
  EXPECT_THAT(Floats(result), ElementsAre(2, 5));
  x_[0] = 2;
  ASSERT_EQ(gw_run_execute(run.handle), GW_OK) << gw_last_error();
  EXPECT_THAT(Floats(result), ElementsAre(6, 7));  // w has become 3, 4.
  float other[] = {0, 0, 0, 1};
  TensorHandle next;
  ASSERT_EQ(gw_tensor_view(GW_FLOAT32, 2, sizes_, other, nullptr, nullptr, &next.handle), GW_OK);
  ASSERT_EQ(gw_run_set_feed(run.handle, 0, next.handle), GW_OK) << gw_last_error();
  ASSERT_EQ(gw_run_execute(run.handle), GW_OK) << gw_last_error();
  EXPECT_THAT(Floats(result), ElementsAre(0, 5));
}

TEST_F(CApi, APreparedRunReadsRowsOfTables) {
  uint8_t bytes[] = {0, 0, 255, 0, 0, 255};
  const int64_t sizes[] = {3, 2};
  TensorHandle table;
  ASSERT_EQ(gw_tensor_view(GW_UINT8, 2, sizes, bytes, nullptr, nullptr, &table.handle), GW_OK);
  const gw_feed feed = {"x", table.handle};
  const char* const fetch = "y";
  RunHandle run;
  ASSERT_EQ(gw_session_prepare_rows(session_.handle, &feed, 1, 2, &fetch, 1, &run.handle), GW_OK) << gw_last_error();
  const int64_t rows[] = {2, 1};
  ASSERT_EQ(gw_run_set_rows(run.handle, rows, 2), GW_OK) << gw_last_error();
  ASSERT_EQ(gw_run_execute(run.handle), GW_OK) << gw_last_error();
  const gw_tensor* result = nullptr;
  ASSERT_EQ(gw_run_result(run.handle, 0, &result), GW_OK);
  EXPECT_THAT(Floats(result), ElementsAre(3, 2));
  const int64_t beyond[] = {0, 3};
  ASSERT_EQ(gw_run_set_rows(run.handle, beyond, 2), GW_OK) << gw_last_error();
  EXPECT_EQ(gw_run_execute(run.handle), GW_OUT_OF_RANGE) << gw_last_error();
}

TEST_F(CApi, MemoryOfTheCallerIsReleasedOnceWhenNothingUsesIt) {
  int released = 0;
  const auto release = [](void* count) { ++*static_cast<int*>(count); };
  TensorHandle view;
  ASSERT_EQ(gw_tensor_view(GW_FLOAT32, 2, sizes_, x_, release, &released, &view.handle), GW_OK);
  const gw_feed feed = {"x", view.handle};
  const char* const fetch = "y";
  RunHandle run;
  ASSERT_EQ(gw_session_prepare(session_.handle, &feed, 1, &fetch, 1, &run.handle), GW_OK) << gw_last_error();
  view.Reset();
  EXPECT_EQ(released, 0);
  run.Reset();
  EXPECT_EQ(released, 1);
  // A call that fails takes nothing over.
  EXPECT_EQ(gw_tensor_view(GW_FLOAT32, -1, sizes_, x_, release, &released, &view.handle), GW_INVALID_ARGUMENT);
  EXPECT_EQ(released, 1);
}

TEST_F(CApi, EachThreadHasItsOwnMessage) {
  ModelHandle none;
  EXPECT_EQ(gw_model_load(nullptr, nullptr, &none.handle), GW_INVALID_ARGUMENT);
  std::thread other([&] {
    EXPECT_STREQ(gw_last_error(), "");
    for (int i = 0; i < 20; ++i) EXPECT_THAT(Run(session_.handle, "y"), ElementsAre(2, 5));
  });
  for (int i = 0; i < 20; ++i) {
    gw_tensor* result = nullptr;
    const char* const fetch = "none";
    EXPECT_EQ(gw_session_run(session_.handle, nullptr, 0, &fetch, 1, &result), GW_NOT_FOUND);
    EXPECT_THAT(gw_last_error(), HasSubstr("'none'"));
  }
  other.join();
  EXPECT_THAT(gw_last_error(), HasSubstr("'none'"));
}

TEST_F(CApi, ASessionTakesOptions) {
  const uint64_t seed = 9;
  gw_session_options options = {};
  options.device = "best";
  options.threads = 1;
  options.batch_tiles = GW_NEVER;
  options.toom_cook = GW_NEVER;
  options.seed = &seed;
  SessionHandle session;
  ASSERT_EQ(gw_session_create(model_.handle, &options, &session.handle), GW_OK) << gw_last_error();
  EXPECT_THAT(Run(session.handle, "y"), ElementsAre(2, 5));
  const std::string saved = ::testing::TempDir() + "/c_api_seed.gw";
  ASSERT_EQ(gw_session_save(session.handle, saved.c_str()), GW_OK) << gw_last_error();
  EXPECT_EQ(LoadModel(saved)->seed, 9u);
}

}  // namespace
}  // namespace gradweave
