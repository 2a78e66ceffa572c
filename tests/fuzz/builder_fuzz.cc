// Builder calls: bytes become a graph of any ops with any attributes, then its gradients, a
// session, and a run. Each call returns an error or a value of the type that the graph has.
#include <algorithm>

#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/verify.h"
#include "gradweave/runtime/model_file/graph_file.h"
#include "gradweave/runtime/session/session.h"
#include "tests/fuzz/graph_maker.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

void Differentiate(ByteReader& bytes, MadeGraph& made) {
  std::vector<Port> ys, xs;
  for (auto value = made.values.rbegin(); value != made.values.rend() && ys.size() < 2; ++value) {
    if (IsFloating(value->dtype())) ys.push_back(value->port());
  }
  for (const Value& input : made.inputs) {
    if (IsFloating(input.dtype()) && bytes.Flag()) xs.push_back(input.port());
  }
  if (xs.empty()) return;
  // A gradient that fails leaves its error in the graph.
  Graph graph = made.graph;
  auto values_of = [](Graph& of, const std::vector<Port>& ports) {
    std::vector<Value> values;
    for (Port port : ports) values.push_back(of.value(port));
    return values;
  };
  std::vector<Value> gradients = Gradients(values_of(graph, ys), values_of(graph, xs));
  if (bytes.Flag()) gradients = Gradients(gradients, values_of(graph, xs));
  CheckMessage(graph.status());
  if (!graph.status().ok()) return;
  std::vector<Port> ports;
  for (const Value& gradient : gradients) {
    GW_CHECK(gradient.valid());
    ports.push_back(gradient.port());
  }
  for (size_t i = 0; i < xs.size(); ++i) GW_CHECK(graph.type(ports[i]) == graph.type(xs[i]));
  made.graph = std::move(graph);
  for (Port port : ports) made.values.push_back(made.graph.value(port));
}

void RunMade(ByteReader& bytes, MadeGraph& made) {
  const DimBindings bindings = MakeBindings(bytes, made);
  if (!IsSmall(made.graph, bindings)) return;
  SessionOptions options{.threads = 1 + static_cast<int>(bytes.Below(2)), .memory_budget = 1 << 26};
  options.batch_tiles = bytes.Pick({BatchTiles::kAuto, BatchTiles::kAlways, BatchTiles::kNever});
  options.row_fusion = bytes.Pick({RowFusion::kAuto, RowFusion::kAlways, RowFusion::kNever});
  absl::StatusOr<Session> session = Session::Create(made.graph, options);
  CheckMessage(session.status());
  if (!session.ok()) return;
  std::vector<Feed> feeds;
  const bool wild = bytes.Flag();
  for (const Value& input : made.inputs) {
    feeds.emplace_back(input, MakeFeed(input.type(), bindings, bytes.Byte(), 1, wild));
  }
  std::vector<Fetch> fetches;
  std::vector<TensorType> types;
  for (auto value = made.values.rbegin(); value != made.values.rend() && fetches.size() < 6; ++value) {
    fetches.emplace_back(*value);
    types.push_back(value->type());
  }
  const absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, fetches);
  CheckMessage(results.status());
  GW_CHECK(results.status().code() != absl::StatusCode::kInternal, results.status().ToString());
  if (!results.ok()) return;
  GW_CHECK(results->size() == fetches.size());
  for (size_t i = 0; i < types.size(); ++i) {
    Shape shape;
    for (const Dim& dim : types[i].shape) shape.Append(dim.Substitute(bindings));
    GW_CHECK((*results)[i].type() == (TensorType{types[i].dtype, shape}), (*results)[i].type().ToString(), " is not ",
             types[i].ToString());
  }
}

void Run(ByteReader bytes) {
  MadeGraph made;
  AddInputs(bytes, bytes.Flag() ? kFloat32 : kFloat64, made);
  const bool wild = bytes.Flag();
  for (int i = 0; i < 24 && !bytes.empty() && made.values.size() < 64; ++i) {
    if (bytes.Below(4) == 0) {
      AddLayer(bytes, made);
    } else {
      AddAnyNode(bytes, wild, made);
    }
  }
  CheckMessage(made.graph.status());
  if (!made.graph.status().ok()) return;
  const absl::Status verified = VerifyGraph(made.graph);
  GW_CHECK(verified.ok(), verified.ToString());
  const absl::StatusOr<std::string> written = GraphToBytes(made.graph);
  GW_CHECK(written.ok(), written.status().ToString());
  const absl::StatusOr<Graph> again = GraphFromBytes(*written, CoreOps());
  GW_CHECK(again.ok(), again.status().ToString());
  Differentiate(bytes, made);
  RunMade(bytes, made);
}

}  // namespace
}  // namespace gradweave::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gradweave::fuzz::Run(gradweave::fuzz::ByteReader(data, size));
  return 0;
}
