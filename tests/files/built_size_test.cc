// A model file that is small and builds something large is refused before it is built.
#include <sys/resource.h>
#include <zlib.h>

#include <chrono>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/proto/model.pb.h"
#include "gradweave/runtime/model_file/graph_file.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMega = 1 << 20;

std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

// A field of a message that is a message or bytes itself.
std::string Field(int number, const std::string& contents) {
  return Varint(static_cast<uint64_t>(number) << 3 | 2) + Varint(contents.size()) + contents;
}

std::string Repeated(const std::string& text, int64_t bytes) {
  std::string result;
  result.reserve(bytes + text.size());
  while (static_cast<int64_t>(result.size()) < bytes) result += text;
  return result;
}

// Graph.nodes, Node.attributes and so on by their numbers in proto/model.proto.
std::string Node(const std::string& contents) { return Field(1, contents); }
std::string Op(const std::string& name) { return Field(1, name) + "\x10\x01"; }
std::string Attribute(const std::string& name, int kind, const std::string& value) {
  return Field(3, Field(1, name) + Field(kind, value));
}

// Writes a model whose graph is this message, with a right checksum.
void Write(const std::string& graph, const std::string& path, const proto::Model& model = {}) {
  proto::Model head = model;
  head.set_magic("gradweave model");
  head.set_format_version(2);
  head.set_complete(true);
  std::string bytes = head.SerializeAsString() + Field(4, graph);
  const auto checksum = static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
  bytes += "\x85\x01";
  bytes.append(reinterpret_cast<const char*>(&checksum), 4);
  std::ofstream(path, std::ios::binary) << bytes;
}

int64_t PeakBytes() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{1024} * usage.ru_maxrss;
}

struct Bomb {
  const char* name;
  std::string graph;
};

// Each builds many times its size.
std::vector<Bomb> Bombs() {
  constexpr int64_t kBytes = 4 * kMega;
  const std::string dims(Repeated(Field(1, "1"), 255 * 3));
  const std::string input =
      Node(Op("Input") + Field(5, "x") + Attribute("dtype", 7, "float32") + Attribute("shape", 8, dims));
  const std::string symbols = Node(Op("Input") + Field(5, "x") + Attribute("dtype", 7, "float32") +
                                   Attribute("shape", 8, Repeated(Field(1, "n"), 255 * 3)));
  return {
      {"empty nodes", Repeated(Node(""), kBytes)},
      {"nodes of names", Repeated(Node(Field(5, "")), kBytes)},
      {"attributes", Node(Op("Sin") + Repeated(Field(3, ""), kBytes))},
      {"operands", Node(Op("Concat") + Repeated(Field(4, ""), kBytes))},
      {"integers", Node(Op("Sum") + Attribute("axes", 6, Field(1, std::string(kBytes, '\1'))))},
      {"single integers", Node(Op("Sum") + Attribute("axes", 6, Repeated("\x08\x01", kBytes)))},
      {"dimensions", Node(Op("Input") + Attribute("shape", 8, Repeated(Field(1, "n"), kBytes)))},
      {"sizes", Node(Op("Constant") + Attribute("value", 9, Field(2, std::string(kBytes, '\1'))))},
      {"outputs", Repeated(Field(2, ""), kBytes)},
      {"ports of outputs", Field(2, Repeated(Field(2, ""), kBytes))},
      {"graphs in attributes", Repeated(Node(Field(3, Field(10, ""))), kBytes)},
      {"nodes with tags of 33 bits", Repeated(Varint(uint64_t{1} << 32 | 10) + Varint(0), kBytes)},
      {"unknown fields", Repeated("\xF8\x07\x01", kBytes)},
      {"unknown groups", Repeated("\xFB\x07\xFC\x07", kBytes)},
      {"axes of many nodes", input + Repeated(Node(Op("Sin") + Field(4, "")), kBytes)},
      {"symbols of many nodes", symbols + Repeated(Node(Op("Sin") + Field(4, "")), kBytes)},
  };
}

TEST(ModelsThatBuildMoreThanTheyHave, AreRefusedBeforeTheyAreBuilt) {
  const std::string path = ::testing::TempDir() + "/bomb";
  for (const Bomb& bomb : Bombs()) {
    SCOPED_TRACE(bomb.name);
    Write(bomb.graph, path);
    const int64_t peak = PeakBytes();
    const auto start = std::chrono::steady_clock::now();
    const absl::Status status = LoadModel(path, {.memory_limit = 64 * kMega}).status();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
    EXPECT_LT(PeakBytes() - peak, 80 * kMega);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("bomb: the model takes more memory than the limit of 67108864 bytes"));
    EXPECT_EQ(GraphFromBytes(bomb.graph, CoreOps(), 64 * kMega).status().code(), absl::StatusCode::kResourceExhausted);
  }
}

TEST(ModelsThatBuildMoreThanTheyHave, AreReplacedWithoutBeingBuilt) {
  const std::string path = ::testing::TempDir() + "/replaced";
  Write(Repeated(Node(""), 32 * kMega), path);
  Graph graph;
  Scope scope(graph);
  scope.Input("x", kFloat32, {2});
  const absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const int64_t peak = PeakBytes();
  EXPECT_TRUE(SaveModel(*session, path).ok());
  EXPECT_LT(PeakBytes() - peak, 80 * kMega);
  EXPECT_TRUE(LoadModel(path).ok());
}

// Constants that share a place of the weights file become tensors of their own.
TEST(ModelsThatBuildMoreThanTheyHave, MayNotCopyTheWeightsWithoutEnd) {
  const std::string path = ::testing::TempDir() + "/weights";
  std::string weights(kMega, '\0');
  std::ofstream(path + ".weights", std::ios::binary) << weights;
  proto::Model model;
  model.set_weights_file("weights.weights");
  model.set_weights_length(weights.size());
  model.set_weights_crc32(
      static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(weights.data()), weights.size())));
  proto::Tensor place;
  place.set_dtype("uint8");
  place.add_sizes(kMega);
  place.set_length(kMega);
  const std::string node = Node(Op("Constant") + Attribute("value", 9, place.SerializeAsString()));
  Write(Repeated(node, 200 * static_cast<int64_t>(node.size())), path, model);
  EXPECT_TRUE(LoadModel(path).ok()) << LoadModel(path).status();
  EXPECT_THAT(std::string(LoadModel(path, {.memory_limit = 64 * kMega}).status().message()),
              HasSubstr("takes more memory than the limit of 67108864 bytes"));
}

// The estimate is near enough to the truth that usual models load with limits of a few times their
// size.
TEST(ModelsThatBuildMoreThanTheyHave, AreFewerThanUsualOnes) {
  const std::string path = ::testing::TempDir() + "/usual";
  Graph graph;
  Scope scope(graph);
  Value x = scope.Input("x", kFloat32, {Dim("batch"), 100});
  for (int i = 0; i < 50; ++i) {
    const Value w = scope.Variable("w" + std::to_string(i), scope.Constant(Tensor(kFloat32, {100, 100})));
    x = Relu(MatMul(x, w));
  }
  const absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  // The initial values and the variables have 2 MB each.
  ASSERT_TRUE(SaveModel(*session, path, {.inline_limit = 8 * kMega}).ok());
  EXPECT_TRUE(LoadModel(path, {.memory_limit = 16 * kMega}).ok())
      << LoadModel(path, {.memory_limit = 16 * kMega}).status();
  EXPECT_FALSE(LoadModel(path, {.memory_limit = 5 * kMega}).ok());
  ASSERT_TRUE(SaveModel(*session, path, {.inline_limit = 0}).ok());
  EXPECT_TRUE(LoadModel(path, {.memory_limit = 8 * kMega}).ok())
      << LoadModel(path, {.memory_limit = 8 * kMega}).status();
}

}  // namespace
}  // namespace gradweave
