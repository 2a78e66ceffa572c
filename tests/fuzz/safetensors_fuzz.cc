// Files of safetensors. The first byte says what the rest is: 0 a file, 1 a header of JSON that gets
// its length and elements. What is read is written and read again.
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/data/safetensors.h"
#include "gradweave/graph/check.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

constexpr int64_t kMostBytes = 1 << 20;

// A file with this header, and elements up to the end of its last array if that is near.
std::string FileOf(absl::string_view header) {
  constexpr size_t kElementBytes = 64;
  const uint64_t length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  absl::StrAppend(&file, header);
  for (size_t i = 0; i < kElementBytes; ++i) file.push_back(static_cast<char>(i * 37));
  return file;
}

void Check(const std::string& path, data::HalfArrays halves) {
  const absl::StatusOr<std::vector<data::NamedArray>> arrays = data::ReadSafetensors(path, kMostBytes, halves);
  CheckMessage(arrays.status());
  if (!arrays.ok()) return;
  int64_t bytes = 0;
  for (const data::NamedArray& array : *arrays) bytes += static_cast<int64_t>(array.values.byte_size());
  GW_CHECK(bytes <= kMostBytes, bytes);
  // An empty name is read but not written.
  const bool named = std::none_of(arrays->begin(), arrays->end(), [](const auto& array) { return array.name.empty(); });
  const std::string copy = ScratchFile("copy.safetensors", "");
  const absl::Status written = data::WriteSafetensors(copy, *arrays);
  GW_CHECK(written.ok() || !named, written.ToString());
  if (!written.ok()) return;
  const absl::StatusOr<std::vector<data::NamedArray>> again =
      data::ReadSafetensors(copy, kMostBytes, data::HalfArrays::kKept);
  GW_CHECK(again.ok() && again->size() == arrays->size(), again.status().ToString());
  for (const data::NamedArray& array : *arrays) {
    const auto found = std::find_if(again->begin(), again->end(), [&](const auto& a) { return a.name == array.name; });
    GW_CHECK(found != again->end() && SameBits(found->values, array.values), array.name);
  }
}

}  // namespace
}  // namespace gradweave::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gradweave;  // NOLINT
  fuzz::ByteReader bytes(data, size);
  const uint8_t kind = bytes.Byte();
  const data::HalfArrays halves = (kind & 2) != 0 ? data::HalfArrays::kKept : data::HalfArrays::kToFloat32;
  const absl::string_view contents = bytes.Rest();
  fuzz::Check(fuzz::ScratchFile("arrays.safetensors", (kind & 1) == 0 ? std::string(contents) : fuzz::FileOf(contents)),
              halves);
  return 0;
}
