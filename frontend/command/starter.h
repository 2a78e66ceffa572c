// The files of the project that `gradweave new` writes.
#ifndef GRADWEAVE_FRONTEND_COMMAND_STARTER_H_
#define GRADWEAVE_FRONTEND_COMMAND_STARTER_H_

#include <vector>

namespace gradweave::command {

// A file with the places @NAME@, @GRADWEAVE@ (the clone), @PREFIX@ (where the library is installed)
// and @VERSION@.
struct StarterFile {
  const char* path;
  const char* text;
};

// The files of the folder frontend/command/starter.
const std::vector<StarterFile>& StarterFiles();

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_STARTER_H_
