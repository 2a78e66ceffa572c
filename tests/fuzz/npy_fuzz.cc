// Files of numpy. The first byte says what the rest is: 0 a .npy file, 1 an .npz archive, 2 and 3 a
// .npy file that is put into an archive, stored or compressed. What is read is written and read
// again.
#include <zip.h>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/data/npy.h"
#include "gradweave/graph/check.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

constexpr int64_t kMostBytes = 1 << 20;

std::string Archive(absl::string_view entry, bool compress) {
  std::string path = ScratchFile("made.npz", "");
  const zipFile archive = zipOpen64(path.c_str(), APPEND_STATUS_CREATE);
  GW_CHECK(archive != nullptr);
  zip_fileinfo info = {};
  GW_CHECK(zipOpenNewFileInZip64(archive, "x.npy", &info, nullptr, 0, nullptr, 0, nullptr, compress ? Z_DEFLATED : 0, 1,
                                 0) == ZIP_OK);
  GW_CHECK(zipWriteInFileInZip(archive, entry.data(), static_cast<unsigned>(entry.size())) == ZIP_OK);
  GW_CHECK(zipCloseFileInZip(archive) == ZIP_OK && zipClose(archive, nullptr) == ZIP_OK);
  return path;
}

void CheckArray(const Tensor& array) {
  GW_CHECK(static_cast<int64_t>(array.byte_size()) <= kMostBytes, array.ToString());
  const std::string path = ScratchFile("copy.npy", "");
  GW_CHECK(data::WriteNpy(path, array).ok());
  const absl::StatusOr<Tensor> again = data::ReadNpy(path);
  GW_CHECK(again.ok() && SameBits(array, *again), array.ToString(), " ", again.status().ToString());
}

void CheckArchive(const std::string& path) {
  const absl::StatusOr<std::vector<data::NamedArray>> arrays = data::ReadNpz(path, kMostBytes);
  CheckMessage(arrays.status());
  if (!arrays.ok()) return;
  for (const data::NamedArray& array : *arrays) CheckArray(array.values);
}

}  // namespace
}  // namespace gradweave::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gradweave;  // NOLINT
  fuzz::ByteReader bytes(data, size);
  const int64_t kind = bytes.Below(4);
  const absl::string_view contents = bytes.Rest();
  if (kind == 1) {
    fuzz::CheckArchive(fuzz::ScratchFile("arrays.npz", contents));
    return 0;
  }
  if (kind >= 2) fuzz::CheckArchive(fuzz::Archive(contents, kind == 3));
  const absl::StatusOr<Tensor> array = data::ReadNpy(fuzz::ScratchFile("array.npy", contents), fuzz::kMostBytes);
  fuzz::CheckMessage(array.status());
  if (array.ok()) fuzz::CheckArray(*array);
  return 0;
}
