// The folders of the sources, the folders that each may include, and their picture.
#ifndef GRADWEAVE_TOOLS_HOUSE_H_
#define GRADWEAVE_TOOLS_HOUSE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace gradweave {

// A row of the table: one folder.
struct Room {
  std::string folder;                // "runtime/cpu"; "" is the root.
  bool with_subfolders = false;      // True if the row covers subfolders too: `tests/**`.
  std::string contents;              // The table's description.
  std::vector<std::string> may_use;  // Folders.
  bool may_use_all = false;          // True if the row says "all above".
};

// An #include of a file of the tree, whose path starts with "gradweave/".
struct Include {
  std::string file;    // "runtime/cpu/kernels.cc".
  std::string header;  // "graph/graph.h".
};

// Returns the folder of a file: "graph" of "graph/graph.h", "" of "gradweave.h".
std::string FolderOf(absl::string_view path);

// Reads the table of a page whose header row is `| folder | what is in it | may use |`. The last
// column says "nothing", "all above" or the folders in backticks. Rows go from the bottom of the
// house to its top. Returns InvalidArgument with the row if a row cannot be read, or if there is no
// table.
absl::StatusOr<std::vector<Room>> ReadTable(absl::string_view page);

// Returns the includes of one file with this text.
std::vector<Include> IncludesOf(absl::string_view file, absl::string_view text);

// Returns the includes of all C++ and CUDA files below a folder, in the order of their paths. Skips
// hidden folders and Bazel's output folders. Returns NotFound if the folder cannot be read or has
// no sources.
absl::StatusOr<std::vector<Include>> ReadIncludes(const std::string& root);

// Returns one line for each include that the table forbids, each folder that the table lacks, each
// row that uses a row below it (which could form a cycle), and each permission that no include
// needs. A test next to the code that it tests (_test.cc) may include anything.
std::vector<std::string> CheckHouse(absl::Span<const Room> rooms, absl::Span<const Include> includes);

// Draws the folders as SVG: a box for each room, and an arrow to each room that it includes. Arrows
// point down. An arrow is omitted if a path of other arrows leads to the same room. Rooms with
// subfolders (programs and tests) are omitted. The includes must pass CheckHouse.
std::string DrawHouse(absl::Span<const Room> rooms, absl::Span<const Include> includes);

}  // namespace gradweave

#endif  // GRADWEAVE_TOOLS_HOUSE_H_
