// The command `gradweave`.
#include "gradweave/frontend/command/command.h"
#include "gradweave/frontend/command/subcommands.h"

int main(int argc, char** argv) {
  using namespace gradweave::command;  // NOLINT: the table of subcommands
  const Subcommand subcommands[] = {
      Inspect(), Check(), Diff(), Run(), Bench(), Grad(), Compare(), Dot(), Train(), Convert(), New(),
  };
  return Main(subcommands, argc, argv);
}
