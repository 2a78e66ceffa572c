#include "tests/command/command_runner.h"

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "examples/lenet_layers.h"

namespace gradweave {
namespace {

std::string BytesOf(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// Saves LeNet, with a training step if it is asked for.
absl::Status Save(const std::string& path, bool with_step) {
  Graph graph;
  Scope scope(graph);
  const Value image = scope.Input("image", kFloat32, {Dim("batch"), 1, 28, 28});
  const Value logits = examples::LeNet()(scope, image);
  graph.SetOutput("logits", {logits});
  graph.SetOutput("probabilities", {Softmax(logits)});
  if (with_step) {
    const Value label = scope.Input("label", kInt32, {Dim("batch")});
    const Value loss = nn::SoftmaxCrossEntropy(logits, label);
    const Update step = optim::Sgd{.learning_rate = 0.9}.Minimize(loss);
    graph.SetOutput("loss", {loss});
    graph.SetOutput("train_step", step.assignments);
  }
  GW_ASSIGN_OR_RETURN(const Session session, Session::Create(graph, {.threads = 1, .seed = 1}));
  return SaveModel(session, path);
}

}  // namespace

void CommandTest::SetUp() {
  const auto* const test = ::testing::UnitTest::GetInstance()->current_test_info();
  folder_ = absl::StrCat(::testing::TempDir(), "/", test->test_suite_name(), "_", test->name());
  std::filesystem::remove_all(folder_);
  std::filesystem::create_directories(folder_);
}

CommandResult CommandTest::Run(const std::string& arguments, const std::string& before) const {
  const std::string program = std::filesystem::absolute("frontend/command/gradweave");
  const std::string line = absl::StrCat("cd '", folder_, "' && ", before, " '", program, "' ", arguments, " >'",
                                        folder_, "/.out' 2>'", folder_, "/.err' </dev/null");
  const int status = std::system(line.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, BytesOf(Path(".out")), BytesOf(Path(".err"))};
}

std::string CommandTest::RunOk(const std::string& arguments) const {
  const CommandResult result = Run(arguments);
  EXPECT_EQ(result.code, 0) << arguments << "\n" << result.err;
  EXPECT_EQ(result.err, "") << arguments;
  return result.out;
}

void CommandTest::ExpectError(const std::string& arguments, int code, const std::string& line) const {
  const CommandResult result = Run(arguments);
  EXPECT_EQ(result.code, code) << arguments;
  EXPECT_EQ(result.out, "") << arguments;
  EXPECT_EQ(result.err, absl::StrCat("gradweave ", line, "\n")) << arguments;
}

std::string CommandTest::ReadFile(const std::string& name) const { return BytesOf(Path(name)); }

void CommandTest::WriteFile(const std::string& name, const std::string& bytes) const {
  std::ofstream(Path(name), std::ios::binary) << bytes;
}

bool CommandTest::Exists(const std::string& name) const { return std::filesystem::exists(Path(name)); }

void CommandTest::SaveLeNet() const { ASSERT_TRUE(Save(Path("lenet.gw"), false).ok()); }
void CommandTest::SaveLeNetStep() const { ASSERT_TRUE(Save(Path("step.gw"), true).ok()); }

}  // namespace gradweave
