// Changes of protobuf messages through reflection.
#ifndef GRADWEAVE_TESTS_FUZZ_MESSAGE_MUTATOR_H_
#define GRADWEAVE_TESTS_FUZZ_MESSAGE_MUTATOR_H_

#include <cstdint>
#include <string>

#include "absl/types/span.h"

namespace google::protobuf {
class Message;
}

namespace gradweave::fuzz {

// Changes one to four fields of the message or of messages in it: sets, clears, repeats, swaps or
// removes them. Texts become one of `words`, a text of the same message, or other bytes. The same
// seed gives the same change.
void MutateMessage(google::protobuf::Message& message, absl::Span<const std::string> words, uint64_t seed);

}  // namespace gradweave::fuzz

#endif  // GRADWEAVE_TESTS_FUZZ_MESSAGE_MUTATOR_H_
