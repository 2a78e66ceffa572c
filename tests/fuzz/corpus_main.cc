// Runs a fuzz target as a test, without libFuzzer: first on all files of its corpus, then on
// seeded mutations of them for some seconds.
//
//   bazel-bin/tests/fuzz/model_corpus_test [--seconds=2] [--seed=1] FILE_OR_FOLDER...
//
// Each input has ten seconds. If one ends the process, it is written to a file, whose name is
// printed.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "tests/fuzz/target.h"

// libFuzzer calls the mutator of a target that has one; so does this program.
extern "C" __attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                                                unsigned seed);

namespace gradweave::fuzz {
namespace {

constexpr size_t kMostBytes = 4096;  // The greatest size of a mutated input, the same as in tools/fuzz.
constexpr unsigned kSecondsOfInput = 10;

// The input that runs, for the signal handler.
const char* running_data = nullptr;
size_t running_size = 0;
char finding_path[4096];

void Say(const char* text) {
  if (write(STDERR_FILENO, text, std::strlen(text)) < 0) _exit(1);
}

// Writes the input to a file. Calls only functions that a signal handler may call.
void KeepFinding(int signal) {
  Say(signal == SIGALRM ? "\nan input takes too long\n" : "\nan input ends the process\n");
  const int file = open(finding_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file >= 0 && write(file, running_data, running_size) == static_cast<ssize_t>(running_size)) {
    Say("the input is in ");
    Say(finding_path);
    Say("\n");
  }
  ::signal(signal, SIG_DFL);
  raise(signal == SIGALRM ? SIGKILL : signal);
}

void Run(const std::string& input) {
  running_data = input.data();
  running_size = input.size();
  alarm(kSecondsOfInput);
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  alarm(0);
}

std::string Mutated(const std::string& input, unsigned seed) {
  if (LLVMFuzzerCustomMutator == nullptr) return MutatedBytes(input, kMostBytes, seed);
  std::string result = input;
  result.resize(std::max(input.size(), kMostBytes));
  result.resize(LLVMFuzzerCustomMutator(reinterpret_cast<uint8_t*>(result.data()), input.size(), result.size(), seed));
  return result;
}

std::vector<std::string> ReadCorpus(const std::vector<std::string>& paths) {
  std::vector<std::string> files, inputs;
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(path)) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  for (const std::string& file : files) {
    std::ifstream stream(file, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
    if (stream.bad() || !stream.is_open()) {
      std::cerr << file << ": cannot be read\n";
      std::exit(1);
    }
  }
  return inputs;
}

int Main(int argc, char** argv) {
  int64_t seconds = 2;
  uint32_t seed = 1;
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    const bool valid = absl::ConsumePrefix(&argument, "--seconds=") ? absl::SimpleAtoi(argument, &seconds)
                       : absl::ConsumePrefix(&argument, "--seed=")  ? absl::SimpleAtoi(argument, &seed)
                       : absl::StartsWith(argument, "--")           ? false
                                                                    : true;
    if (!valid) {
      std::cerr << argv[i] << ": the flags are --seconds=N and --seed=N\n";
      return 1;
    }
    if (!absl::StartsWith(argv[i], "--")) paths.emplace_back(argv[i]);
  }
  const std::vector<std::string> corpus = ReadCorpus(paths);
  if (corpus.empty()) {
    std::cerr << "there is no input; name files or folders\n";
    return 1;
  }

  const char* folder = std::getenv("TEST_UNDECLARED_OUTPUTS_DIR");
  std::snprintf(finding_path, sizeof(finding_path), "%s/finding", folder == nullptr ? "/tmp" : folder);
  for (int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) ::signal(signal, KeepFinding);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // A sanitizer reserves terabytes of addresses.
  const rlimit memory{rlim_t{4} << 30, rlim_t{4} << 30};
  setrlimit(RLIMIT_AS, &memory);
#endif

  for (const std::string& input : corpus) Run(input);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  int64_t runs = 0;
  std::string input;
  while (std::chrono::steady_clock::now() < end) {
    // Each input of the corpus is followed by mutations of mutations.
    if (runs % 8 == 0) input = corpus[runs / 8 % corpus.size()];
    input = Mutated(input, seed + static_cast<uint32_t>(runs));
    Run(input);
    ++runs;
  }
  std::cout << corpus.size() << " inputs of the corpus and " << runs << " mutations\n";
  return 0;
}

}  // namespace
}  // namespace gradweave::fuzz

int main(int argc, char** argv) { return gradweave::fuzz::Main(argc, argv); }
