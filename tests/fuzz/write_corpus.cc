// Writes the first files of the corpus of each fuzz target.
//
//   bazel run //tests/fuzz:write_corpus -- $PWD/tests/fuzz/corpus
//
// Files there that it does not write are inputs that had findings; their names say what they did.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "gradweave/frontend/image.h"
#include "gradweave/gradweave.h"
#include "gradweave/proto/model.pb.h"
#include "tests/fuzz/onnx_seeds.h"

namespace gradweave {
namespace {

std::string folder;

std::string PathOf(const std::string& name) {
  const std::string path = folder + "/" + name;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  return path;
}

std::string Read(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

void Write(const std::string& name, const std::string& bytes) {
  if (!(std::ofstream(PathOf(name), std::ios::binary) << bytes)) {
    std::cerr << name << ": cannot be written\n";
    std::exit(1);
  }
}

// Writes the message of a model file, without its checksum, which the target adds.
void WriteModel(const std::string& name, const Graph& graph) {
  const absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  const std::string path = PathOf("model/" + name);
  proto::Model model;
  if (!session.ok() || !SaveModel(*session, path).ok() || !model.ParseFromString(Read(path))) {
    std::cerr << name << ": " << session.status() << "\n";
    std::exit(1);
  }
  model.clear_crc32();
  Write("model/" + name, model.SerializeAsString());
}

Value Parameter(Scope& scope, const std::string& name, const Shape& shape) {
  return scope.Variable(name, RandomUniform(scope, shape, -0.5, 0.5));
}

void SetTraining(Graph& graph, const Value& loss, const std::vector<Value>& variables) {
  const std::vector<Value> gradients = Gradients({loss}, variables);
  std::vector<Value> updates;
  for (size_t i = 0; i < variables.size(); ++i) updates.push_back(Assign(variables[i], variables[i] - gradients[i]));
  graph.SetOutput("loss", {loss});
  graph.SetOutput("update", updates);
}

void WriteModels() {
  {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("n"), 2, 6, 5}), label = scope.Input("label", kInt32, {Dim("n")});
    const Value filter = Parameter(scope, "filter", {3, 2, 3, 3}), weights = Parameter(scope, "weights", {12, 3});
    const Value pooled = MaxPool2D(Relu(Conv2D(x, filter, {.padding = {1, 1}})), {.window = {3, 2}});
    const Value logits = MatMul(Flatten(pooled), weights);
    SetTraining(graph, Mean(SparseSoftmaxCrossEntropy(logits, label)), {filter, weights});
    WriteModel("convolution.gw", graph);
  }
  {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("n"), Dim("words"), 4});
    const Value scores = Softmax(MatMul(x, x, {.transpose_b = true}) * 0.5);
    const Value scale = scope.Variable("scale", scope.Full(1, {4})),
                offset = scope.Variable("offset", scope.Full(0, {4}));
    const Value y = LayerNorm(MatMul(scores, x) + x, scale, offset);
    graph.SetOutput("y", {y, ArgMax(y), LogSumExp(y)});
    SetTraining(graph, Sum(Square(y)), {scale, offset});
    WriteModel("attention.gw", graph);
  }
  {
    Graph graph;
    Scope scope(graph);
    const Value image = scope.Input("image", kFloat64, {1, 2, Dim("h"), Dim("w")});
    const Value i = scope.Input("i", kInt64, {Dim("k")}), flag = scope.Input("flag", kBool, {});
    const Value pooled = AvgPool2D(image, {.window = {2, 2}, .padding = {1, 0}});
    const Value rows = Transpose(Reverse(image, {1}), {1, 0, 2, 3});
    const Value table = scope.Constant(Tensor::Of<double>({3, 2}, {1, 2, 3, 4, 5, 6}));
    const Value gathered = Gather(table, i);
    graph.SetOutput("pooled", {pooled, SliceAxis(rows, 0, 0, 1), Concat({image, image}, 3)});
    graph.SetOutput("gathered",
                    {gathered, Where(flag, gathered, -gathered), OneHot(i, 3), Max(gathered, {.axes = {1}})});
    graph.SetOutput("padded", {Pad(gathered, {.low = {Dim(1), Dim(0)}, .high = {Dim(0), Dim(2)}, .value = 1}),
                               ScatterAdd(table, i, gathered)});
    WriteModel("shapes.gw", graph);
  }
  {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("n"), 3});
    const Value counter = scope.Variable("counter", scope.Constant(Tensor::Scalar<int32_t>(0)), {.trainable = false});
    const Value noise = RandomNormal(scope, {Dim("n"), 3});
    graph.SetOutput("y", {Dropout(x + noise, 0.5), Cast(counter, kFloat64), Pow(Abs(x), 1.5)});
    graph.SetOutput("count", {Assign(counter, counter + 1)});
    WriteModel("random.gw", graph);
  }
}

void WriteData() {
  const std::string idx({0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6});
  Write("idx/plain", std::string(1, '\0') + idx);
  Write("idx/compressed", std::string(1, '\1') + idx);

  GrayImage image(5, 4);
  for (int64_t i = 0; i < 20; ++i) image.pixels[i] = static_cast<uint8_t>(i * 12);
  if (!WritePng(PathOf("png/gray.png"), image).ok()) std::exit(1);

  const Tensor array = Tensor::Of<float>({2, 3}, {1, 2, 3, 4, 5, 6});
  const std::string npy = PathOf("npy/made"), npz = npy + "z";
  if (!data::WriteNpy(npy, array).ok() || !data::WriteNpz(npz, {{"x", array}, {"y", array}}, true).ok()) std::exit(1);
  const std::string bytes = Read(npy), archive = Read(npz);
  std::filesystem::remove(npy);
  std::filesystem::remove(npz);
  Write("npy/array", std::string(1, '\0') + bytes);
  Write("npy/archive", std::string(1, '\1') + archive);
  Write("npy/stored", std::string(1, '\2') + bytes);
  Write("npy/compressed", std::string(1, '\3') + bytes);

  const std::string arrays = PathOf("safetensors/made");
  if (!data::WriteSafetensors(arrays, {{"x", array}, {"y", array.Cast(kFloat16)}}).ok()) std::exit(1);
  const std::string file = Read(arrays);
  std::filesystem::remove(arrays);
  Write("safetensors/file", std::string(1, '\0') + file);
  Write("safetensors/halves", std::string(1, '\2') + file);
  Write("safetensors/header",
        "\1{\"__metadata__\":{\"by\":\"hand\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,4],\"data_offsets\":[0,32]},"
        "\"b \\u00e9\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[32,40]},"
        "\"c\":{\"dtype\":\"BF16\",\"shape\":[12],\"data_offsets\":[40,64]}}");

  // The first byte chooses the options, the second the separator.
  Write("csv/header", std::string("\1\0", 2) + "a,b,\"c d\"\r\n1,2.5,x\r\n-3e2,,\"y \"\"z\"\"\"\r\n");
  Write("csv/numbers", std::string("\xce\1", 2) + "1;2;NA\n 3 ;4;?\n");

  Write("dim/sum", "64*batch + 3\nfloor((height - 3)/2) + 1");
  Write("dim/nested", "floor((floor((n + 1)/2)*m - 7)/3)\n2*n*m");
  Write("dim/numbers", "9223372036854775807\n-1");
}

// Bytes for choices: the same ones in every run.
void WriteChoices() {
  for (const auto& [target, files, bytes] :
       {std::tuple{"weights", 2, 300}, std::tuple{"builder", 4, 250}, std::tuple{"differential", 6, 120}}) {
    for (int file = 0; file < files; ++file) {
      std::mt19937 random(file);
      std::string text;
      for (int i = 0; i < bytes; ++i) text.push_back(static_cast<char>(random()));
      Write(std::string(target) + "/choices_" + std::to_string(file), text);
    }
  }
  Write("weights/right", std::string(300, '\0'));
}

}  // namespace
}  // namespace gradweave

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "the argument is the folder of the corpus\n";
    return 1;
  }
  gradweave::folder = argv[1];
  gradweave::WriteModels();
  gradweave::WriteData();
  gradweave::WriteChoices();
  for (const auto& [name, bytes] : gradweave::fuzz::OnnxSeeds()) gradweave::Write("onnx/" + name, bytes);
  return 0;
}
