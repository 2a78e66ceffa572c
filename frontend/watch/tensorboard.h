// A callback of Fit that writes event files for TensorBoard.
#ifndef GRADWEAVE_FRONTEND_WATCH_TENSORBOARD_H_
#define GRADWEAVE_FRONTEND_WATCH_TENSORBOARD_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "gradweave/frontend/dataset.h"
#include "gradweave/frontend/trainer.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// Options of TensorBoard.
struct TensorBoardOptions {
  std::string dir;                 // The folder of this training's event files, made if it is missing.
  int64_t scalars_per_epoch = 20;  // Points of the training's curves in an epoch, at least 1.
  // Samples for the histograms of gradients and for the images: the first `most_samples` and
  // `most_images`. Without samples there are none of these.
  data::Dataset samples = {};
  int64_t most_samples = 256, most_images = 16;
  bool weights = true;  // Writes histograms of the trainable variables after each epoch.
  bool graph = true;    // Writes the session's graph.
};

// Returns a callback that writes, with the number of batches so far as the step:
// - "loss/train", other metrics, "learning_rate" if Training has it, and "examples_per_second"
//   several times per epoch, and "loss/validation" and so on after each epoch; metrics that are not
//   scalars are left out;
// - after each epoch histograms "weights/<variable>", and "gradients/<variable>" of the training's
//   loss over the samples;
// - once, images of the samples as "samples/0", "samples/1" and so on, and the graph.
// The training's results do not change: gradients are computed by a second session, which needs
// memory for the variables and a run. A training that continues from a checkpoint writes another
// file into the folder, and TensorBoard joins the files at that step.
//
// The session must outlive the training. Returns InvalidArgument for an option outside its range,
// an error of the samples, and the system's error if the folder or the file cannot be made. The
// callback returns the errors of writing and of the second session.
//
//   GW_ASSIGN_OR_RETURN(gw::Callback board,
//                       gw::TensorBoard(session, training, {.dir = "runs/1", .samples = train}));
absl::StatusOr<Callback> TensorBoard(const Session& session, const Training& training, TensorBoardOptions options);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_WATCH_TENSORBOARD_H_
