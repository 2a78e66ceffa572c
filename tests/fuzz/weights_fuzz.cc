// Weights files: the first bytes of an input say what the model file claims of two variables and a
// constant, the others are the contents of the weights file.
#include <zlib.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/proto/model.pb.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "gradweave/runtime/model_file/graph_file.h"
#include "tests/files/model_bytes.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

constexpr int64_t kElements = 16;

proto::Model MakeModel() {
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Variable("a", scope.Constant(Tensor(kFloat32, {kElements})));
  const Value b = scope.Variable("b", scope.Constant(Tensor(kBool, {kElements})));
  graph.SetOutput("y", {Sum(a) + scope.Constant(Tensor(kFloat32, {kElements})), LogicalNot(b)});
  GW_CHECK(graph.status().ok());
  const absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  GW_CHECK(session.ok());
  proto::Model model;
  model.set_magic("gradweave model");
  model.set_format_version(2);
  model.set_complete(true);
  WriteGraph(graph, false, nullptr, *model.mutable_graph());
  for (const std::string& name : session->VariableNames()) {
    proto::Variable& variable = *model.add_variables();
    variable.set_name(name);
    WriteTensor(*session->GetVariable(name), nullptr, *variable.mutable_value());
  }
  return model;
}

// Changes what a tensor says of its place. A choice of 0 leaves a right value.
void Place(ByteReader& bytes, proto::Tensor& tensor, uint64_t offset, uint64_t length) {
  auto choose = [&](uint64_t right) {
    const int64_t choice = bytes.Below(6);
    return choice < 3 ? right : choice == 3 ? right + 64 : static_cast<uint64_t>(bytes.Number());
  };
  tensor.clear_data();
  tensor.set_offset(choose(offset));
  tensor.set_length(choose(length));
  if (bytes.Below(8) == 7) tensor.set_sizes(0, bytes.Number());
  if (bytes.Below(16) == 15) tensor.set_data("x");
}

void Run(ByteReader bytes) {
  static const auto* const kModel = new proto::Model(MakeModel());
  proto::Model model = *kModel;
  const int64_t version = bytes.Below(4) == 3 ? 1 : 2;
  model.set_format_version(version);
  Place(bytes, *model.mutable_variables(0)->mutable_value(), 0, kElements * 4);
  Place(bytes, *model.mutable_variables(1)->mutable_value(), 64, kElements);
  for (proto::Node& node : *model.mutable_graph()->mutable_nodes()) {
    if (node.op() == "Constant" && bytes.Flag()) {
      Place(bytes, *node.mutable_attributes(0)->mutable_tensor(), 128, kElements * 4);
    }
  }
  const int64_t claim = bytes.Below(8);
  const bool map = bytes.Flag();
  std::string weights(bytes.Rest());
  if (weights.size() < 256 && claim % 2 == 0) weights.resize(256);
  const uint32_t checksum = static_cast<uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(weights.data()), static_cast<uInt>(weights.size())));
  if (version == 1) {
    for (proto::Variable& variable : *model.mutable_variables()) {
      variable.set_offset(variable.value().offset());
      variable.set_length(variable.value().length());
      const uint64_t offset = std::min<uint64_t>(variable.offset(), weights.size());
      const uint64_t length = std::min<uint64_t>(variable.length(), weights.size() - offset);
      variable.set_crc32(static_cast<uint32_t>(
          crc32(0, reinterpret_cast<const Bytef*>(weights.data() + offset), static_cast<uInt>(length))));
    }
  }
  model.set_weights_file("model.weights");
  model.set_weights_length(claim == 6 ? weights.size() + 1 : weights.size());
  model.set_weights_crc32(claim == 7 ? checksum + 1 : checksum);
  ScratchFile("model.weights", weights);
  const std::string path = ScratchFile("model.gw", FileOf(model));
  const absl::StatusOr<Model> loaded = LoadModel(path, {.memory_limit = 1 << 16, .map_weights = map});
  CheckMessage(loaded.status());
  if (!loaded.ok()) return;
  GW_CHECK(claim < 6 || version == 1, "a wrong length or checksum was not noticed");
  absl::StatusOr<Session> session = CreateSession(*loaded, {.threads = 1});
  GW_CHECK(session.ok(), session.status().ToString());
  Graph graph = session->graph();
  const absl::StatusOr<std::vector<Tensor>> results = session->Run({}, {graph.Output("y")[0], graph.Output("y")[1]});
  GW_CHECK(results.ok(), results.status().ToString());
}

}  // namespace
}  // namespace gradweave::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gradweave::fuzz::Run(gradweave::fuzz::ByteReader(data, size));
  return 0;
}
