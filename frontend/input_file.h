// Opening and reading the files that a user names.
#ifndef GRADWEAVE_FRONTEND_INPUT_FILE_H_
#define GRADWEAVE_FRONTEND_INPUT_FILE_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct gzFile_s;  // zlib's.

namespace gradweave {

// A regular file, opened for reading.
struct InputFile {
  std::unique_ptr<FILE, int (*)(FILE*)> stream{nullptr, std::fclose};
  int64_t size = 0;  // The file's length in bytes.
};

// The size limit of readers that are given none: 4 GiB.
inline constexpr int64_t kMostBytesOfFile = int64_t{1} << 32;

// Opens a regular file. Folders, pipes, sockets and devices are refused without waiting for them.
// Returns the system's error, such as NotFound or PermissionDenied, and InvalidArgument for what is
// not a regular file. All errors start with the path.
absl::StatusOr<InputFile> OpenInputFile(const std::string& path);

// The bytes of a regular file, read in order. A file that starts as gzip does is decompressed.
class InputStream {
 public:
  // Returns the errors of OpenInputFile.
  static absl::StatusOr<InputStream> Open(const std::string& path);

  // Reads this many bytes, or fewer at the end of the file, and returns their number. Returns
  // InvalidArgument if a compressed file is truncated or damaged.
  absl::StatusOr<int64_t> Read(void* to, int64_t bytes);

  // The most bytes that a file of this length can have.
  int64_t most_bytes() const;
  // The file's length in bytes, compressed if it is.
  int64_t file_size() const { return file_size_; }

 private:
  InputStream(std::string path, int64_t file_size, gzFile_s* stream);

  std::string path_;
  int64_t file_size_;
  std::unique_ptr<gzFile_s, int (*)(gzFile_s*)> stream_;
};

// Reads all bytes of a regular file. A file that starts as gzip does is decompressed. Returns the
// errors of OpenInputFile, and InvalidArgument if the bytes are more than `max_bytes` (after
// decompression), or if a compressed file is truncated or damaged. Memory grows with the bytes that
// were read.
absl::StatusOr<std::string> ReadInputFile(const std::string& path, int64_t max_bytes);

// Returns text of a file for an error: double quotes, backslashes, control characters (also those
// that UTF-8 has above 127) and bytes that are not UTF-8 are escaped as in C, so a terminal shows
// the text and does not obey it.
std::string PrintableText(absl::string_view text);

// Returns a whole message, parts of which may be text of a file, as one line that a terminal shows
// and does not obey. Double quotes and backslashes stay, so what is escaped already stays as it is.
std::string PrintableLine(absl::string_view message);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_INPUT_FILE_H_
