#include "gradweave/runtime/model_file/file_pair.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

constexpr char kWeights[] = ".weights";
constexpr char kTemporary[] = ".tmp";

absl::Status SystemError(const std::string& path, absl::string_view what) {
  return absl::ErrnoToStatus(errno, absl::StrCat(path, ": ", what));
}

// True for 16 hexadecimal digits, which make the names of one replacement its own.
bool IsGeneration(absl::string_view text) {
  return text.size() == 16 && text.find_first_not_of("0123456789abcdef") == absl::string_view::npos;
}

absl::Status WriteAll(int descriptor, const std::vector<Piece>& pieces, const std::string& path) {
  for (const Piece& piece : pieces) {
    const char* at = static_cast<const char*>(piece.data);
    for (size_t left = piece.bytes; left > 0;) {
      const ssize_t written = write(descriptor, at, left);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return SystemError(path, "the file cannot be written to its end");
      at += written;
      left -= static_cast<size_t>(written);
    }
  }
  if (fsync(descriptor) != 0) return SystemError(path, "the file cannot be written to its end");
  return absl::OkStatus();
}

void SyncFolder(const std::string& folder) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  // Some file systems cannot do it; the names are right all the same.
  (void)fsync(descriptor);
  close(descriptor);
}

bool SameFile(int descriptor, const std::string& path) {
  struct stat opened, named;
  return fstat(descriptor, &opened) == 0 && lstat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

}  // namespace

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

std::string NameOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

absl::StatusOr<Tensor> ReadWholeFile(const std::string& path, int64_t limit, bool map) {
  // Without O_NONBLOCK, the opening of a pipe waits for a writer.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return SystemError(path, "the file cannot be opened");
  const absl::Cleanup closer = [file] { close(file); };
  struct stat info;
  if (fstat(file, &info) != 0) return SystemError(path, "the file cannot be read");
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, ": this is not a regular file"));
  const int64_t bytes = info.st_size;
  if (bytes > limit) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": the file has ", bytes, " bytes, but the limit is ", limit));
  }
  if (map && bytes > 0) {
    // Changes to a loaded tensor stay in memory.
    void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED) return SystemError(path, "the file cannot be mapped into memory");
    std::shared_ptr<void> owner(data, [bytes](void* memory) { munmap(memory, static_cast<size_t>(bytes)); });
    return Tensor::View(kUint8, {bytes}, data, std::move(owner));
  }
  absl::StatusOr<Tensor> contents = Tensor::Create(kUint8, {bytes});
  if (!contents.ok()) {
    return absl::Status(contents.status().code(), absl::StrCat(path, ": ", contents.status().message()));
  }
  auto* to = static_cast<char*>(contents->mutable_raw_data());
  for (int64_t at = 0; at < bytes;) {
    constexpr int64_t kMostAtOnce = 1 << 30;
    const ssize_t got = read(file, to + at, static_cast<size_t>(std::min(bytes - at, kMostAtOnce)));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError(path, "the file cannot be read");
    if (got == 0) return absl::InvalidArgumentError(absl::StrCat(path, ": the file became shorter while it was read"));
    at += got;
  }
  return contents;
}

absl::StatusOr<std::unique_ptr<FilePair>> FilePair::Begin(const std::string& path) {
  std::unique_ptr<FilePair> pair(new FilePair());
  pair->path_ = path;
  struct stat info;
  if (lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode)) {
    const std::unique_ptr<char, void (*)(void*)> target(realpath(path.c_str(), nullptr), std::free);
    if (target == nullptr) return SystemError(path, "the target of the symbolic link cannot be found");
    pair->path_ = target.get();
  }
  pair->folder_ = FolderOf(pair->path_);
  if (stat(pair->path_.c_str(), &info) == 0) {
    if (!S_ISREG(info.st_mode)) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, ": this is not a regular file, and only such a file is replaced"));
    }
    if (access(pair->path_.c_str(), W_OK) != 0) return SystemError(path, "the file cannot be written");
    pair->mode_ = info.st_mode & 07777;
    pair->owner_ = info.st_uid;
    pair->group_ = info.st_gid;
    pair->replaces_ = true;
  }
  uint64_t generation = 0;
  if (getrandom(&generation, sizeof(generation), 0) != sizeof(generation)) {
    return SystemError(path, "the system has no random number for a temporary name");
  }
  const std::string digits = absl::StrFormat("%016x", generation);
  const std::string stem = absl::StrCat(pair->path_, ".", digits);
  pair->weights_name_ = absl::StrCat(NameOf(pair->path_), ".", digits, kWeights);
  pair->model_.path = stem + kTemporary;
  pair->weights_.path = absl::StrCat(stem, kWeights, kTemporary);
  return pair;
}

FilePair::~FilePair() {
  for (const Temporary& file : {model_, weights_}) {
    if (file.descriptor < 0) continue;
    unlink(file.path.c_str());
    close(file.descriptor);
  }
}

absl::Status FilePair::Error(absl::string_view what) const { return SystemError(path_, what); }

// Makes the file, locks it, and gives it the permissions of the one that it replaces.
absl::Status FilePair::Make(Temporary& file) {
  // Another writer takes a file without a lock for a leftover. If it does so before the file is
  // locked, it removes the file, and this writer makes it again.
  for (int attempt = 0; file.descriptor < 0; ++attempt) {
    const int made = open(file.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (made < 0 && (errno != EEXIST || attempt == 1000)) return Error("the file cannot be written");
    if (made >= 0 && (flock(made, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) && SameFile(made, file.path)) {
      file.descriptor = made;
    } else {
      if (made >= 0) close(made);
      usleep(1000);
    }
  }
  if (replaces_) {
    // Only root may give files away. A file that cannot be given to its old owner is the writer's.
    [[maybe_unused]] const int given = fchown(file.descriptor, owner_, group_);
    if (fchmod(file.descriptor, mode_) != 0) return Error("the file cannot be given its permissions");
  }
  return absl::OkStatus();
}

absl::Status FilePair::Write(Temporary& file, const std::vector<Piece>& pieces) {
  GW_RETURN_IF_ERROR(Make(file));
  return WriteAll(file.descriptor, pieces, path_);
}

absl::Status FilePair::WriteWeights(const std::vector<Piece>& pieces) { return Write(weights_, pieces); }

// Exchanging the names gives the old model a temporary name, so that of several writers each
// removes the weights of the model that it has replaced.
absl::Status FilePair::GiveName(WeightsOf weights_of) {
  const char *from = model_.path.c_str(), *to = path_.c_str();
  for (int attempt = 0; attempt < 100; ++attempt) {
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0) {
      KeepFiles();
      const absl::Cleanup remover = [from] { unlink(from); };
      RemoveWeights(weights_of(model_.path), weights_of);
      return absl::OkStatus();
    }
    if (errno == ENOENT && renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
      KeepFiles();
      return absl::OkStatus();
    }
    // Another writer was faster.
    if (errno == EEXIST) continue;
    if (errno != EINVAL && errno != ENOSYS) break;
    // This file system cannot exchange names.
    const std::string old_weights = weights_of(path_);
    if (rename(from, to) != 0) break;
    KeepFiles();
    RemoveWeights(old_weights, weights_of);
    return absl::OkStatus();
  }
  return Error("the file cannot be given its name");
}

// From here on the path has the new files, even if something fails later.
void FilePair::KeepFiles() {
  for (Temporary* file : {&model_, &weights_}) {
    if (file->descriptor >= 0) close(std::exchange(file->descriptor, -1));
  }
}

absl::Status FilePair::Commit(const std::vector<Piece>& model, WeightsOf weights_of) {
  GW_RETURN_IF_ERROR(Write(model_, model));
  const std::string weights = absl::StrCat(folder_, "/", weights_name_);
  if (weights_.descriptor >= 0) {
    if (rename(weights_.path.c_str(), weights.c_str()) != 0) return Error("the weights cannot be given their name");
    weights_.path = weights;
    SyncFolder(folder_);
  }
  GW_RETURN_IF_ERROR(GiveName(weights_of));
  SyncFolder(folder_);
  RemoveLeftovers(weights_of);
  return absl::OkStatus();
}

absl::Status FilePair::CommitStream(absl::FunctionRef<absl::Status(FILE* stream)> write) {
  GW_RETURN_IF_ERROR(Make(model_));
  // fclose closes its descriptor, and the file stays locked by the other one.
  const int descriptor = fcntl(model_.descriptor, F_DUPFD_CLOEXEC, 0);
  FILE* const stream = descriptor < 0 ? nullptr : fdopen(descriptor, "wb");
  if (stream == nullptr) {
    if (descriptor >= 0) close(descriptor);
    return Error("the file cannot be written");
  }
  absl::Cleanup closer = [stream] { std::fclose(stream); };
  GW_RETURN_IF_ERROR(write(stream));
  if (std::ferror(stream) != 0 || std::fflush(stream) != 0 || fsync(descriptor) != 0)
    return Error("the file cannot be written to its end");
  std::move(closer).Cancel();
  if (std::fclose(stream) != 0) return Error("the file cannot be written to its end");
  const auto no_weights = [](const std::string&) { return std::string(); };
  GW_RETURN_IF_ERROR(GiveName(no_weights));
  SyncFolder(folder_);
  RemoveLeftovers(no_weights);
  return absl::OkStatus();
}

// A model with the name of a temporary file is a leftover, so a process that is killed here leaves
// nothing that the next one does not remove.
absl::Status FilePair::Remove(WeightsOf weights_of) {
  if (replaces_ && rename(path_.c_str(), model_.path.c_str()) != 0) return Error("the file cannot be removed");
  RemoveLeftovers(weights_of);
  SyncFolder(folder_);
  return absl::OkStatus();
}

// A model may name any file as its weights; only those that a replacement of this path has made are
// removed.
void FilePair::RemoveWeights(const std::string& name, WeightsOf weights_of) const {
  absl::string_view middle = name;
  const bool is_own = absl::ConsumePrefix(&middle, NameOf(path_)) && absl::ConsumeSuffix(&middle, kWeights) &&
                      (middle.empty() || (absl::ConsumePrefix(&middle, ".") && IsGeneration(middle)));
  if (is_own && weights_of(path_) != name) unlink(absl::StrCat(folder_, "/", name).c_str());
}

void FilePair::RemoveLeftovers(WeightsOf weights_of) const {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(folder_.c_str()), closedir);
  if (folder == nullptr) return;
  std::vector<std::string> names;
  while (const dirent* entry = readdir(folder.get())) {
    absl::string_view middle = entry->d_name;
    if (!absl::ConsumePrefix(&middle, NameOf(path_)) || !absl::ConsumePrefix(&middle, ".")) continue;
    if (!absl::ConsumeSuffix(&middle, kTemporary)) continue;
    absl::ConsumeSuffix(&middle, kWeights);
    if (IsGeneration(middle)) names.push_back(entry->d_name);
  }
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(folder_, "/", name);
    const int file = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0) continue;
    const absl::Cleanup closer = [file] { close(file); };
    // The owner holds the lock while it lives. When it has just given the file another name, the
    // name is not this file's any more.
    if (flock(file, LOCK_EX | LOCK_NB) == 0 && SameFile(file, path)) {
      if (!absl::EndsWith(name, absl::StrCat(kWeights, kTemporary))) RemoveWeights(weights_of(path), weights_of);
      unlink(path.c_str());
    }
  }
}

}  // namespace gradweave
