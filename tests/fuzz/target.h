// Code that the fuzz targets share. Each target is one file that defines LLVMFuzzerTestOneInput, as
// libFuzzer calls it (https://llvm.org/docs/LibFuzzer.html), and is built twice: with libFuzzer by
// tools/fuzz, and with corpus_main.cc as a test. A finding ends the process.
#ifndef GRADWEAVE_TESTS_FUZZ_TARGET_H_
#define GRADWEAVE_TESTS_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

// Runs one input. Returns 0.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// Changes an input of `size` bytes in place, and returns its new size, at most `max_size`. Only
// targets whose inputs have a structure define it.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed);

namespace gradweave::fuzz {

// Turns bytes into choices, from first to last. All choices are 0 when no byte is left.
class ByteReader {
 public:
  ByteReader(const uint8_t* data, size_t size) : data_(data), end_(data + size) {}

  bool empty() const { return data_ == end_; }
  uint8_t Byte() { return empty() ? 0 : *data_++; }
  bool Flag() { return (Byte() & 1) != 0; }
  // Returns a number in [0, limit); limit is at most 256.
  int64_t Below(int64_t limit) { return Byte() % limit; }
  template <typename T>
  T Pick(std::initializer_list<T> choices) {
    return choices.begin()[Below(static_cast<int64_t>(choices.size()))];
  }
  // Returns any number: most often a small one, sometimes one at the end of a range.
  int64_t Number();
  // Returns all bytes that are left.
  absl::string_view Rest();

 private:
  const uint8_t* data_;
  const uint8_t* end_;
};

// Returns an input as text.
inline absl::string_view AsText(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Changes a few bytes: flips, inserts, removes, repeats or replaces them. The same seed gives the
// same change.
std::string MutatedBytes(absl::string_view bytes, size_t max_size, uint64_t seed);

// Returns the path of a file with these bytes, in a folder that belongs to this process and lies in
// memory where the system has such a folder. The next call with the same name replaces the file.
std::string ScratchFile(absl::string_view name, absl::string_view bytes);

// Checks what holds for every error: a message of one line, which a terminal can show, and of
// bounded length.
void CheckMessage(const absl::Status& status, size_t most_bytes = 4096);

}  // namespace gradweave::fuzz

#endif  // GRADWEAVE_TESTS_FUZZ_TARGET_H_
