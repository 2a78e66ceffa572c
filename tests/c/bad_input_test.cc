// Mistakes of a caller of the C interface: each row gives a status and a message, and the handles
// still work.
#include <cstdint>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/c/dlpack_layout.h"
#include "gradweave/frontend/c/gradweave.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/c/handles.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Path(const std::string& name) { return ::testing::TempDir() + "/" + name; }

// A model file: y = x w of float32[batch,2] and the label that `chosen` gathers from y. The weights
// are beside it.
std::string WriteModel() {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2});
  const Value label = scope.Input("label", kInt32, {Dim("batch")});
  const Value w = scope.Variable("w", scope.Constant(Tensor::Of<float>({2, 3}, {1, 2, 3, 4, 5, 6})));
  const Value y = MatMul(x, w);
  graph.SetOutput("y", {y});
  graph.SetOutput("loss", {Mean(SparseSoftmaxCrossEntropy(y, label))});
  graph.SetOutput("class", {ArgMax(y)});
  graph.SetOutput("pair", {y, x});
  graph.SetOutput("step", {Assign(w, w + 1.0)});
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  EXPECT_TRUE(session.ok()) << session.status();
  EXPECT_TRUE(SaveModel(*session, Path("bad_input.gw")).ok());
  EXPECT_TRUE(SaveModel(*session, Path("beside.gw"), {.inline_limit = 0}).ok());
  return Path("bad_input.gw");
}

// The arguments with which the rows call functions.
struct Handles {
  std::string file;
  ModelHandle model;
  SessionHandle session;
  TensorHandle x, label, wrong_dtype, wrong_sizes, wrong_label;
  RunHandle run, rows;
};

struct Row {
  const char* message;  // Behind the name of the function.
  gw_status status;
  std::function<gw_status(Handles& h)> call;
};

gw_status Load(const char* path, const gw_load_options* options = nullptr) {
  ModelHandle model;
  const gw_status status = gw_model_load(path, options, &model.handle);
  EXPECT_EQ(model.handle == nullptr, status != GW_OK);
  return status;
}

gw_status LoadBytes(const std::string& bytes, const gw_load_options* options = nullptr) {
  ModelHandle model;
  const gw_status status = gw_model_load_bytes(bytes.data(), bytes.size(), options, &model.handle);
  EXPECT_EQ(model.handle == nullptr, status != GW_OK);
  return status;
}

gw_status SaveOnnx(Handles& h, const char* output, const std::string& path) {
  return gw_model_save_onnx(h.model.handle, &output, 1, path.c_str());
}

std::string Bytes(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// Feeds x and the label, and expects no result.
gw_status Run(Handles& h, const gw_tensor* x, const gw_tensor* label, const char* fetch) {
  const gw_feed feeds[] = {{"x", x}, {"label", label}};
  gw_tensor* result = h.x.handle;
  const gw_status status = gw_session_run(h.session.handle, feeds, 2, &fetch, 1, &result);
  EXPECT_EQ(result, nullptr);
  return status;
}

gw_status Create(Handles& h, const std::function<void(gw_session_options& options)>& change) {
  gw_session_options options = {};
  change(options);
  SessionHandle session;
  return gw_session_create(h.model.handle, &options, &session.handle);
}

gw_status Gradients(Handles& h, const char* loss, const char* wrt, const char* prefix = "grad/") {
  return gw_model_add_gradients(h.model.handle, loss, &wrt, 1, prefix);
}

gw_status View(gw_dtype dtype, int32_t rank, std::vector<int64_t> sizes, void* data) {
  TensorHandle tensor;
  return gw_tensor_view(dtype, rank, sizes.empty() ? nullptr : sizes.data(), data, nullptr, nullptr, &tensor.handle);
}

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
alignas(8) char memory[64];

const Row kRows[] = {
    // Files.
    {"path is NULL", GW_INVALID_ARGUMENT, [](Handles&) { return Load(nullptr); }},
    {"model is NULL", GW_INVALID_ARGUMENT, [](Handles& h) { return gw_model_load(h.file.c_str(), nullptr, nullptr); }},
    {"none.gw: the file cannot be opened", GW_NOT_FOUND, [](Handles&) { return Load(Path("none.gw").c_str()); }},
    {"this is not a regular file", GW_INVALID_ARGUMENT, [](Handles&) { return Load(Path("").c_str()); }},
    {"the file is damaged or truncated", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       std::ofstream(Path("short.gw"), std::ios::binary) << Bytes(h.file).substr(0, 100);
       return Load(Path("short.gw").c_str());
     }},
    {"memory_limit is -1", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       const gw_load_options options = {-1, 0};
       return Load(h.file.c_str(), &options);
     }},
    {"more memory than the limit", GW_RESOURCE_EXHAUSTED,
     [](Handles& h) {
       const gw_load_options options = {1000, 0};
       return LoadBytes(Bytes(h.file), &options);
     }},
    {"bytes is NULL", GW_INVALID_ARGUMENT,
     [](Handles&) {
       ModelHandle model;
       return gw_model_load_bytes(nullptr, 8, nullptr, &model.handle);
     }},
    {"this is neither a Gradweave model nor an ONNX model", GW_INVALID_ARGUMENT,
     [](Handles&) { return LoadBytes(""); }},
    {"this is neither a Gradweave model nor an ONNX model", GW_INVALID_ARGUMENT,
     [](Handles&) { return LoadBytes("no model, but some text"); }},
    {"text.gw: this is neither a Gradweave model nor an ONNX model", GW_INVALID_ARGUMENT,
     [](Handles&) {
       std::ofstream(Path("text.gw")) << "no model, but some text";
       return Load(Path("text.gw").c_str());
     }},
    {"it is not an ONNX model, is damaged or truncated", GW_INVALID_ARGUMENT,
     [](Handles&) { return LoadBytes("\x08\x08\x12\x7f"); }},
    {"given for ONNX models alone", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       const gw_feed fixed = {"x", h.x.handle};
       const gw_load_options options = {0, 0, &fixed, 1, nullptr, 0};
       return Load(h.file.c_str(), &options);
     }},
    {"fixed is NULL", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       const gw_load_options options = {0, 0, nullptr, 1, nullptr, 0};
       return Load(h.file.c_str(), &options);
     }},
    {"a tensor in fixed is NULL", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       const gw_feed fixed = {"x", nullptr};
       const gw_load_options options = {0, 0, &fixed, 1, nullptr, 0};
       return Load(h.file.c_str(), &options);
     }},
    {"rank -1 is outside [0, 64]", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       const gw_shape shape = {"x", -1, nullptr};
       const gw_load_options options = {0, 0, nullptr, 0, &shape, 1};
       return Load(h.file.c_str(), &options);
     }},
    {"in shapes, 'x' has a negative size", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       const int64_t size = -1;
       const gw_shape shape = {"x", 1, &size};
       const gw_load_options options = {0, 0, nullptr, 0, &shape, 1};
       return Load(h.file.c_str(), &options);
     }},
    {"the file is damaged or truncated", GW_INVALID_ARGUMENT,
     [](Handles& h) { return LoadBytes(Bytes(h.file).substr(0, 100)); }},
    {"the checksum is wrong", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       std::string bytes = Bytes(h.file);
       bytes[bytes.find("label")] = 'L';
       return LoadBytes(bytes);
     }},
    {"beside it: load the model by its path", GW_INVALID_ARGUMENT,
     [](Handles&) { return LoadBytes(Bytes(Path("beside.gw"))); }},
    {"none/x.gw", GW_NOT_FOUND, [](Handles& h) { return gw_model_save(h.model.handle, Path("none/x.gw").c_str()); }},
    {"path is NULL", GW_INVALID_ARGUMENT, [](Handles& h) { return gw_session_save(h.session.handle, nullptr); }},
    {"no output 'los'; its outputs are 'class', 'loss'", GW_NOT_FOUND,
     [](Handles& h) { return SaveOnnx(h, "los", Path("x.onnx")); }},
    {"a name in outputs is NULL", GW_INVALID_ARGUMENT, [](Handles& h) { return SaveOnnx(h, nullptr, Path("x.onnx")); }},
    {"outputs is NULL", GW_INVALID_ARGUMENT,
     [](Handles& h) { return gw_session_save_onnx(h.session.handle, nullptr, 1, Path("x.onnx").c_str()); }},
    {"none/x.onnx", GW_NOT_FOUND, [](Handles& h) { return SaveOnnx(h, "y", Path("none/x.onnx")); }},

    // Descriptions.
    {"kind 3 is not a gw_kind", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       size_t count;
       return gw_model_count(h.model.handle, 3, &count);
     }},
    {"there is no output 6: the model has 6", GW_OUT_OF_RANGE,
     [](Handles& h) {
       gw_description description;
       return gw_model_describe(h.model.handle, GW_OUTPUT, 6, &description);
     }},
    {"the model has no input 'y'; its inputs are 'x', 'label'", GW_NOT_FOUND,
     [](Handles& h) {
       gw_description description;
       return gw_model_find(h.model.handle, GW_INPUT, "y", &description);
     }},
    {"description is NULL", GW_INVALID_ARGUMENT,
     [](Handles& h) { return gw_model_find(h.model.handle, GW_INPUT, "x", nullptr); }},

    // Gradients.
    {"model is NULL", GW_INVALID_ARGUMENT,
     [](Handles&) { return gw_model_add_gradients(nullptr, "loss", nullptr, 0, ""); }},
    {"a name in wrt is NULL", GW_INVALID_ARGUMENT, [](Handles& h) { return Gradients(h, "loss", nullptr); }},
    {"no output 'los'; its outputs are 'class', 'loss'", GW_NOT_FOUND,
     [](Handles& h) { return Gradients(h, "los", "w"); }},
    {"no input and no variable 'v'", GW_NOT_FOUND, [](Handles& h) { return Gradients(h, "loss", "v"); }},
    {"output 'step' is an update", GW_INVALID_ARGUMENT, [](Handles& h) { return Gradients(h, "step", "w"); }},
    {"output 'pair' is a list of 2 values", GW_INVALID_ARGUMENT, [](Handles& h) { return Gradients(h, "pair", "w"); }},
    {"int", GW_INVALID_ARGUMENT, [](Handles& h) { return Gradients(h, "class", "w"); }},
    {"label", GW_INVALID_ARGUMENT, [](Handles& h) { return Gradients(h, "loss", "label"); }},
    {"has an output 'new/x' already: give another prefix", GW_ALREADY_EXISTS,
     [](Handles& h) {
       EXPECT_EQ(Gradients(h, "y", "x", "new/"), GW_OK);
       return Gradients(h, "y", "x", "new/");
     }},

    // Sessions.
    {"model is NULL", GW_INVALID_ARGUMENT,
     [](Handles&) {
       SessionHandle session;
       return gw_session_create(nullptr, nullptr, &session.handle);
     }},
    {"'gpu' is not a device", GW_INVALID_ARGUMENT,
     [](Handles& h) { return Create(h, [](gw_session_options& o) { o.device = "gpu"; }); }},
    {"is not available", GW_UNAVAILABLE,
     [](Handles& h) { return Create(h, [](gw_session_options& o) { o.device = "cuda:999"; }); }},
    {"threads", GW_INVALID_ARGUMENT,
     [](Handles& h) { return Create(h, [](gw_session_options& o) { o.threads = -1; }); }},
    {"memory_budget", GW_INVALID_ARGUMENT,
     [](Handles& h) { return Create(h, [](gw_session_options& o) { o.memory_budget = -1; }); }},
    {"row_fusion is 7, which is not a gw_choice", GW_INVALID_ARGUMENT,
     [](Handles& h) { return Create(h, [](gw_session_options& o) { o.row_fusion = 7; }); }},

    // Runs.
    {"the tensor of feed 0 is NULL", GW_INVALID_ARGUMENT,
     [](Handles& h) { return Run(h, nullptr, h.label.handle, "y"); }},
    {"float64", GW_INVALID_ARGUMENT, [](Handles& h) { return Run(h, h.wrong_dtype.handle, h.label.handle, "y"); }},
    {"[2,3]", GW_INVALID_ARGUMENT, [](Handles& h) { return Run(h, h.wrong_sizes.handle, h.label.handle, "y"); }},
    {"label", GW_OUT_OF_RANGE, [](Handles& h) { return Run(h, h.x.handle, h.wrong_label.handle, "loss"); }},
    {"the name of fetch 0 is NULL", GW_INVALID_ARGUMENT,
     [](Handles& h) { return Run(h, h.x.handle, h.label.handle, nullptr); }},
    {"no output 'pair:2'", GW_NOT_FOUND, [](Handles& h) { return Run(h, h.x.handle, h.label.handle, "pair:2"); }},
    {"no output 'step:0'", GW_NOT_FOUND, [](Handles& h) { return Run(h, h.x.handle, h.label.handle, "step:0"); }},
    {"'pair:0' is the first of them", GW_INVALID_ARGUMENT,
     [](Handles& h) { return Run(h, h.x.handle, h.label.handle, "pair"); }},
    {"input 'x'", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       const char* const fetch = "y";
       gw_tensor* result = nullptr;
       return gw_session_run(h.session.handle, nullptr, 0, &fetch, 1, &result);
     }},
    {"feeds is NULL", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       const char* const fetch = "y";
       gw_tensor* result = nullptr;
       return gw_session_run(h.session.handle, nullptr, 1, &fetch, 1, &result);
     }},
    {"results is NULL", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       const char* const fetch = "y";
       return gw_session_run(h.session.handle, nullptr, 0, &fetch, 1, nullptr);
     }},
    {"session is NULL", GW_INVALID_ARGUMENT,
     [](Handles&) {
       RunHandle run;
       return gw_session_prepare(nullptr, nullptr, 0, nullptr, 0, &run.handle);
     }},
    {"run is NULL", GW_INVALID_ARGUMENT, [](Handles&) { return gw_run_execute(nullptr); }},
    {"there is no feed", GW_INVALID_ARGUMENT,
     [](Handles& h) { return gw_run_set_feed(h.run.handle, SIZE_MAX, h.x.handle); }},
    {"float64", GW_INVALID_ARGUMENT, [](Handles& h) { return gw_run_set_feed(h.run.handle, 0, h.wrong_dtype.handle); }},
    {"was not made by PrepareRows", GW_INVALID_ARGUMENT,
     [](Handles& h) { return gw_run_set_rows(h.run.handle, nullptr, 0); }},
    {"rows is NULL", GW_INVALID_ARGUMENT, [](Handles& h) { return gw_run_set_rows(h.rows.handle, nullptr, 1); }},
    {"row -1 at position 0", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       const int64_t row = -1;
       return gw_run_set_rows(h.rows.handle, &row, 1);
     }},
    {"there is no fetch 2: the run was prepared with 2", GW_OUT_OF_RANGE,
     [](Handles& h) {
       const gw_tensor* result;
       return gw_run_result(h.run.handle, 2, &result);
     }},
    {"fetch 1 is an update", GW_INVALID_ARGUMENT,
     [](Handles& h) {
       const gw_tensor* result;
       return gw_run_result(h.run.handle, 1, &result);
     }},

    // Variables.
    {"the model has no variable 'x'; its variables are 'w'", GW_NOT_FOUND,
     [](Handles& h) {
       TensorHandle value;
       return gw_session_get_variable(h.session.handle, "x", &value.handle);
     }},
    {"value is NULL", GW_INVALID_ARGUMENT,
     [](Handles& h) { return gw_session_set_variable(h.session.handle, "w", nullptr); }},
    {"w", GW_INVALID_ARGUMENT, [](Handles& h) { return gw_session_set_variable(h.session.handle, "w", h.x.handle); }},

    // Tensors.
    {"dtype 13 is not a gw_dtype", GW_INVALID_ARGUMENT, [](Handles&) { return View(13, 0, {}, memory); }},
    {"dtype -1 is not a gw_dtype", GW_INVALID_ARGUMENT, [](Handles&) { return View(-1, 0, {}, memory); }},
    {"rank 65 is outside [0, 64]", GW_INVALID_ARGUMENT, [](Handles&) { return View(GW_INT32, 65, {1}, memory); }},
    {"sizes is NULL", GW_INVALID_ARGUMENT, [](Handles&) { return View(GW_INT32, 1, {}, memory); }},
    {"data is NULL", GW_INVALID_ARGUMENT, [](Handles&) { return View(GW_INT32, 1, {1}, nullptr); }},
    {"not a multiple of 8", GW_INVALID_ARGUMENT, [](Handles&) { return View(GW_INT64, 1, {1}, memory + 4); }},
    {"too many elements", GW_INVALID_ARGUMENT,
     [](Handles&) {
       return View(GW_FLOAT32, 2, {kHuge, 2}, memory);
     }},
    {"too many elements", GW_INVALID_ARGUMENT, [](Handles&) { return View(GW_FLOAT64, 1, {kHuge}, memory); }},
    {"tensor is NULL", GW_INVALID_ARGUMENT, [](Handles&) { return gw_tensor_create(GW_FLOAT32, 0, nullptr, nullptr); }},
    {"memory", GW_RESOURCE_EXHAUSTED,
     [](Handles&) {
       const int64_t size = int64_t{1} << 50;
       TensorHandle tensor;
       return gw_tensor_create(GW_FLOAT32, 1, &size, &tensor.handle);
     }},
    {"managed is NULL", GW_INVALID_ARGUMENT,
     [](Handles&) {
       TensorHandle tensor;
       return gw_tensor_from_dlpack(nullptr, &tensor.handle);
     }},
    {"tensor is NULL", GW_INVALID_ARGUMENT,
     [](Handles&) {
       DLManagedTensor* managed = nullptr;
       return gw_tensor_to_dlpack(nullptr, &managed);
     }},
};

TEST(BadInput, GivesAStatusAndAMessageAndChangesNothing) {
  Handles h;
  h.file = WriteModel();
  ASSERT_EQ(gw_model_load(h.file.c_str(), nullptr, &h.model.handle), GW_OK) << gw_last_error();
  ASSERT_EQ(gw_session_create(h.model.handle, nullptr, &h.session.handle), GW_OK) << gw_last_error();
  const auto make = [](TensorHandle& tensor, gw_dtype dtype, std::vector<int64_t> sizes) {
    ASSERT_EQ(gw_tensor_create(dtype, static_cast<int32_t>(sizes.size()), sizes.data(), &tensor.handle), GW_OK);
  };
  make(h.x, GW_FLOAT32, {2, 2});
  make(h.label, GW_INT32, {2});
  make(h.wrong_dtype, GW_FLOAT64, {2, 2});
  make(h.wrong_sizes, GW_FLOAT32, {2, 3});
  make(h.wrong_label, GW_INT32, {2});
  static_cast<int32_t*>(gw_tensor_data(h.wrong_label.handle))[1] = 3;
  const gw_feed feeds[] = {{"x", h.x.handle}};
  const char* const fetches[] = {"y", "step"};
  ASSERT_EQ(gw_session_prepare(h.session.handle, feeds, 1, fetches, 2, &h.run.handle), GW_OK) << gw_last_error();
  ASSERT_EQ(gw_session_prepare_rows(h.session.handle, feeds, 1, 1, fetches, 1, &h.rows.handle), GW_OK);

  for (const Row& row : kRows) {
    SCOPED_TRACE(row.message);
    EXPECT_EQ(row.call(h), row.status) << gw_last_error();
    const std::string message = gw_last_error();
    EXPECT_THAT(message, StartsWith("gw_"));
    EXPECT_THAT(message, HasSubstr(row.message));
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    // All that the rows were given works as before.
    ASSERT_EQ(gw_run_execute(h.rows.handle), GW_OK) << gw_last_error();
    EXPECT_STREQ(gw_last_error(), "");
  }
  TensorHandle w;
  ASSERT_EQ(gw_session_get_variable(h.session.handle, "w", &w.handle), GW_OK) << gw_last_error();
  EXPECT_EQ(static_cast<float*>(gw_tensor_data(w.handle))[0], 1);
}

TEST(BadInput, NullIsNoTensor) {
  EXPECT_EQ(gw_tensor_rank(nullptr), 0);
  EXPECT_EQ(gw_tensor_sizes(nullptr), nullptr);
  EXPECT_EQ(gw_tensor_num_bytes(nullptr), 0u);
  EXPECT_EQ(gw_tensor_data(nullptr), nullptr);
  gw_tensor_destroy(nullptr);
  gw_model_destroy(nullptr);
  gw_session_destroy(nullptr);
  gw_run_destroy(nullptr);
}

}  // namespace
}  // namespace gradweave
