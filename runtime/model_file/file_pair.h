// A model file and the weights file that it names, replaced together.
//
// A weights file has a name of its own, "<model>.<16 hexadecimal digits>.weights", and the model
// that names it takes its place last, in one step of the file system. So the path always has a
// whole model, even if the process is killed or other processes save to the path. Weights of a
// replaced model are removed after it.
#ifndef GRADWEAVE_RUNTIME_MODEL_FILE_FILE_PAIR_H_
#define GRADWEAVE_RUNTIME_MODEL_FILE_FILE_PAIR_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {

// The folder of a path ("." if it names none), and the name behind it.
std::string FolderOf(const std::string& path);
std::string NameOf(const std::string& path);

// Reads a whole regular file of at most `limit` bytes into memory aligned to 64. Folders, pipes and
// devices are InvalidArgument and are not waited for; a larger file is ResourceExhausted; a missing
// one is NotFound. With `map`, the memory is a private mapping of the file: changes and truncations
// of the file reach it.
absl::StatusOr<Tensor> ReadWholeFile(const std::string& path, int64_t limit, bool map = false);

// Bytes to write.
struct Piece {
  const void* data;
  size_t bytes;
};

// The replacement of one path.
class FilePair {
 public:
  // Returns the name of the weights file that a model file names, or nothing if it names none or is
  // damaged.
  using WeightsOf = absl::FunctionRef<std::string(const std::string& path)>;

  // Symbolic links are followed. FailedPrecondition if the path belongs to anything other than a
  // regular file, and the system's error if the file is not writable.
  static absl::StatusOr<std::unique_ptr<FilePair>> Begin(const std::string& path);
  // Removes what was written, unless it was committed.
  ~FilePair();
  FilePair(const FilePair&) = delete;
  FilePair& operator=(const FilePair&) = delete;

  // The name of the weights file, without a folder.
  const std::string& weights_name() const { return weights_name_; }
  // Writes the weights file under a temporary name, to the disk.
  absl::Status WriteWeights(const std::vector<Piece>& pieces);
  // Writes the model and gives both files their names. Then removes the weights of the model that
  // was replaced, and files that killed processes have left. After an error the path has its old
  // contents.
  absl::Status Commit(const std::vector<Piece>& model, WeightsOf weights_of);
  // The same for a file of one part that has no weights: `write` writes it. Returns the error of
  // `write`, or the system's with the path.
  absl::Status CommitStream(absl::FunctionRef<absl::Status(FILE* stream)> write);
  // In place of a replacement: removes files that killed processes have left.
  void RemoveLeftovers(WeightsOf weights_of) const;
  // In place of a replacement: removes the model, its weights, and files that killed processes have
  // left.
  absl::Status Remove(WeightsOf weights_of);

 private:
  struct Temporary {
    std::string path;
    int descriptor = -1;  // Locked while this process uses the file.
  };

  FilePair() = default;
  absl::Status Make(Temporary& file);
  absl::Status Write(Temporary& file, const std::vector<Piece>& pieces);
  absl::Status GiveName(WeightsOf weights_of);
  void KeepFiles();
  void RemoveWeights(const std::string& name, WeightsOf weights_of) const;
  absl::Status Error(absl::string_view what) const;

  std::string path_;  // Without links.
  std::string folder_;
  std::string weights_name_;
  unsigned mode_ = 0, owner_ = 0, group_ = 0;  // The permissions of the file that is replaced.
  bool replaces_ = false;
  Temporary model_, weights_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_MODEL_FILE_FILE_PAIR_H_
