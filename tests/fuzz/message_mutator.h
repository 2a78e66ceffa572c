// Changes of protobuf messages through reflection.
#ifndef GRADWEAVE_TESTS_FUZZ_MESSAGE_MUTATOR_H_
#define GRADWEAVE_TESTS_FUZZ_MESSAGE_MUTATOR_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tests/fuzz/target.h"

namespace google::protobuf {
class Message;
}

namespace gradweave::fuzz {

// Changes one to four fields of the message or of messages in it: sets, clears, repeats, swaps or
// removes them. Texts become one of `words`, a text of the same message, or other bytes. The same
// seed gives the same change.
void MutateMessage(google::protobuf::Message& message, absl::Span<const std::string> words, uint64_t seed);

// The mutator of a target whose inputs are messages of this type: changes the message in `data`,
// and for one seed of eight the bytes. Returns the new size.
template <typename File>
size_t MutatedFile(uint8_t* data, size_t size, size_t max_size, absl::Span<const std::string> words, uint64_t seed) {
  const absl::string_view bytes = AsText(data, size);
  File message;
  std::string mutated;
  if (seed % 8 != 0 && message.ParseFromString(std::string(bytes))) {
    MutateMessage(message, words, seed);
    mutated = message.SerializeAsString();
  }
  if (mutated.empty() || mutated.size() > max_size) mutated = MutatedBytes(bytes, max_size, seed);
  std::copy(mutated.begin(), mutated.end(), data);
  return mutated.size();
}

}  // namespace gradweave::fuzz

#endif  // GRADWEAVE_TESTS_FUZZ_MESSAGE_MUTATOR_H_
