// The subcommands, each of which has a file of its own.
#ifndef GRADWEAVE_FRONTEND_COMMAND_SUBCOMMANDS_H_
#define GRADWEAVE_FRONTEND_COMMAND_SUBCOMMANDS_H_

#include "gradweave/frontend/command/command.h"

namespace gradweave::command {

Subcommand Inspect();
Subcommand Check();
Subcommand Diff();
Subcommand Run();
Subcommand Bench();
Subcommand Grad();
Subcommand Compare();
Subcommand Dot();
Subcommand Train();
Subcommand Convert();
Subcommand New();

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_SUBCOMMANDS_H_
