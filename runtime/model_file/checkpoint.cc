#include "gradweave/runtime/model_file/checkpoint.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/version.h"
#include "gradweave/ops/registry.h"
#include "gradweave/proto/model.pb.h"
#include "gradweave/runtime/model_file/graph_file.h"

namespace gradweave {
namespace {

constexpr char kMagic[] = "gradweave model";
constexpr int64_t kFormatVersion = 1;
constexpr uint64_t kAlignment = 64;

absl::Status SystemError(const std::string& path, absl::string_view what) {
  return absl::ErrnoToStatus(errno, absl::StrCat(path, ": ", what));
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

std::string NameOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int number) : number_(number) {}
  ~FileDescriptor() {
    if (number_ >= 0) close(number_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int number() const { return number_; }

 private:
  int number_;
};

struct Piece {
  const void* data;
  size_t bytes;
};

// Writes the pieces under a temporary name in the same folder, and renames the file when they are
// on the disk.
absl::Status WriteAtomically(const std::string& path, const std::vector<Piece>& pieces) {
  const std::string temporary = absl::StrCat(path, ".tmp.", getpid());
  {
    FileDescriptor file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (file.number() < 0) return SystemError(path, "the file cannot be written");
    auto fail = [&] {
      const absl::Status status = SystemError(path, "the file cannot be written to its end");
      unlink(temporary.c_str());
      return status;
    };
    for (const Piece& piece : pieces) {
      const char* at = static_cast<const char*>(piece.data);
      for (size_t left = piece.bytes; left > 0;) {
        const ssize_t written = write(file.number(), at, left);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return fail();
        at += written;
        left -= static_cast<size_t>(written);
      }
    }
    if (fsync(file.number()) != 0) return fail();
  }
  if (rename(temporary.c_str(), path.c_str()) != 0) {
    const absl::Status status = SystemError(path, "the file cannot be given its name");
    unlink(temporary.c_str());
    return status;
  }
  FileDescriptor folder(open(FolderOf(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.number() >= 0) fsync(folder.number());
  return absl::OkStatus();
}

// A file mapped into memory; `data` is null for an empty file.
struct Mapping {
  std::shared_ptr<void> data;
  uint64_t bytes = 0;
};

absl::StatusOr<Mapping> MapFile(const std::string& path, int64_t limit) {
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.number() < 0) return SystemError(path, "the file cannot be opened");
  struct stat info;
  if (fstat(file.number(), &info) != 0) return SystemError(path, "the file cannot be read");
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, ": this is not a regular file"));
  if (info.st_size > limit) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": the file has ", info.st_size, " bytes, but the limit is ", limit));
  }
  if (info.st_size == 0) return Mapping{};
  // The mapping is private and writable: changes to a loaded tensor stay in memory.
  const size_t bytes = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.number(), 0);
  if (data == MAP_FAILED) return SystemError(path, "the file cannot be mapped into memory");
  return Mapping{std::shared_ptr<void>(data, [bytes](void* memory) { munmap(memory, bytes); }), bytes};
}

uint32_t Crc32(const void* data, size_t bytes) {
  return static_cast<uint32_t>(crc32_z(crc32_z(0, nullptr, 0), static_cast<const Bytef*>(data), bytes));
}

absl::Status CheckHeader(const proto::Model& message) {
  if (message.magic() != kMagic) return absl::InvalidArgumentError("this is not a Gradweave model");
  if (message.format_version() > kFormatVersion) {
    return absl::UnimplementedError(absl::StrCat("the file has format version ", message.format_version(),
                                                 ", and this Gradweave reads up to ", kFormatVersion,
                                                 "; upgrade Gradweave"));
  }
  if (message.format_version() < 1) return absl::InvalidArgumentError("the format version is not positive");
  return absl::OkStatus();
}

// Returns a variable's value from the weights file. The tensor shares the mapping.
absl::StatusOr<Tensor> ReadFromWeights(const proto::Variable& variable, const Mapping& weights) {
  GW_ASSIGN_OR_RETURN(TensorType type, ReadTensorType(variable.value()));
  const uint64_t bytes = static_cast<uint64_t>(type.byte_size());
  if (variable.length() != bytes || variable.offset() % kAlignment != 0 || variable.offset() > weights.bytes ||
      bytes > weights.bytes - variable.offset()) {
    return absl::InvalidArgumentError("its place in the weights file is wrong, or the weights file is truncated");
  }
  char* data = static_cast<char*>(weights.data.get()) + variable.offset();
  if (Crc32(data, bytes) != variable.crc32())
    return absl::InvalidArgumentError("its checksum is wrong: the weights file is damaged");
  return Tensor::View(type.dtype, type.shape.sizes(), data, weights.data);
}

absl::Status ReadVariables(const proto::Model& message, const std::string& path, int64_t limit, Model& model) {
  Mapping weights;
  if (!message.weights_file().empty()) {
    const std::string& name = message.weights_file();
    if (name.find('/') != std::string::npos || name.find('\0') != std::string::npos || name == "." || name == "..") {
      return absl::InvalidArgumentError("the name of the weights file has a folder");
    }
    GW_ASSIGN_OR_RETURN(weights, MapFile(absl::StrCat(FolderOf(path), "/", name), limit));
  }
  std::vector<bool> seen(model.graph.num_nodes(), false);
  for (const proto::Variable& variable : message.variables()) {
    const NodeId node = model.graph.FindNamed(variable.name());
    if (node < 0 || model.graph.node(node).op->kind != OpKind::kVariable) {
      return absl::InvalidArgumentError("there is a value for a variable that the graph does not have");
    }
    if (seen[node]) return absl::InvalidArgumentError(absl::StrCat("variable '", variable.name(), "' has two values"));
    seen[node] = true;
    const bool in_weights = variable.value().data().empty() && variable.length() > 0;
    absl::StatusOr<Tensor> value = in_weights ? ReadFromWeights(variable, weights) : ReadTensor(variable.value());
    if (value.ok() && !(value->type() == model.graph.node(node).outputs[0])) {
      value = absl::InvalidArgumentError(absl::StrCat("it is ", model.graph.node(node).outputs[0].ToString(),
                                                      " and its value ", value->type().ToString()));
    }
    if (!value.ok())
      return absl::Status(value.status().code(),
                          absl::StrCat("variable '", variable.name(), "': ", value.status().message()));
    model.variables.emplace_back(variable.name(), *std::move(value));
  }
  return absl::OkStatus();
}

absl::StatusOr<Model> ReadModel(const std::string& path, const Mapping& file, const LoadOptions& options) {
  // The magic is the first field, so the file begins with its tag, length and text. This tells
  // other files apart before parsing.
  const std::string start = absl::StrCat("\n", std::string(1, static_cast<char>(std::strlen(kMagic))), kMagic);
  if (file.bytes < start.size() || std::memcmp(file.data.get(), start.data(), start.size()) != 0)
    return absl::InvalidArgumentError("this is not a Gradweave model");
  proto::Model message;
  if (file.bytes > INT32_MAX || !message.ParseFromArray(file.data.get(), static_cast<int>(file.bytes))) {
    return absl::InvalidArgumentError("the file is damaged or truncated");
  }
  GW_RETURN_IF_ERROR(CheckHeader(message));
  // A file that ends between two fields still parses.
  if (!message.complete()) return absl::InvalidArgumentError("the file is truncated");
  Model model;
  GW_ASSIGN_OR_RETURN(model.graph,
                      ReadGraph(message.graph(), options.registry != nullptr ? *options.registry : CoreOps()));
  GW_RETURN_IF_ERROR(ReadVariables(message, path, options.memory_limit - static_cast<int64_t>(file.bytes), model));
  if (model.variables.size() !=
      static_cast<size_t>(std::count_if(model.graph.nodes().begin(), model.graph.nodes().end(),
                                        [](const Node& node) { return node.op->kind == OpKind::kVariable; }))) {
    return absl::InvalidArgumentError("the file is damaged: a variable has no value");
  }
  model.seed = message.seed();
  model.run_number = message.run_number();
  return model;
}

}  // namespace

absl::Status SaveModel(const Session& session, const std::string& path, SaveOptions options) {
  proto::Model message;
  message.set_magic(kMagic);
  message.set_format_version(kFormatVersion);
  message.set_producer(absl::StrCat("gradweave ", kVersion));
  WriteGraph(session.graph(), options.source_locations, *message.mutable_graph());
  message.set_seed(session.seed());
  message.set_run_number(session.run_number());
  message.set_complete(true);

  std::vector<std::pair<std::string, Tensor>> values;
  int64_t bytes = 0;
  for (const std::string& name : session.VariableNames()) {
    GW_ASSIGN_OR_RETURN(Tensor value, session.GetVariable(name));
    bytes += static_cast<int64_t>(value.byte_size());
    values.emplace_back(name, std::move(value));
  }
  const bool inside = bytes <= options.inline_limit;
  std::vector<Piece> weights;
  uint64_t offset = 0;
  static constexpr char kPadding[kAlignment] = {};
  for (const auto& [name, value] : values) {
    proto::Variable& variable = *message.add_variables();
    variable.set_name(name);
    WriteTensor(value, inside, *variable.mutable_value());
    if (inside || value.byte_size() == 0) continue;
    variable.set_offset(offset);
    variable.set_length(value.byte_size());
    variable.set_crc32(Crc32(value.raw_data(), value.byte_size()));
    weights.push_back({value.raw_data(), value.byte_size()});
    offset += value.byte_size();
    const uint64_t padding = (kAlignment - offset % kAlignment) % kAlignment;
    weights.push_back({kPadding, padding});
    offset += padding;
  }
  if (!inside) {
    // Write the weights before the file that refers to them.
    message.set_weights_file(NameOf(path) + ".weights");
    GW_RETURN_IF_ERROR(WriteAtomically(path + ".weights", weights));
  }
  const std::string contents = message.SerializeAsString();
  return WriteAtomically(path, {{contents.data(), contents.size()}});
}

absl::StatusOr<Model> LoadModel(const std::string& path, LoadOptions options) {
  GW_ASSIGN_OR_RETURN(Mapping file, MapFile(path, options.memory_limit));
  absl::StatusOr<Model> model = ReadModel(path, file, options);
  if (model.ok() || absl::StartsWith(model.status().message(), path)) return model;
  return absl::Status(model.status().code(), absl::StrCat(path, ": ", model.status().message()));
}

absl::StatusOr<Session> CreateSession(const Model& model, SessionOptions options) {
  options.seed = model.seed;
  options.run_number = model.run_number;
  options.variables = model.variables;
  return Session::Create(model.graph, std::move(options));
}

}  // namespace gradweave
