#include "gradweave/frontend/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"

namespace gradweave {
namespace {

absl::Status Unreadable(const std::string& path, int error) {
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": the file cannot be opened"));
}

}  // namespace

absl::StatusOr<InputFile> OpenInputFile(const std::string& path) {
  // Opening a device may act on it, so the kind is checked before too. The flag keeps a pipe that
  // takes the file's place in between from blocking.
  struct stat info;
  const auto check_kind = [&]() -> absl::Status {
    if (S_ISREG(info.st_mode)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(path, ": this is not a regular file but a ",
                                                   S_ISDIR(info.st_mode) ? "folder" : "pipe, socket or device"));
  };
  if (stat(path.c_str(), &info) != 0) return Unreadable(path, errno);
  GW_RETURN_IF_ERROR(check_kind());
  const int descriptor = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (descriptor < 0) return Unreadable(path, errno);
  InputFile file;
  file.stream.reset(fdopen(descriptor, "rb"));
  if (file.stream == nullptr || fstat(descriptor, &info) != 0) {
    const int error = errno;
    if (file.stream == nullptr) close(descriptor);
    return Unreadable(path, error);
  }
  GW_RETURN_IF_ERROR(check_kind());
  file.size = info.st_size;
  return file;
}

InputStream::InputStream(std::string path, int64_t file_size, gzFile_s* stream)
    : path_(std::move(path)), file_size_(file_size), stream_(stream, gzclose) {}

absl::StatusOr<InputStream> InputStream::Open(const std::string& path) {
  GW_ASSIGN_OR_RETURN(const InputFile file, OpenInputFile(path));
  // gzclose closes its descriptor, so it gets one of its own. Nothing was read from the other one.
  const int descriptor = fcntl(fileno(file.stream.get()), F_DUPFD_CLOEXEC, 0);
  if (descriptor < 0) return Unreadable(path, errno);
  const gzFile stream = gzdopen(descriptor, "rb");
  if (stream == nullptr) {
    close(descriptor);
    return absl::ResourceExhaustedError(absl::StrCat(path, ": there is no memory to read the file"));
  }
  return InputStream(path, file.size, stream);
}

absl::StatusOr<int64_t> InputStream::Read(void* to, int64_t bytes) {
  constexpr int64_t kMostAtOnce = 1 << 30;
  int64_t done = 0;
  while (done < bytes) {
    const int64_t wanted = std::min(bytes - done, kMostAtOnce);
    const int got = gzread(stream_.get(), static_cast<char*>(to) + done, static_cast<unsigned>(wanted));
    done += std::max(got, 0);
    if (got == wanted) continue;
    int code = Z_OK;
    const char* message = gzerror(stream_.get(), &code);
    if (code == Z_BUF_ERROR) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": the compressed file is truncated"));
    }
    if (code != Z_OK && code != Z_STREAM_END) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": the file cannot be read: ", message));
    }
    break;
  }
  return done;
}

int64_t InputStream::most_bytes() const {
  // Deflate makes at most 1032 bytes of one (https://zlib.net/zlib_tech.html).
  constexpr int64_t kMostOfOne = 1032;
  if (gzdirect(stream_.get()) != 0) return file_size_;
  return std::min(file_size_, std::numeric_limits<int64_t>::max() / kMostOfOne) * kMostOfOne;
}

absl::StatusOr<std::string> ReadInputFile(const std::string& path, int64_t max_bytes) try {
  GW_ASSIGN_OR_RETURN(InputStream stream, InputStream::Open(path));
  std::string bytes;
  // One byte more than the file's length shows the end of an uncompressed file with the first
  // piece.
  constexpr int64_t kLeastPiece = 1 << 16, kMostPiece = 1 << 30;
  int64_t piece = std::clamp(stream.file_size() + 1, kLeastPiece, kMostPiece);
  while (true) {
    const auto done = static_cast<int64_t>(bytes.size());
    if (done > max_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": the file has more than the ", max_bytes, " bytes that are allowed"));
    }
    if (max_bytes - done < piece) piece = max_bytes - done + 1;
    bytes.resize(done + piece);
    GW_ASSIGN_OR_RETURN(const int64_t got, stream.Read(bytes.data() + done, piece));
    bytes.resize(done + got);
    if (got < piece) return bytes;
    piece = std::clamp(static_cast<int64_t>(bytes.size()), kLeastPiece, kMostPiece);
  }
}
GW_CATCH_OUT_OF_MEMORY("ReadInputFile")

namespace {

// Escapes what is no printable text, and double quotes and backslashes if `quoted`.
std::string Escaped(absl::string_view text, bool quoted) {
  std::string result;
  while (!text.empty()) {
    // The first byte of a character has as many leading ones as the character has bytes (RFC 3629).
    const auto first = static_cast<unsigned char>(text[0]);
    const auto bytes = static_cast<size_t>(std::countl_one(first));
    bool is_plain = bytes >= 2 && bytes <= 4 && text.size() >= bytes;
    for (size_t i = 1; is_plain && i < bytes; ++i) is_plain = (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80;
    // U+0080 to U+009F are control characters.
    is_plain =
        is_plain && first != 0xC0 && first != 0xC1 && !(first == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0);
    const size_t taken = is_plain ? bytes : 1;
    // CHexEscape has \' too, which is for single characters of C.
    const bool stays = is_plain || first == '\'' || (!quoted && (first == '"' || first == '\\'));
    absl::StrAppend(&result, stays ? std::string(text.substr(0, taken)) : absl::CHexEscape(text.substr(0, taken)));
    text.remove_prefix(taken);
  }
  return result;
}

}  // namespace

std::string PrintableText(absl::string_view text) { return Escaped(text, true); }

std::string PrintableLine(absl::string_view message) { return Escaped(message, false); }

}  // namespace gradweave
