// A report of a training as one HTML page.
#ifndef GRADWEAVE_FRONTEND_WATCH_REPORT_H_
#define GRADWEAVE_FRONTEND_WATCH_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gradweave/frontend/dataset.h"
#include "gradweave/frontend/trainer.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// Options of Report.
struct ReportOptions {
  std::string path;                // The file to write, such as "report.html".
  std::string title = "Training";  // The title of the page.
  // The samples of the confusion matrix, of the wrong predictions and of the step that is measured,
  // usually the samples of the validation. Without samples these parts are left out.
  data::Dataset samples = {};
  int64_t batch_size = 256;  // Samples of a prediction and of the measured step, at least 1.
  // The predictions [batch, classes], floating, and the right classes [batch], int32 or int64, as
  // values of the graph. Without them there is no confusion matrix, and no samples are shown.
  Value logits = {}, label = {};
  std::vector<std::string> classes = {};  // Names of the classes; without names they are numbers.
  int64_t most_mistakes = 24;             // The number of wrong predictions to show, the most confident first.
};

// Returns a callback that writes the report at the end of the training, also of one that another
// callback has ended. The page needs no other file and no network, and follows the light or dark
// scheme of the browser. It has
// - numbers: loss and metrics, epochs, time, samples per second, parameters, device and memory;
// - the curves of the training and validation metrics, of the learning rate if Training has it, and
//   of the time of each epoch;
// - the confusion matrix of up to 50 classes, and the samples with wrong predictions, as images if
//   they have some;
// - the plan of a training step with the time of each of its steps.
// The training's results do not change: predictions and the measured step belong to a second
// session, which needs memory for the variables and a run. Checkpoints keep the curves.
//
// The file appears when it is complete. The session must outlive the training. Returns
// InvalidArgument for an option outside its range, values that do not fit, an error of the samples,
// and the system's error if the folder of the file does not exist or is not writable. The callback
// returns the errors of the second session and of writing.
//
//   GW_ASSIGN_OR_RETURN(gw::Callback report,
//                       gw::Report(session, training, {.path = "report.html", .samples = test,
//                                                      .logits = logits, .label = label}));
absl::StatusOr<Callback> Report(const Session& session, const Training& training, ReportOptions options);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_WATCH_REPORT_H_
