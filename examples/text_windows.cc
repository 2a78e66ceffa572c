#include "examples/text_windows.h"

#include <cerrno>
#include <fstream>
#include <iterator>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

namespace examples {
namespace {

gw::data::Dataset Windows(absl::Span<const uint8_t> text, size_t size, size_t stride) {
  std::vector<int32_t> bytes;
  int64_t count = 0;
  for (size_t begin = 0; begin + size <= text.size(); begin += stride, ++count)
    bytes.insert(bytes.end(), text.begin() + begin, text.begin() + begin + size);
  const int64_t sizes[] = {count, static_cast<int64_t>(size)};
  return {{"text", gw::Tensor::Of<int32_t>(sizes, bytes)}};
}

}  // namespace

absl::StatusOr<TextWindows> ReadTextWindows(const std::string& path, int64_t size, int64_t stride) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  const std::vector<uint8_t> bytes(std::istreambuf_iterator<char>(file), {});
  if (!file.is_open() || file.bad()) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": the file cannot be read"));
  const absl::Span<const uint8_t> text(bytes), last = text.subspan(text.size() * 9 / 10);
  if (static_cast<int64_t>(last.size()) < size) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the last tenth of the text has ", last.size(),
                                                   " bytes, and at least ", size, " are needed"));
  }
  return TextWindows{Windows(text.first(text.size() - last.size()), size, stride), Windows(last, size, size)};
}

}  // namespace examples
