// PNG files. The checksums of chunks are made right, so that libpng reads what is in them.
#include <zlib.h>

#include "gradweave/frontend/image.h"
#include "gradweave/graph/check.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

// A file has eight bytes of signature; then each chunk has the length of its data, four letters,
// the data, and the checksum of letters and data (https://www.w3.org/TR/png-3/#5Chunk-layout).
// Numbers are big-endian.
void MendChecksums(std::string& file) {
  auto* bytes = reinterpret_cast<unsigned char*>(file.data());
  size_t at = 8;
  while (at + 12 <= file.size()) {
    const size_t length = size_t{bytes[at]} << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3];
    if (length > file.size() - at - 12) return;
    const auto checksum = static_cast<uint32_t>(crc32(0, bytes + at + 4, static_cast<uInt>(length + 4)));
    at += 8 + length;
    for (int i = 0; i < 4; ++i) bytes[at + i] = static_cast<unsigned char>(checksum >> (24 - 8 * i));
    at += 4;
  }
}

void Run(std::string file) {
  MendChecksums(file);
  const std::string path = ScratchFile("image.png", file);
  for (int channels : {0, 1, 3}) {
    const absl::StatusOr<Image> image = ReadPngImage(path, channels);
    CheckMessage(image.status());
    if (!image.ok()) continue;
    GW_CHECK(image->channels == 1 || image->channels == 3);
    GW_CHECK(channels == 0 || image->channels == channels);
    GW_CHECK(static_cast<int64_t>(image->pixels.size()) == image->width * image->height * image->channels);
  }
  const absl::StatusOr<GrayImage> gray = ReadPng(path);
  CheckMessage(gray.status());
  if (!gray.ok() || gray->pixels.size() > 4096) return;
  const GrayImage small = Resized(*gray, 7, 5);
  const std::string copy = ScratchFile("copy.png", "");
  GW_CHECK(WritePng(copy, small).ok());
  const absl::StatusOr<GrayImage> again = ReadPng(copy);
  GW_CHECK(again.ok() && again->pixels == small.pixels, again.status().ToString());
}

}  // namespace
}  // namespace gradweave::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gradweave::fuzz::Run(std::string(gradweave::fuzz::AsText(data, size)));
  return 0;
}
