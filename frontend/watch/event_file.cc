#include "gradweave/frontend/watch/event_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/proto/tensorboard.pb.h"

namespace gradweave {
namespace {

double Now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table = {};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
    table[i] = crc;
  }
  return table;
}

std::string LittleEndian(uint64_t number, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(number >> (8 * i) & 0xff);
  return text;
}

uint32_t MaskedCrc(absl::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

// Calls the function with each finite element.
template <typename Function>
void ForEachFinite(const Tensor& values, Function function) {
  constexpr int64_t kBlock = 1 << 16;
  const Tensor flat = values.Reshaped({values.num_elements()});
  for (int64_t begin = 0; begin < flat.size(0); begin += kBlock) {
    for (const double element : flat.Rows(begin, std::min(begin + kBlock, flat.size(0))).ToDoubles()) {
      if (std::isfinite(element)) function(element);
    }
  }
}

void FillHistogram(const Tensor& values, tensorboard::Histogram& histogram) {
  constexpr int kBuckets = 64;
  double low = std::numeric_limits<double>::infinity(), high = -low, sum = 0, squares = 0;
  int64_t count = 0;
  ForEachFinite(values, [&](double element) {
    low = std::min(low, element);
    high = std::max(high, element);
    sum += element;
    squares += element * element;
    ++count;
  });
  if (count == 0) return;
  histogram.set_min(low);
  histogram.set_max(high);
  histogram.set_num(static_cast<double>(count));
  histogram.set_sum(sum);
  histogram.set_sum_squares(squares);
  // Half the range is finite even if the range is not.
  const double half = high / 2 - low / 2;
  const int buckets = half > 0 ? kBuckets : 1;
  std::vector<int64_t> counts(buckets);
  ForEachFinite(values, [&](double element) {
    const double part = half > 0 ? (element / 2 - low / 2) / half : 0;
    ++counts[std::min(static_cast<int>(part * buckets), buckets - 1)];
  });
  for (int i = 0; i < buckets; ++i) {
    histogram.add_bucket_limit(i + 1 == buckets ? high : low + half * (2.0 * (i + 1) / buckets));
    histogram.add_bucket(static_cast<double>(counts[i]));
  }
}

// Returns an event with the current time.
tensorboard::Event EventOf(int64_t step) {
  tensorboard::Event event;
  event.set_wall_time(Now());
  event.set_step(step);
  return event;
}

// Adds a value of this name to the event, and returns it.
tensorboard::Summary::Value& AddValue(absl::string_view name, tensorboard::Event& event) {
  tensorboard::Summary::Value& value = *event.mutable_summary()->add_value();
  value.set_tag(PrintableText(name));
  return value;
}

}  // namespace

uint32_t Crc32c(absl::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = MakeCrcTable();
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = kTable[(crc ^ static_cast<unsigned char>(byte)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

std::string FramedRecord(absl::string_view bytes) {
  const std::string length = LittleEndian(bytes.size(), 8);
  return absl::StrCat(length, LittleEndian(MaskedCrc(length), 4), bytes, LittleEndian(MaskedCrc(bytes), 4));
}

absl::StatusOr<EventWriter> EventWriter::Open(const std::string& dir) try {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) {
    return absl::ErrnoToStatus(error.value(), absl::StrCat(dir, ": the folder of the events cannot be made"));
  }
  char host[256] = "host";
  (void)gethostname(host, sizeof host - 1);  // Without a name it stays "host".
  // TensorBoard reads the files of a folder in the order of their names. A process may open two in
  // a second.
  static std::atomic<int> files = 0;
  const std::string path = absl::StrFormat("%s/events.out.tfevents.%010d.%s.%d.%d", dir, static_cast<int64_t>(Now()),
                                           host, getpid(), files++);
  FILE* const stream = std::fopen(path.c_str(), "wbxe");
  if (stream == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": the file cannot be written"));
  EventWriter writer(path, stream);
  tensorboard::Event event = EventOf(0);
  event.set_file_version("brain.Event:2");
  GW_RETURN_IF_ERROR(writer.AddRecord(event.SerializeAsString()));
  GW_RETURN_IF_ERROR(writer.Flush());
  return writer;
}
GW_CATCH_OUT_OF_MEMORY("EventWriter::Open")

absl::Status EventWriter::AddStart(int64_t step) try {
  tensorboard::Event event = EventOf(step);
  event.mutable_session_log()->set_status(tensorboard::SessionLog::START);
  return AddRecord(event.SerializeAsString());
}
GW_CATCH_OUT_OF_MEMORY("EventWriter::AddStart")

absl::Status EventWriter::AddScalar(absl::string_view name, int64_t step, double number) try {
  tensorboard::Event event = EventOf(step);
  AddValue(name, event).set_simple_value(static_cast<float>(number));
  return AddRecord(event.SerializeAsString());
}
GW_CATCH_OUT_OF_MEMORY("EventWriter::AddScalar")

absl::Status EventWriter::AddHistogram(absl::string_view name, int64_t step, const Tensor& values) try {
  tensorboard::Event event = EventOf(step);
  FillHistogram(values, *AddValue(name, event).mutable_histo());
  return AddRecord(event.SerializeAsString());
}
GW_CATCH_OUT_OF_MEMORY("EventWriter::AddHistogram")

absl::Status EventWriter::AddImage(absl::string_view name, int64_t step, const Image& image) try {
  GW_ASSIGN_OR_RETURN(std::string png, EncodePng(image));
  tensorboard::Event event = EventOf(step);
  tensorboard::Summary::Image& message = *AddValue(name, event).mutable_image();
  message.set_height(static_cast<int32_t>(image.height));
  message.set_width(static_cast<int32_t>(image.width));
  message.set_colorspace(static_cast<int32_t>(image.channels));
  message.set_encoded_image_string(std::move(png));
  return AddRecord(event.SerializeAsString());
}
GW_CATCH_OUT_OF_MEMORY("EventWriter::AddImage")

absl::Status EventWriter::AddGraph(const Graph& graph) try {
  tensorboard::Event event = EventOf(0);
  event.set_graph_def(GraphDefOf(graph));
  return AddRecord(event.SerializeAsString());
}
GW_CATCH_OUT_OF_MEMORY("EventWriter::AddGraph")

absl::Status EventWriter::AddRecord(absl::string_view bytes) {
  const std::string record = FramedRecord(bytes);
  if (std::fwrite(record.data(), 1, record.size(), stream_.get()) == record.size()) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": the file cannot be written"));
}

absl::Status EventWriter::Flush() {
  if (std::fflush(stream_.get()) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": the file cannot be written"));
}

}  // namespace gradweave
