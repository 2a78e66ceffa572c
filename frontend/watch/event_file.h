// Event files, which TensorBoard (https://www.tensorflow.org/tensorboard) shows.
#ifndef GRADWEAVE_FRONTEND_WATCH_EVENT_FILE_H_
#define GRADWEAVE_FRONTEND_WATCH_EVENT_FILE_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/frontend/image.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {

// Writes an event file: a sequence of TFRecord records, each with an Event message of
// proto/tensorboard.proto. The file grows record by record, and a reader may follow it. A name such
// as "loss/train" is a tag; TensorBoard shows tags with one part before the slash together.
//
//   GW_ASSIGN_OR_RETURN(gw::EventWriter events, gw::EventWriter::Open("runs/first"));
//   GW_RETURN_IF_ERROR(events.AddScalar("loss/train", 100, 0.25));
//   GW_RETURN_IF_ERROR(events.Flush());
//
// Functions return the system's error with the path if the file cannot be written.
class EventWriter {
 public:
  // Makes the folder if it is missing, and a new file "events.out.tfevents.<time>.<host>.<process>"
  // in it. Returns the system's error with the path.
  static absl::StatusOr<EventWriter> Open(const std::string& dir);

  // Marks that a training begins or continues with this step. TensorBoard then ignores data of this
  // step and later ones in earlier files of the folder.
  absl::Status AddStart(int64_t step);
  // Adds a number, which the file holds as float32.
  absl::Status AddScalar(absl::string_view name, int64_t step, double number);
  // Adds a histogram of the elements in 64 buckets of one width. Elements that are not finite do
  // not count.
  absl::Status AddHistogram(absl::string_view name, int64_t step, const Tensor& values);
  // Adds an image of at least one pixel. Returns the errors of EncodePng.
  absl::Status AddImage(absl::string_view name, int64_t step, const Image& image);
  // Adds the graph: nodes with their scopes, attributes, devices and output shapes. Nodes that only
  // compute initial values of variables are left out. A folder has one graph.
  absl::Status AddGraph(const Graph& graph);

  // Hands all records to the system, so that readers see them.
  absl::Status Flush();

  const std::string& path() const { return path_; }

 private:
  EventWriter(std::string path, FILE* stream) : path_(std::move(path)), stream_(stream, std::fclose) {}

  // Adds a record of these bytes.
  absl::Status AddRecord(absl::string_view bytes);

  std::string path_;
  std::unique_ptr<FILE, int (*)(FILE*)> stream_;
};

// Returns the CRC-32C (Castagnoli, reflected polynomial 0x82f63b78; RFC 3720, section 12.1).
uint32_t Crc32c(absl::string_view bytes);

// Returns the bytes of a TFRecord record: their number as 8 bytes, its checksum, the bytes, and
// theirs. Numbers are little-endian, and a checksum is ((crc >> 15) | (crc << 17)) + 0xa282ead8 of
// the CRC-32C (https://www.tensorflow.org/tutorials/load_data/tfrecord).
std::string FramedRecord(absl::string_view bytes);

// Returns a GraphDef message as EventWriter::AddGraph writes it.
std::string GraphDefOf(const Graph& graph);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_WATCH_EVENT_FILE_H_
