// The bytes of model files that a test has changed.
#ifndef GRADWEAVE_TESTS_FILES_MODEL_BYTES_H_
#define GRADWEAVE_TESTS_FILES_MODEL_BYTES_H_

#include <zlib.h>

#include <cstdint>
#include <string>

#include "gradweave/proto/model.pb.h"

namespace gradweave {

// Returns a model's file with a right checksum, so that the reader goes on to what is wrong in it.
inline std::string FileOf(proto::Model model) {
  model.clear_crc32();
  std::string bytes = model.SerializeAsString();
  const auto checksum = static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
  bytes.append("\x85\x01");  // The tag of Model.crc32.
  bytes.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  return bytes;
}

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_FILES_MODEL_BYTES_H_
