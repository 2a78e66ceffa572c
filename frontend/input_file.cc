#include "gradweave/frontend/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"

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

absl::StatusOr<std::string> ReadInputFile(const std::string& path, int64_t max_bytes) {
  GW_ASSIGN_OR_RETURN(const InputFile file, OpenInputFile(path));
  // gzclose closes its descriptor, so it gets one of its own. Nothing was read from the other one.
  const int descriptor = fcntl(fileno(file.stream.get()), F_DUPFD_CLOEXEC, 0);
  if (descriptor < 0) return Unreadable(path, errno);
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> stream(gzdopen(descriptor, "rb"), gzclose);
  if (stream == nullptr) {
    close(descriptor);
    return absl::ResourceExhaustedError(absl::StrCat(path, ": there is no memory to read the file"));
  }
  std::string bytes;
  // One byte more than the file's length shows the end of an uncompressed file with the first
  // piece.
  constexpr int64_t kLeastPiece = 1 << 16, kMostPiece = 1 << 30;
  int64_t piece = std::clamp(file.size + 1, kLeastPiece, kMostPiece);
  int got = 0;
  do {
    const auto done = static_cast<int64_t>(bytes.size());
    if (done > max_bytes) break;
    if (max_bytes - done < piece) piece = max_bytes - done + 1;
    bytes.resize(done + piece);
    got = gzread(stream.get(), bytes.data() + done, static_cast<unsigned>(piece));
    bytes.resize(done + std::max(got, 0));
    if (got < piece) break;
    piece = std::clamp(static_cast<int64_t>(bytes.size()), kLeastPiece, kMostPiece);
  } while (true);
  if (static_cast<int64_t>(bytes.size()) > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the file has more than the ", max_bytes, " bytes that are allowed"));
  }
  int code = Z_OK;
  const char* message = gzerror(stream.get(), &code);
  if (code == Z_BUF_ERROR) return absl::InvalidArgumentError(absl::StrCat(path, ": the compressed file is truncated"));
  if (code != Z_OK) return absl::InvalidArgumentError(absl::StrCat(path, ": the file cannot be read: ", message));
  return bytes;
}

std::string PrintableText(absl::string_view text) {
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
    absl::StrAppend(&result, is_plain || first == '\'' ? std::string(text.substr(0, taken))
                                                       : absl::CHexEscape(text.substr(0, taken)));
    text.remove_prefix(taken);
  }
  return result;
}

}  // namespace gradweave
