// Model files. An input is a message Model without its checksum, or any other bytes. A model that
// loads is run on small feeds, saved, and loaded again.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/ops/registry.h"
#include "gradweave/proto/model.pb.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "tests/files/model_bytes.h"
#include "tests/fuzz/message_mutator.h"
#include "tests/fuzz/run_model.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

constexpr int64_t kMostBytes = 1 << 24;

// Texts that have a meaning in a file.
const std::vector<std::string>& Words() {
  static const auto* const words = [] {
    auto* all =
        new std::vector<std::string>{"float32", "float64", "int32",      "int64", "uint8",      "bool",
                                     "0",       "1",       "3",          "-1",    "n",          "n + 1",
                                     "2*n",     "n*m",     "floor(n/2)", "-n",    "4294967296", "9223372036854775807",
                                     "",        "cpu:0",   "cuda",       "x",     "v/weight_0", "\x1b[2J",
                                     "..\\/w",  "\xff\xfe"};
    for (const auto& op : CoreOps().definitions()) {
      all->push_back(op->name);
      for (const AttributeDefinition& attribute : op->attributes) {
        if (std::find(all->begin(), all->end(), attribute.name) == all->end()) all->push_back(attribute.name);
      }
    }
    return all;
  }();
  return *words;
}

}  // namespace
}  // namespace gradweave::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gradweave;  // NOLINT
  proto::Model message;
  std::string file(fuzz::AsText(data, size));
  if (message.ParseFromString(file)) file = FileOf(message);
  const std::string path = fuzz::ScratchFile("model.gw", file);
  const absl::StatusOr<Model> model = LoadModel(path, {.memory_limit = fuzz::kMostBytes});
  fuzz::CheckMessage(model.status());
  GW_CHECK(model.ok() || absl::StartsWith(model.status().message(), path.substr(0, path.rfind('/'))),
           model.status().ToString());
  if (model.ok()) fuzz::RunModel(*model);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  return gradweave::fuzz::MutatedFile<gradweave::proto::Model>(data, size, max_size, gradweave::fuzz::Words(), seed);
}
