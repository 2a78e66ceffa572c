// Runs the command `gradweave` as a user does, in a folder of its own.
#ifndef GRADWEAVE_TESTS_COMMAND_COMMAND_RUNNER_H_
#define GRADWEAVE_TESTS_COMMAND_COMMAND_RUNNER_H_

#include <string>

#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {

struct CommandResult {
  int code = -1;
  std::string out, err;
};

// A test has an empty folder, in which the command runs.
class CommandTest : public ::testing::Test {
 protected:
  void SetUp() override;

  // Runs `gradweave <arguments>` by the shell; `before` is put before it, such as "PATH=x".
  CommandResult Run(const std::string& arguments, const std::string& before = "") const;
  // Expects exit code 0 and nothing on stderr. Returns stdout.
  std::string RunOk(const std::string& arguments) const;
  // Expects an exit code, nothing on stdout and exactly this line on stderr, without "gradweave ".
  void ExpectError(const std::string& arguments, int code, const std::string& line) const;

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  std::string ReadFile(const std::string& name) const;
  void WriteFile(const std::string& name, const std::string& bytes) const;
  bool Exists(const std::string& name) const;

  // lenet.gw: the input "image", the outputs "logits" and "probabilities", and initial weights of
  // seed 1.
  void SaveLeNet() const;
  // step.gw: the same with the input "label", the output "loss" and the update "train_step".
  void SaveLeNetStep() const;

  std::string folder_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_COMMAND_COMMAND_RUNNER_H_
