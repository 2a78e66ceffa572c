// Files that the command writes.
#ifndef GRADWEAVE_FRONTEND_COMMAND_OUTPUT_FILE_H_
#define GRADWEAVE_FRONTEND_COMMAND_OUTPUT_FILE_H_

#include <string>

#include "absl/status/status.h"

namespace gradweave::command {

// Returns the error of writing to the path, before any work is done for it: a folder that is not
// there or is not writable, or a path that is a folder.
absl::Status CheckWritable(const std::string& path);

// Writes the text. The file appears when it is complete. Returns the system's error with the path.
absl::Status WriteText(const std::string& path, const std::string& text);

// The end of the name behind the last point, "svg"; empty if there is none.
std::string EndOf(const std::string& path);

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_OUTPUT_FILE_H_
