// Event files: framing, checksums and messages.
#include "gradweave/frontend/watch/event_file.h"

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/scope.h"
#include "gtest/gtest.h"
#include "tests/watch/read_events.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string NewFolder(const std::string& name) {
  const std::string folder = ::testing::TempDir() + "/" + name;
  std::filesystem::remove_all(folder);
  return folder;
}

// The examples of RFC 3720, section B.4, and the check value of the CRC catalogue.
TEST(Crc32c, IsThatOfTheRfc) {
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string ascending;
  for (char i = 0; i < 32; ++i) ascending += i;
  EXPECT_EQ(Crc32c(ascending), 0x46dd794eu);
}

// The first record that PyPI's tensorboard 2.21 writes for the bytes "abc", as hexadecimal digits
// of tensorboard.summary.writer.record_writer.RecordWriter.
TEST(FramedRecord, HasTheBytesOfTensorBoardsWriter) {
  std::string hex;
  for (const char byte : FramedRecord("abc")) {
    constexpr char kDigits[] = "0123456789abcdef";
    hex += kDigits[static_cast<unsigned char>(byte) >> 4];
    hex += kDigits[byte & 15];
  }
  EXPECT_EQ(hex, "0300000000000000b099490e6162636e57f121");
}

TEST(EventWriter, WritesEveryKind) {
  const std::string folder = NewFolder("kinds/of/events");
  absl::StatusOr<EventWriter> events = EventWriter::Open(folder);
  ASSERT_TRUE(events.ok()) << events.status();
  EXPECT_THAT(events->path(), StartsWith(folder + "/events.out.tfevents."));
  const double infinity = std::numeric_limits<double>::infinity();
  ASSERT_TRUE(events->AddStart(3).ok());
  ASSERT_TRUE(events->AddScalar("loss/train", 3, 0.25).ok());
  ASSERT_TRUE(events->AddHistogram("h", 4, Tensor::Of<double>({2, 3}, {0, 64, 1.5, infinity, -infinity, 32})).ok());
  ASSERT_TRUE(events->AddHistogram("same", 4, Tensor::Of<int32_t>({3}, {7, 7, 7})).ok());
  ASSERT_TRUE(events->AddHistogram("none", 4, Tensor(kFloat32, {0})).ok());
  ASSERT_TRUE(
      events->AddImage("picture", 5, {.width = 2, .height = 1, .channels = 3, .pixels = {1, 2, 3, 4, 5, 6}}).ok());
  ASSERT_TRUE(events->Flush().ok());

  const std::vector<tensorboard::Event> read = ReadEvents(events->path());
  ASSERT_EQ(read.size(), 7u);
  EXPECT_EQ(read[0].file_version(), "brain.Event:2");
  EXPECT_GT(read[0].wall_time(), 1.7e9);
  EXPECT_EQ(read[1].session_log().status(), tensorboard::SessionLog::START);
  EXPECT_EQ(read[1].step(), 3);
  EXPECT_EQ(read[2].step(), 3);
  EXPECT_EQ(read[2].summary().value(0).tag(), "loss/train");
  EXPECT_EQ(read[2].summary().value(0).simple_value(), 0.25f);

  const tensorboard::Histogram& histogram = read[3].summary().value(0).histo();
  EXPECT_THAT(std::vector<double>(
                  {histogram.min(), histogram.max(), histogram.num(), histogram.sum(), histogram.sum_squares()}),
              ElementsAre(0, 64, 4, 97.5, 64 * 64 + 32 * 32 + 1.5 * 1.5));
  ASSERT_EQ(histogram.bucket_size(), 64);
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(histogram.bucket_limit(i), i + 1);
    EXPECT_EQ(histogram.bucket(i), i == 0 || i == 1 || i == 32 || i == 63 ? 1 : 0) << i;
  }
  EXPECT_THAT(read[4].summary().value(0).histo().bucket(), ElementsAre(3));
  EXPECT_THAT(read[4].summary().value(0).histo().bucket_limit(), ElementsAre(7));
  EXPECT_EQ(read[5].summary().value(0).histo().num(), 0);

  const tensorboard::Summary::Image& image = read[6].summary().value(0).image();
  EXPECT_EQ(image.width(), 2);
  EXPECT_EQ(image.height(), 1);
  EXPECT_EQ(image.colorspace(), 3);
  EXPECT_THAT(image.encoded_image_string(), StartsWith("\x89PNG\r\n"));
}

// A range beyond the largest number is cut into buckets, too.
TEST(EventWriter, CutsTheWidestRange) {
  absl::StatusOr<EventWriter> events = EventWriter::Open(NewFolder("wide"));
  ASSERT_TRUE(events.ok()) << events.status();
  constexpr double kMost = std::numeric_limits<double>::max();
  ASSERT_TRUE(events->AddHistogram("wide", 0, Tensor::Of<double>({2}, {-kMost, kMost})).ok());
  ASSERT_TRUE(events->Flush().ok());
  const tensorboard::Histogram histogram = ReadEvents(events->path())[1].summary().value(0).histo();
  EXPECT_EQ(histogram.bucket(0), 1);
  EXPECT_EQ(histogram.bucket(63), 1);
  EXPECT_EQ(histogram.bucket_limit(31), 0);
  EXPECT_EQ(histogram.bucket_limit(63), kMost);
}

TEST(EventWriter, WritesTheGraph) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 3});
  const Value y = nn::Sequential{nn::Dense{2}}(scope, x);
  graph.SetOutput("y", {Relu(y)});
  absl::StatusOr<EventWriter> events = EventWriter::Open(NewFolder("graph"));
  ASSERT_TRUE(events.ok()) << events.status();
  ASSERT_TRUE(events->AddGraph(graph).ok());
  ASSERT_TRUE(events->Flush().ok());
  tensorboard::GraphDef message;
  ASSERT_TRUE(message.ParseFromString(ReadEvents(events->path())[1].graph_def()));
  std::map<std::string, tensorboard::NodeDef> nodes;
  std::map<std::string, int> ops;
  for (const tensorboard::NodeDef& node : message.node()) {
    EXPECT_TRUE(nodes.emplace(node.name(), node).second) << "two nodes have the name " << node.name();
    ++ops[node.op()];
    for (const std::string& input : node.input()) EXPECT_EQ(nodes.count(input), 1u) << input << " comes later";
  }
  // The product, the sum and the activation, and no random number of an initial value.
  EXPECT_EQ(ops["MatMul"], 1);
  EXPECT_EQ(ops["Relu"], 1);
  EXPECT_EQ(ops["Variable"], 2);
  EXPECT_EQ(ops["RandomUniform"] + ops["RandomNormal"], 0);
  ASSERT_EQ(nodes.count("x"), 1u);
  EXPECT_EQ(nodes["x"].attr().at("type").s(), "float32[batch,3]");
  const tensorboard::Shape& shape = nodes["x"].attr().at("_output_shapes").list().shape(0);
  ASSERT_EQ(shape.dim_size(), 2);
  EXPECT_EQ(shape.dim(0).size(), -1);
  EXPECT_EQ(shape.dim(1).size(), 3);
}

TEST(EventWriter, NamesTheFolderThatCannotBeMade) {
  const std::string folder = NewFolder("file");
  std::ofstream(folder) << "x";
  const absl::Status status = EventWriter::Open(folder + "/below").status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder + "/below: the folder of the events cannot be made"));
}

TEST(EventWriter, RefusesImagesWithoutPixels) {
  absl::StatusOr<EventWriter> events = EventWriter::Open(NewFolder("no_pixels"));
  ASSERT_TRUE(events.ok()) << events.status();
  EXPECT_EQ(events->AddImage("none", 0, {.width = 0, .height = 3, .channels = 1}).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gradweave
