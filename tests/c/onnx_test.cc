// ONNX files through the C interface: the handles of a loaded model are those of a Gradweave model.
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/c/gradweave.h"
#include "gradweave/gradweave.h"
#include "gradweave/proto/onnx.pb.h"
#include "gtest/gtest.h"
#include "tests/c/handles.h"
#include "tests/c/linear_model.h"
#include "tests/onnx/model_parts.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Path(const std::string& name) { return ::testing::TempDir() + "/" + name; }

std::string Bytes(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// Each value as "name dtype dimension=size ...", one on a line.
std::string Described(const gw_model* model, gw_kind kind) {
  std::ostringstream text;
  size_t count = 0;
  EXPECT_EQ(gw_model_count(model, kind, &count), GW_OK);
  for (size_t i = 0; i < count; ++i) {
    gw_description d;
    EXPECT_EQ(gw_model_describe(model, kind, i, &d), GW_OK);
    text << d.name << " " << gw_dtype_name(d.dtype);
    for (int axis = 0; axis < d.rank; ++axis) text << " " << d.dimensions[axis] << "=" << d.sizes[axis];
    text << (d.trainable ? " trainable" : "") << "\n";
  }
  return text.str();
}

std::vector<float> Floats(const gw_tensor* tensor) {
  const float* const data = static_cast<const float*>(gw_tensor_data(tensor));
  return std::vector<float>(data, data + gw_tensor_num_bytes(tensor) / sizeof(float));
}

// y = x w of float32[batch,2], the loss is the sum of squares, `both` lists y and x + 1, and the
// step adds 1 to w.
class COnnx : public ::testing::Test {
 protected:
  void SetUp() override {
    Graph graph;
    Scope scope(graph);
    const Value w = AddLinearModel(scope);
    graph.SetOutput("step", {Assign(w, w + 1.0)});
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
    ASSERT_TRUE(session.ok()) << session.status();
    ASSERT_TRUE(SaveModel(*session, Path("c_onnx.gw")).ok());
    ASSERT_EQ(gw_model_load(Path("c_onnx.gw").c_str(), nullptr, &model_.handle), GW_OK) << gw_last_error();
    ASSERT_EQ(gw_tensor_view(GW_FLOAT32, 2, sizes_, x_, nullptr, nullptr, &tensor_.handle), GW_OK);
  }

  std::vector<float> Run(gw_session* session, const char* fetch) {
    const gw_feed feed = {"x", tensor_.handle};
    TensorHandle result;
    EXPECT_EQ(gw_session_run(session, &feed, 1, &fetch, 1, &result.handle), GW_OK) << gw_last_error();
    return Floats(result.handle);
  }
  std::vector<float> Run(const gw_model* model, const char* fetch) {
    SessionHandle session;
    EXPECT_EQ(gw_session_create(model, nullptr, &session.handle), GW_OK) << gw_last_error();
    return Run(session.handle, fetch);
  }

  const std::string path_ = Path("c.onnx");
  float x_[4] = {1, 0, 1, 1};
  const int64_t sizes_[2] = {2, 2};
  ModelHandle model_;
  TensorHandle tensor_;
};

TEST_F(COnnx, AModelThatIsSavedAndLoadedHasTheSameNamesAndSizesAndResults) {
  ASSERT_EQ(gw_model_save_onnx(model_.handle, nullptr, 0, path_.c_str()), GW_OK) << gw_last_error();
  const std::string bytes = Bytes(path_);
  ModelHandle from_file, from_memory;
  ASSERT_EQ(gw_model_load(path_.c_str(), nullptr, &from_file.handle), GW_OK) << gw_last_error();
  ASSERT_EQ(gw_model_load_bytes(bytes.data(), bytes.size(), nullptr, &from_memory.handle), GW_OK) << gw_last_error();
  for (const gw_model* model : {from_file.handle, from_memory.handle}) {
    EXPECT_EQ(Described(model, GW_INPUT), "x float32 batch=-1 2=2\n");
    EXPECT_EQ(Described(model, GW_OUTPUT),
              "both:0 float32 batch=-1 1=1\nboth:1 float32 batch=-1 2=2\nloss float32\ny float32 batch=-1 1=1\n");
    EXPECT_THAT(Described(model, GW_VARIABLE), HasSubstr("w float32 2=2 1=1 trainable\n"));
    EXPECT_THAT(Run(model, "y"), ElementsAre(2, 5));
    EXPECT_THAT(Run(model, "both:1"), ElementsAre(2, 1, 2, 2));
  }
}

TEST_F(COnnx, AnImportedModelHasGradientsAndIsSavedAsAGradweaveModel) {
  const char* const outputs[] = {"loss"};
  ASSERT_EQ(gw_model_save_onnx(model_.handle, outputs, 1, path_.c_str()), GW_OK) << gw_last_error();
  ModelHandle imported, saved;
  ASSERT_EQ(gw_model_load(path_.c_str(), nullptr, &imported.handle), GW_OK) << gw_last_error();
  const char* const wrt[] = {"x", "w"};
  ASSERT_EQ(gw_model_add_gradients(imported.handle, "loss", wrt, 2, "grad/"), GW_OK) << gw_last_error();
  ASSERT_EQ(gw_model_save(imported.handle, Path("c_imported.gw").c_str()), GW_OK) << gw_last_error();
  ASSERT_EQ(gw_model_load(Path("c_imported.gw").c_str(), nullptr, &saved.handle), GW_OK) << gw_last_error();
  EXPECT_THAT(Run(saved.handle, "grad/x"), ElementsAre(8, 12, 20, 30));  // 2 y w'.
  EXPECT_THAT(Run(saved.handle, "grad/w"), ElementsAre(14, 10));         // 2 x' y.
}

TEST_F(COnnx, ASessionSavesItsPresentValuesAndAnUpdateGivesNewOnes) {
  SessionHandle session;
  ASSERT_EQ(gw_session_create(model_.handle, nullptr, &session.handle), GW_OK) << gw_last_error();
  const char* const step = "step";
  gw_tensor* none = nullptr;
  ASSERT_EQ(gw_session_run(session.handle, nullptr, 0, &step, 1, &none), GW_OK) << gw_last_error();
  const char* const outputs[] = {"y", "step"};
  ASSERT_EQ(gw_session_save_onnx(session.handle, outputs, 2, path_.c_str()), GW_OK) << gw_last_error();
  ModelHandle imported;
  ASSERT_EQ(gw_model_load(path_.c_str(), nullptr, &imported.handle), GW_OK) << gw_last_error();
  EXPECT_THAT(Run(imported.handle, "y"), ElementsAre(3, 7));
  EXPECT_THAT(Run(imported.handle, "step/w"), ElementsAre(4, 5));
}

// A file whose graph depends on the value of an input, and one that leaves a shape out.
TEST_F(COnnx, OptionsGiveValuesAndShapesOfInputs) {
  onnx::proto::Model file = onnx::EmptyModel();
  onnx::SetType(*file.mutable_graph()->add_input(), "x", {2, 2});
  onnx::SetType(*file.mutable_graph()->add_input(), "shape", {1}, 7);
  onnx::AddNode(file, "Reshape", {"x", "shape"}, {"y"});
  onnx::SetType(*file.mutable_graph()->add_output(), "y", {4});
  std::string bytes = file.SerializeAsString();
  ModelHandle model;
  EXPECT_EQ(gw_model_load_bytes(bytes.data(), bytes.size(), nullptr, &model.handle), GW_FAILED_PRECONDITION);
  EXPECT_THAT(gw_last_error(), HasSubstr("depends on the input 'shape'; ImportOptions::fixed"));

  int64_t four = 4;
  const int64_t one = 1;
  TensorHandle shape;
  ASSERT_EQ(gw_tensor_view(GW_INT64, 1, &one, &four, nullptr, nullptr, &shape.handle), GW_OK);
  const gw_feed fixed = {"shape", shape.handle};
  gw_load_options options = {};
  options.fixed = &fixed;
  options.num_fixed = 1;
  ASSERT_EQ(gw_model_load_bytes(bytes.data(), bytes.size(), &options, &model.handle), GW_OK) << gw_last_error();
  four = 0;  // The model has a copy.
  EXPECT_EQ(Described(model.handle, GW_INPUT), "x float32 2=2 2=2\n");
  EXPECT_THAT(Run(model.handle, "y"), ElementsAre(1, 0, 1, 1));

  file.mutable_graph()->mutable_input(0)->mutable_type()->mutable_tensor_type()->clear_shape();
  bytes = file.SerializeAsString();
  model.Reset();
  EXPECT_EQ(gw_model_load_bytes(bytes.data(), bytes.size(), &options, &model.handle), GW_INVALID_ARGUMENT);
  EXPECT_THAT(gw_last_error(), HasSubstr("ImportOptions::shapes"));
  four = 4;
  const gw_shape shapes = {"x", 2, sizes_};
  options.shapes = &shapes;
  options.num_shapes = 1;
  ASSERT_EQ(gw_model_load_bytes(bytes.data(), bytes.size(), &options, &model.handle), GW_OK) << gw_last_error();
  EXPECT_THAT(Run(model.handle, "y"), ElementsAre(1, 0, 1, 1));
}

}  // namespace
}  // namespace gradweave
