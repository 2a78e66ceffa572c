// Samples for a training, from the files that a user names.
#ifndef GRADWEAVE_FRONTEND_COMMAND_TRAINING_DATA_H_
#define GRADWEAVE_FRONTEND_COMMAND_TRAINING_DATA_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gradweave/frontend/dataset.h"
#include "gradweave/graph/graph.h"

namespace gradweave::command {

// The task that the data is for.
struct DataRequest {
  const Node* input = nullptr;       // The input of the model.
  const Node* target = nullptr;      // The input of the loss.
  bool has_classes = false;          // True if targets are classes.
  std::vector<std::string> columns;  // The columns of a table that are targets.
};

struct TrainingData {
  data::Dataset train, validation;
  std::vector<std::string> classes;  // The classes' names, or none.
};

// Reads the samples: two files of numpy with a comma between them, x.npy,y.npy; an archive .npz
// with arrays of the inputs' names; a table .csv, whose columns other than targets are the numbers
// of x; a folder of PNG images, one folder for each class; or a folder with the files of
// Fashion-MNIST, whose test images are the validation. The content of files determines their
// format. Returns the errors of the readers, and InvalidArgument for arrays that do not fit the
// inputs.
absl::StatusOr<TrainingData> ReadTrainingData(const std::string& path, const DataRequest& request);

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_TRAINING_DATA_H_
