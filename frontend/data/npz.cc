// Archives of arrays, through minizip.
#include <unzip.h>
#include <zip.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gradweave/frontend/data/npy.h"
#include "gradweave/frontend/data/npy_format.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"

namespace gradweave::data {
namespace {

constexpr absl::string_view kSuffix = ".npy";
constexpr absl::string_view kEmptyArchive("PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22);
constexpr int64_t kPiece = int64_t{1} << 30;  // minizip counts bytes in 32 bits.

// Returns functions through which minizip uses an open file. The file stays open.
zlib_filefunc64_def FunctionsOf(FILE* stream) {
  zlib_filefunc64_def functions;
  fill_fopen64_filefunc(&functions);
  functions.opaque = stream;
  functions.zopen64_file = [](voidpf opaque, const void*, int) -> voidpf { return opaque; };
  functions.zclose_file = [](voidpf, voidpf) { return 0; };
  return functions;
}

// Reads the current entry of an archive.
class EntryReader {
 public:
  EntryReader(unzFile archive, const std::string& path, int64_t archive_size)
      : archive_(archive), path_(path), archive_size_(archive_size) {}

  absl::StatusOr<NamedArray> Read(int64_t max_bytes) {
    unz_file_info64 info;
    if (unzGetCurrentFileInfo64(archive_, &info, nullptr, 0, nullptr, 0, nullptr, 0) != UNZ_OK) return Damaged(path_);
    std::string name(info.size_filename, '\0');
    if (unzGetCurrentFileInfo64(archive_, &info, name.data(), name.size(), nullptr, 0, nullptr, 0) != UNZ_OK) {
      return Damaged(path_);
    }
    const std::string source = absl::StrCat(path_, ": ", PrintableText(name.substr(0, 100)));
    if (!absl::EndsWith(name, kSuffix)) {
      return absl::InvalidArgumentError(absl::StrCat(source, ": the entry is not an array, whose name ends with .npy"));
    }
    constexpr uint64_t kEncrypted = 1;
    if (info.flag & kEncrypted) {
      return absl::InvalidArgumentError(absl::StrCat(source, ": encrypted entries cannot be read"));
    }
    if (info.compression_method != 0 && info.compression_method != Z_DEFLATED) {
      return absl::InvalidArgumentError(absl::StrCat(source, ": compression method ", info.compression_method,
                                                     " cannot be read; 0 (stored) and 8 (deflate) can"));
    }
    // Deflate makes at most 1032 bytes of one (https://zlib.net/zlib_tech.html), so an archive
    // cannot claim sizes that its length does not allow.
    constexpr uint64_t kMostPerByte = 1032;
    const uint64_t most_per_byte = info.compression_method == 0 ? 1 : kMostPerByte;
    if (info.compressed_size > static_cast<uint64_t>(archive_size_) ||
        info.uncompressed_size > info.compressed_size * most_per_byte) {
      return absl::InvalidArgumentError(absl::StrCat(source, ": the entry claims more bytes than the file can have"));
    }
    if (unzOpenCurrentFile(archive_) != UNZ_OK) return Damaged(source);
    absl::StatusOr<Tensor> array =
        ReadNpyArray(source, static_cast<int64_t>(info.uncompressed_size), max_bytes,
                     [&](void* to, int64_t bytes) { return ReadBytes(static_cast<char*>(to), bytes); });
    // minizip compares the checksum when it closes an entry that was read to its end.
    const bool closed = unzCloseCurrentFile(archive_) == UNZ_OK;
    GW_RETURN_IF_ERROR(array.status());
    if (!closed) return Damaged(source);
    return NamedArray{std::string(absl::StripSuffix(name, kSuffix)), *std::move(array)};
  }

 private:
  static absl::Status Damaged(absl::string_view source) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": the archive is damaged or truncated"));
  }

  absl::Status ReadBytes(char* to, int64_t bytes) {
    while (bytes > 0) {
      const int got = unzReadCurrentFile(archive_, to, static_cast<unsigned>(std::min(bytes, kPiece)));
      if (got <= 0) return absl::InvalidArgumentError("the archive is damaged or truncated");
      to += got;
      bytes -= got;
    }
    return absl::OkStatus();
  }

  unzFile archive_;
  const std::string& path_;
  int64_t archive_size_;
};

bool WriteEntry(zipFile archive, const NamedArray& entry, const std::string& header, bool compress) {
  // The date is 1980-01-01, as numpy writes it, so the bytes depend only on the arrays.
  zip_fileinfo info = {};
  info.dosDate = (1 << 5 | 1) << 16;  // Month and day; years count from 1980.
  const auto bytes = static_cast<int64_t>(entry.values.byte_size());
  const std::string name = absl::StrCat(entry.name, kSuffix);
  constexpr int64_t kNeedsZip64 = 0xFF000000;  // Sizes above need 64 bits; compression may add a little.
  constexpr int kVersion = 20, kUtf8Name = 1 << 11;
  if (zipOpenNewFileInZip4_64(archive, name.c_str(), &info, nullptr, 0, nullptr, 0, nullptr, compress ? Z_DEFLATED : 0,
                              Z_DEFAULT_COMPRESSION, /*raw=*/0, -MAX_WBITS, DEF_MEM_LEVEL, Z_DEFAULT_STRATEGY,
                              /*password=*/nullptr, 0, kVersion, kUtf8Name, bytes > kNeedsZip64) != ZIP_OK) {
    return false;
  }
  bool ok = zipWriteInFileInZip(archive, header.data(), static_cast<unsigned>(header.size())) == ZIP_OK;
  for (int64_t done = 0; ok && done < bytes; done += kPiece) {
    ok = zipWriteInFileInZip(archive, static_cast<const char*>(entry.values.raw_data()) + done,
                             static_cast<unsigned>(std::min(kPiece, bytes - done))) == ZIP_OK;
  }
  return zipCloseFileInZip(archive) == ZIP_OK && ok;
}

}  // namespace

absl::StatusOr<std::vector<NamedArray>> ReadNpz(const std::string& path, int64_t max_bytes) try {
  GW_ASSIGN_OR_RETURN(const InputFile file, OpenInputFile(path));
  // minizip takes an archive without entries for damaged, and some damaged ones for such.
  if (file.size == static_cast<int64_t>(kEmptyArchive.size())) {
    std::string bytes(kEmptyArchive.size(), '\0');
    if (std::fread(bytes.data(), 1, bytes.size(), file.stream.get()) == bytes.size() && bytes == kEmptyArchive) {
      return std::vector<NamedArray>();
    }
  }
  zlib_filefunc64_def functions = FunctionsOf(file.stream.get());
  const std::unique_ptr<void, int (*)(unzFile)> archive(unzOpen2_64(path.c_str(), &functions), unzClose);
  unz_global_info64 global;
  if (archive == nullptr || unzGetGlobalInfo64(archive.get(), &global) != UNZ_OK || global.number_entry == 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": this is not a zip archive, or it is truncated"));
  }
  std::vector<NamedArray> arrays;
  absl::flat_hash_set<std::string> names;
  EntryReader reader(archive.get(), path, file.size);
  for (uint64_t i = 0; i < global.number_entry; ++i) {
    if ((i == 0 ? unzGoToFirstFile(archive.get()) : unzGoToNextFile(archive.get())) != UNZ_OK) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": the archive is damaged or truncated"));
    }
    GW_ASSIGN_OR_RETURN(NamedArray array, reader.Read(max_bytes));
    max_bytes -= static_cast<int64_t>(array.values.byte_size());
    if (!names.insert(array.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": the archive has \"", PrintableText(array.name), "\" twice"));
    }
    arrays.push_back(std::move(array));
  }
  return arrays;
}
GW_CATCH_OUT_OF_MEMORY("ReadNpz")

absl::Status WriteNpz(const std::string& path, absl::Span<const NamedArray> arrays, bool compress) try {
  absl::flat_hash_set<absl::string_view> names;
  std::vector<std::string> headers;
  for (const NamedArray& entry : arrays) {
    constexpr size_t kMostName = 60000;
    if (entry.name.empty() || entry.name.size() > kMostName || absl::StrContains(entry.name, '\0') ||
        !names.insert(entry.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": \"", PrintableText(entry.name.substr(0, 100)),
                       "\" is not a name for an array: it is empty, twice, too long or has a zero byte"));
    }
    absl::StatusOr<std::string> header = NpyHeader(entry.values);
    if (!header.ok()) {
      return absl::Status(header.status().code(), absl::StrCat(path, ": \"", PrintableText(entry.name.substr(0, 100)),
                                                               "\": ", header.status().message()));
    }
    headers.push_back(*std::move(header));
  }
  return WriteOutputFile(path, [&](FILE* stream) -> absl::Status {
    zlib_filefunc64_def functions = FunctionsOf(stream);
    zipFile archive = zipOpen2_64(path.c_str(), APPEND_STATUS_CREATE, nullptr, &functions);
    bool ok = archive != nullptr;
    for (size_t i = 0; ok && i < arrays.size(); ++i) ok = WriteEntry(archive, arrays[i], headers[i], compress);
    if (archive != nullptr && zipClose(archive, nullptr) != ZIP_OK) ok = false;
    return ok ? absl::OkStatus() : absl::UnavailableError(absl::StrCat(path, ": the archive cannot be written"));
  });
}
GW_CATCH_OUT_OF_MEMORY("WriteNpz")

}  // namespace gradweave::data
