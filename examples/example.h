// The common part of the example programs: flags, the main function and pictures of their results.
#ifndef GRADWEAVE_EXAMPLES_EXAMPLE_H_
#define GRADWEAVE_EXAMPLES_EXAMPLE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/pictures.h"
#include "gradweave/gradweave.h"

namespace examples {

// A program's name, what it does, and the defaults of its flags.
struct Program {
  const char* name;
  const char* usage;  // A sentence for --help.
  int64_t epochs, batch_size;
  double learning_rate;
};

// The checked flags.
struct Flags {
  double learning_rate;
  gw::FitOptions fit;          // Epochs, batch size and seed.
  gw::SessionOptions session;  // Threads, device, seed and precision.
  std::string plot_dir;
};

// Parses the flags, changes to the user's folder and calls `run`. Prints an error in one line and
// returns the exit code, which is 1 after an error, and 130 or 143 after a signal that has ended
// the training.
int Main(int argc, char** argv, const std::function<absl::Status(const Flags&)>& run);

// Returns InvalidArgument with the flag, its value and the range unless low <= value <= high.
template <typename Number>
absl::Status CheckRange(const char* flag, Number value, Number low, Number high, const char* range) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", flag, "=", value, " is outside its range, ", range));
}
// Returns an error if this is not a folder in which the user may write, so that the error comes
// before the training and not after it.
absl::Status CheckFolder(const char* flag, const std::string& folder);

// Returns optimizer.Minimize(loss, variables), with loss scaling for --mixed_precision=float16.
gw::Update Minimize(const Flags& flags, const gw::optim::Optimizer& optimizer, const gw::Value& loss,
                    const gw::optim::Values& variables = {});

// Returns the path of a file of examples/data, which the build puts beside the program.
std::string DataFile(const std::string& name);

// Writes the chart to <plot_dir>/<program>_training.svg, and prints it if the output is a terminal.
absl::Status DrawCurves(const Flags& flags, const gw::LineChart& chart);

// A row of a picture: the images of a tensor, each with the label below.
struct ImageRow {
  std::string label;
  gw::Tensor images;
};
// Writes the rows, which have equally many images of one size, to <plot_dir>/<program>_<what>.png.
absl::Status DrawImages(const Flags& flags, const std::string& what, const std::vector<ImageRow>& rows);

}  // namespace examples

// Each program defines it.
extern const examples::Program kProgram;

#endif  // GRADWEAVE_EXAMPLES_EXAMPLE_H_
