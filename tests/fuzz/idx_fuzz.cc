// Arrays in the idx format, plain and compressed. The first byte says which: 1 compresses the rest.
#include <zlib.h>

#include "gradweave/frontend/data.h"
#include "gradweave/graph/check.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

constexpr int64_t kMostBytes = 1 << 20;

std::string Compressed(absl::string_view bytes) {
  z_stream stream = {};
  constexpr int kGzip = 16 + MAX_WBITS;
  GW_CHECK(deflateInit2(&stream, 1, Z_DEFLATED, kGzip, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string result(deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(result.data());
  stream.avail_out = static_cast<uInt>(result.size());
  GW_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  result.resize(stream.total_out);
  deflateEnd(&stream);
  return result;
}

}  // namespace
}  // namespace gradweave::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gradweave;  // NOLINT
  fuzz::ByteReader bytes(data, size);
  const bool compress = bytes.Byte() == 1;
  const std::string contents(bytes.Rest());
  const absl::StatusOr<Tensor> array =
      data::ReadIdx(fuzz::ScratchFile("array.idx", compress ? fuzz::Compressed(contents) : contents), fuzz::kMostBytes);
  fuzz::CheckMessage(array.status());
  if (array.ok()) GW_CHECK(static_cast<int64_t>(array->byte_size()) <= fuzz::kMostBytes, array->ToString());
  return 0;
}
