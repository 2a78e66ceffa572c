// Tables of model files that are wrong in one place.
#ifndef GRADWEAVE_TESTS_FILES_SPOILED_MODELS_H_
#define GRADWEAVE_TESTS_FILES_SPOILED_MODELS_H_

#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include "absl/types/span.h"
#include "gradweave/gradweave.h"
#include "gradweave/proto/model.pb.h"
#include "gtest/gtest.h"
#include "tests/files/model_bytes.h"
#include "tests/files/refusal.h"

namespace gradweave {

// A change that makes a good model wrong, and the error of loading it (see ExpectRefused).
struct SpoiledModel {
  const char* name;
  std::function<void(proto::Model&)> spoil;
  const char* message;
};

// Saves the graph with its initial values. Returns the message in the file, without its checksum.
inline proto::Model MessageOf(const Graph& graph, const std::string& path) {
  const absl::StatusOr<Session> session = Session::Create(graph);
  EXPECT_TRUE(session.ok()) << session.status();
  EXPECT_TRUE(SaveModel(*session, path).ok());
  std::stringstream contents;
  contents << std::ifstream(path, std::ios::binary).rdbuf();
  proto::Model model;
  EXPECT_TRUE(model.ParseFromString(contents.str()));
  model.clear_crc32();
  return model;
}

// Expects that the good model loads, and that each spoiled one is refused.
inline void ExpectRefusals(absl::Span<const SpoiledModel> rows, const proto::Model& good) {
  const std::string path = WriteTestFile("malformed.gw", FileOf(good));
  ASSERT_TRUE(LoadModel(path).ok()) << LoadModel(path).status();
  for (const SpoiledModel& row : rows) {
    proto::Model bad = good;
    row.spoil(bad);
    WriteTestFile("malformed.gw", FileOf(bad));
    ExpectRefused(row.name, row.message, [&] { return LoadModel(path).status(); });
  }
}

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_FILES_SPOILED_MODELS_H_
