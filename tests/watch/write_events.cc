// Writes an event of each kind into a folder: write_events FOLDER. tensorboard_reads_events.py
// expects these values.
#include <iostream>
#include <string>

#include "gradweave/frontend/watch/event_file.h"
#include "gradweave/gradweave.h"

namespace {

absl::Status Write(const std::string& folder) {
  gw::Graph graph;
  gw::Scope scope(graph);
  const gw::Value x = scope.Input("x", gw::kFloat32, {gw::Dim("batch"), 3});
  graph.SetOutput("y", {gw::nn::Sequential{gw::nn::Dense{2}, gw::nn::Relu{}}(scope, x)});
  GW_ASSIGN_OR_RETURN(gw::EventWriter events, gw::EventWriter::Open(folder));
  GW_RETURN_IF_ERROR(events.AddStart(1));
  GW_RETURN_IF_ERROR(events.AddGraph(graph));
  for (int step = 1; step <= 3; ++step) {
    GW_RETURN_IF_ERROR(events.AddScalar("loss/train", step, 1.0 / step));
    GW_RETURN_IF_ERROR(events.AddHistogram("weights/w", step, gw::Tensor::Of<float>({4}, {0, 1, 1, 64})));
  }
  GW_RETURN_IF_ERROR(events.AddHistogram("nothing", 1, gw::Tensor(gw::kFloat32, {0})));
  GW_RETURN_IF_ERROR(events.AddImage("samples/0", 1, {.width = 2, .height = 1, .channels = 1, .pixels = {0, 255}}));
  GW_RETURN_IF_ERROR(
      events.AddImage("samples/1", 1, {.width = 1, .height = 2, .channels = 3, .pixels = {255, 0, 0, 0, 0, 255}}));
  GW_RETURN_IF_ERROR(events.Flush());
  // Another file goes on from step 2. Step 3 of the first file then does not count.
  GW_ASSIGN_OR_RETURN(gw::EventWriter more, gw::EventWriter::Open(folder));
  GW_RETURN_IF_ERROR(more.AddStart(2));
  GW_RETURN_IF_ERROR(more.AddScalar("loss/train", 2, 10));
  return more.Flush();
}

}  // namespace

int main(int argc, char** argv) {
  const absl::Status status = Write(argc > 1 ? argv[1] : ".");
  if (!status.ok()) std::cerr << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
