// The rooms of the house: the folders of the sources, what each may include, and their picture.
#ifndef GRADWEAVE_TOOLS_HOUSE_H_
#define GRADWEAVE_TOOLS_HOUSE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace gradweave {

// One folder of the table.
struct Room {
  std::string folder;                // "runtime/cpu"; "" is the root.
  bool with_subfolders = false;      // Whether the row covers the folders below it too: `tests/**`.
  std::string contents;              // The table's text about it.
  std::vector<std::string> may_use;  // Folders.
  bool may_use_all = false;          // Whether the row says "all above".
};

// A file of the tree that includes a header by a path that starts with "gradweave/".
struct Include {
  std::string file;    // "runtime/cpu/kernels.cc".
  std::string header;  // "graph/graph.h".
};

// Reads the table of a page whose header row is `| folder | what is in it | may use |`. The last column says "nothing",
// "all above" or the folders in backticks. Rows go from the bottom of the house to its top. InvalidArgument names a row
// that cannot be read.
absl::StatusOr<std::vector<Room>> ReadTable(absl::string_view page);

// The includes of one file.
std::vector<Include> IncludesOf(absl::string_view file, absl::string_view text);

// The includes of all C++ files below a folder, in the order of their paths. Hidden folders and Bazel's output folders
// are skipped. NotFound where the folder cannot be read.
absl::StatusOr<std::vector<Include>> ReadIncludes(const std::string& root);

// One line for each include that the table forbids, each folder that the table lacks, each row that uses a row below it
// (so rooms form no circle), and each permission that no include needs. A test that stands beside the code it tests
// (_test.cc) may include anything.
std::vector<std::string> CheckHouse(absl::Span<const Room> rooms, absl::Span<const Include> includes);

// The picture as SVG: a box for each room, and an arrow to each room that it includes. Arrows point down. An arrow is
// left out where a path of other arrows leads to the same room. Rooms with subfolders (programs and tests) are left
// out. The includes must pass CheckHouse.
std::string DrawHouse(absl::Span<const Room> rooms, absl::Span<const Include> includes);

}  // namespace gradweave

#endif  // GRADWEAVE_TOOLS_HOUSE_H_
