// Reads the text header of a file of arrays, token by token.
#ifndef GRADWEAVE_FRONTEND_DATA_HEADER_READER_H_
#define GRADWEAVE_FRONTEND_DATA_HEADER_READER_H_

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gradweave/frontend/input_file.h"

namespace gradweave::data {

// The base of parsers, which take tokens from the front of rest_. The text has to outlive the
// reader.
class HeaderReader {
 protected:
  explicit HeaderReader(absl::string_view text) : rest_(text) {}

  // InvalidArgument "the header is wrong: <message>".
  static absl::Status Error(absl::string_view message) {
    return absl::InvalidArgumentError(absl::StrCat("the header is wrong: ", message));
  }
  // The same with what was expected in place of the rest.
  absl::Status Expected(absl::string_view what) const {
    return Error(absl::StrCat(what, " is expected at \"", PrintableText(rest_.substr(0, 20)), "\""));
  }

  void SkipSpaces() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\n\r"), rest_.size())); }
  // Skips spaces. Takes the character and returns true if it is next.
  bool Take(char c) {
    SkipSpaces();
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }

  absl::string_view rest_;
};

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_DATA_HEADER_READER_H_
