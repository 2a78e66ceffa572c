#include "gradweave/runtime/model_file/checkpoint.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/version.h"
#include "gradweave/ops/registry.h"
#include "gradweave/proto/model.pb.h"
#include "gradweave/runtime/model_file/built_size.h"
#include "gradweave/runtime/model_file/file_pair.h"
#include "gradweave/runtime/model_file/graph_file.h"
#include "gradweave/runtime/model_file/model_from_bytes.h"

namespace gradweave {
namespace {

constexpr char kMagic[] = "gradweave model";
// The versions that are written: the second one only if a value has a dtype that readers of the
// first one do not have.
constexpr int64_t kFormatVersion = 2, kFormatVersionOfStorage = 3;
// A file of format version 2 ends with Model.crc32: its tag, 16*8 + 5 as a varint, and four bytes.
constexpr char kChecksumTag[] = "\x85\x01";
constexpr size_t kTrailerBytes = 6;

// Continues the checksum of the bytes before these.
uint32_t Crc32(const void* data, size_t bytes, uint32_t before = 0) {
  return bytes == 0 ? before : static_cast<uint32_t>(crc32_z(before, static_cast<const Bytef*>(data), bytes));
}

// Errors quote names of the file, which may hold any bytes. Those that a terminal would obey or
// cannot show are written in hexadecimal, and a message is not longer than a line or two.
std::string Printable(absl::string_view message) {
  constexpr size_t kMostBytes = 1000;
  std::string result;
  for (char c : message.substr(0, kMostBytes)) {
    const bool is_plain = c >= ' ' && c <= '~';
    absl::StrAppend(&result, is_plain ? std::string(1, c) : absl::StrFormat("\\x%02x", static_cast<unsigned char>(c)));
  }
  return message.size() > kMostBytes ? result + " ..." : result;
}

absl::Status CheckHeader(const proto::Model& message) {
  if (message.magic() != kMagic) return absl::InvalidArgumentError("this is not a Gradweave model");
  if (message.format_version() > kFormatVersionOfStorage) {
    return absl::UnimplementedError(absl::StrCat("the file has format version ", message.format_version(),
                                                 ", and this Gradweave reads up to ", kFormatVersionOfStorage,
                                                 "; upgrade Gradweave"));
  }
  if (message.format_version() < 1) {
    return absl::InvalidArgumentError(absl::StrCat("the file has format version ", message.format_version(),
                                                   ", and the first one is 1: it is damaged or truncated"));
  }
  return absl::OkStatus();
}

// Checks the checksum over the whole file. Files of version 1 have none.
absl::Status CheckChecksum(const proto::Model& message, const Tensor& file) {
  if (message.format_version() < 2 && !message.has_crc32()) return absl::OkStatus();
  const char* const bytes = static_cast<const char*>(file.raw_data());
  const size_t covered = file.byte_size() - std::min(kTrailerBytes, file.byte_size());
  if (!message.has_crc32() || std::memcmp(bytes + covered, kChecksumTag, 2) != 0)
    return absl::InvalidArgumentError("the file is truncated");
  if (Crc32(bytes, covered) != message.crc32())
    return absl::InvalidArgumentError("the checksum is wrong: the file is damaged");
  return absl::OkStatus();
}

// Subtracts the bytes of the message and of the built graph from the room, or returns an error.
absl::StatusOr<proto::Model> ParseModel(const Tensor& file, int64_t limit, int64_t& room) {
  // The magic is the first field, so the file begins with its tag, length and text. This tells
  // other files apart before parsing.
  const std::string start = absl::StrCat("\n", std::string(1, static_cast<char>(std::strlen(kMagic))), kMagic);
  if (file.byte_size() < start.size() || std::memcmp(file.raw_data(), start.data(), start.size()) != 0)
    return absl::InvalidArgumentError("this is not a Gradweave model");
  const absl::string_view bytes(static_cast<const char*>(file.raw_data()), file.byte_size());
  room -= BuiltBytes(bytes, MessageKind::kModel, room);
  if (room < 0) return BeyondMemoryLimit(limit);
  proto::Model message;
  if (file.byte_size() > INT32_MAX || !message.ParseFromArray(file.raw_data(), static_cast<int>(file.byte_size()))) {
    return absl::InvalidArgumentError("the file is damaged or truncated");
  }
  GW_RETURN_IF_ERROR(CheckHeader(message));
  GW_RETURN_IF_ERROR(CheckChecksum(message, file));
  // A file that ends between two fields still parses.
  if (!message.complete()) return absl::InvalidArgumentError("the file is truncated");
  const std::string& weights = message.weights_file();
  if (weights.find('/') != std::string::npos || weights.find('\0') != std::string::npos || weights == "." ||
      weights == "..") {
    return absl::InvalidArgumentError(
        absl::StrCat("the weights file is named '", weights,
                     "'; it has to be the name of a file beside the model, without a folder"));
  }
  return message;
}

// A parsed model file and the bytes of its weights file.
struct ModelFile {
  proto::Model message;
  std::optional<Tensor> weights;
  int64_t room;  // Bytes left of the memory limit.
};

// Another process may replace the model between the reading of its two files. Then the weights of
// the first model are gone, and the model that the path has now names others.
absl::StatusOr<ModelFile> ReadFiles(const std::string& path, const LoadOptions& options) {
  std::string missing;
  while (true) {
    GW_ASSIGN_OR_RETURN(const Tensor file, ReadWholeFile(path, options.memory_limit));
    int64_t room = options.memory_limit - static_cast<int64_t>(file.byte_size());
    GW_ASSIGN_OR_RETURN(proto::Model message, ParseModel(file, options.memory_limit, room));
    if (message.weights_file().empty()) return ModelFile{std::move(message), std::nullopt, room};
    const std::string weights_path = absl::StrCat(FolderOf(path), "/", message.weights_file());
    absl::StatusOr<Tensor> weights = ReadWholeFile(weights_path, room, options.map_weights);
    if (weights.ok()) {
      if (message.format_version() >= 2 && weights->byte_size() != message.weights_length()) {
        return absl::InvalidArgumentError(absl::StrCat(weights_path, ": the file has ", weights->byte_size(),
                                                       " bytes and should have ", message.weights_length(),
                                                       ": it is truncated or damaged"));
      }
      if (message.format_version() >= 2 &&
          Crc32(weights->raw_data(), weights->byte_size()) != message.weights_crc32()) {
        return absl::InvalidArgumentError(absl::StrCat(weights_path, ": the checksum is wrong: the file is damaged"));
      }
      room -= static_cast<int64_t>(weights->byte_size());
      return ModelFile{std::move(message), *std::move(weights), room};
    }
    if (!absl::IsNotFound(weights.status()) || message.weights_file() == missing) return weights.status();
    missing = message.weights_file();
  }
}

// Returns the value of a variable in a file of format version 1, which may be in the weights file.
absl::StatusOr<Tensor> ReadValueOfVersion1(const proto::Variable& variable, const Tensor* weights) {
  if (!variable.value().data().empty() || variable.length() == 0) return ReadTensor(variable.value(), nullptr);
  proto::Tensor placed = variable.value();
  placed.set_offset(variable.offset());
  placed.set_length(variable.length());
  GW_ASSIGN_OR_RETURN(Tensor value, ReadTensor(placed, weights));
  if (Crc32(value.raw_data(), value.byte_size()) != variable.crc32())
    return absl::InvalidArgumentError("its checksum is wrong: the weights file is damaged");
  return value;
}

absl::Status ReadVariables(const proto::Model& message, const Tensor* weights, Model& model) {
  std::vector<bool> seen(model.graph.num_nodes(), false);
  for (const proto::Variable& variable : message.variables()) {
    const NodeId node = model.graph.FindNamed(variable.name());
    if (node < 0 || model.graph.node(node).op->kind != OpKind::kVariable) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is a value for '", variable.name(), "', which is not a variable of the graph"));
    }
    const std::string& name = variable.name();
    if (seen[node]) return absl::InvalidArgumentError(absl::StrCat("variable '", name, "' has two values"));
    seen[node] = true;
    absl::StatusOr<Tensor> value =
        message.format_version() < 2 ? ReadValueOfVersion1(variable, weights) : ReadTensor(variable.value(), weights);
    if (value.ok() && !(value->type() == model.graph.node(node).outputs[0])) {
      value = absl::InvalidArgumentError(absl::StrCat("it is ", model.graph.node(node).outputs[0].ToString(),
                                                      " and its value ", value->type().ToString()));
    }
    if (!value.ok())
      return absl::Status(value.status().code(), absl::StrCat("variable '", name, "': ", value.status().message()));
    model.variables.emplace_back(variable.name(), *std::move(value));
  }
  for (const Node& node : model.graph.nodes()) {
    if (node.op->kind == OpKind::kVariable && !seen[node.id]) {
      return absl::InvalidArgumentError(absl::StrCat("variable '", node.name, "' has no value"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadExtra(const proto::Model& message, const Tensor* weights, Model& model) {
  for (const proto::Variable& extra : message.extra()) {
    absl::StatusOr<Tensor> value = ReadTensor(extra.value(), weights);
    if (!value.ok()) {
      return absl::Status(value.status().code(),
                          absl::StrCat("tensor '", extra.name(), "': ", value.status().message()));
    }
    model.extra.emplace_back(extra.name(), *std::move(value));
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelFile> ReadBytes(absl::string_view bytes, const LoadOptions& options) {
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (size > options.memory_limit) return BeyondMemoryLimit(options.memory_limit);
  int64_t room = options.memory_limit - size;
  const Tensor file = Tensor::View(kUint8, {size}, const_cast<char*>(bytes.data()));  // To read from.
  GW_ASSIGN_OR_RETURN(proto::Model message, ParseModel(file, options.memory_limit, room));
  if (!message.weights_file().empty()) {
    return absl::InvalidArgumentError(absl::StrCat("the weights of the model are in the file '", message.weights_file(),
                                                   "' beside it: load the model by its path"));
  }
  return ModelFile{std::move(message), std::nullopt, room};
}

absl::StatusOr<Model> BuildModel(const ModelFile& file, const LoadOptions& options) {
  const Tensor* weights = file.weights.has_value() ? &*file.weights : nullptr;
  Model model;
  const OpRegistry& registry = options.registry != nullptr ? *options.registry : CoreOps();
  GW_ASSIGN_OR_RETURN(model.graph, ReadGraph(file.message.graph(), registry, weights, options.memory_limit, file.room));
  GW_RETURN_IF_ERROR(ReadVariables(file.message, weights, model));
  GW_RETURN_IF_ERROR(ReadExtra(file.message, weights, model));
  model.seed = file.message.seed();
  model.run_number = file.message.run_number();
  return model;
}

// Returns the name of the weights file of a model file, or nothing.
std::string WeightsOf(const std::string& path) {
  const absl::StatusOr<Tensor> file = ReadWholeFile(path, INT32_MAX);
  if (!file.ok()) return "";
  const int64_t limit = LoadOptions().memory_limit;
  int64_t room = limit;
  const absl::StatusOr<proto::Model> message = ParseModel(*file, limit, room);
  return message.ok() ? message->weights_file() : "";
}

// Each variable of the graph has one value, which is of its type. Else the file could not be
// loaded.
absl::Status CheckVariables(const Model& model) {
  std::vector<bool> seen(model.graph.num_nodes(), false);
  for (const auto& [name, value] : model.variables) {
    const NodeId id = model.graph.FindNamed(name);
    if (id < 0 || model.graph.node(id).op->kind != OpKind::kVariable || seen[id]) {
      return absl::InvalidArgumentError(absl::StrCat("SaveModel: there is a value for '", name,
                                                     id >= 0 && seen[id] ? "' already" : "', and no such variable"));
    }
    seen[id] = true;
    const TensorType& type = model.graph.node(id).outputs[0];
    if (value.type() == type) continue;
    return absl::InvalidArgumentError(absl::StrCat("SaveModel: variable '", name, "' is ", type.ToString(),
                                                   " and its value ", value.type().ToString()));
  }
  for (const Node& node : model.graph.nodes()) {
    if (node.op->kind != OpKind::kVariable || seen[node.id]) continue;
    return absl::InvalidArgumentError(absl::StrCat("SaveModel: variable '", node.name, "' has no value"));
  }
  return absl::OkStatus();
}

// True if a value of the graph, or of a body in it, has a dtype that came with format version 3.
bool HasStorageDTypes(const Graph& graph) {
  std::vector<const Graph*> graphs = {&graph};
  while (!graphs.empty()) {
    const Graph& next = *graphs.back();
    graphs.pop_back();
    for (const Node& node : next.nodes()) {
      for (const TensorType& output : node.outputs) {
        if (!kComputed.Contains(output.dtype)) return true;
      }
      for (const AttributeValue& attribute : node.attributes) {
        if (const Body* body = std::get_if<Body>(&attribute)) graphs.push_back(body->get());
      }
    }
  }
  return false;
}

bool HasStorageDTypes(const Model& model) {
  return HasStorageDTypes(model.graph) || std::any_of(model.extra.begin(), model.extra.end(), [](const auto& extra) {
           return !kComputed.Contains(extra.second.dtype());
         });
}

absl::StatusOr<std::string> Serialize(const proto::Model& message) {
  const size_t bytes = message.ByteSizeLong();
  std::string contents;
  if (bytes > INT32_MAX - kTrailerBytes || !message.SerializeToString(&contents)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the graph needs ", bytes, " bytes, and a model file holds less than 2 GiB besides its weights"));
  }
  const uint32_t checksum = Crc32(contents.data(), contents.size());
  contents.append(kChecksumTag, 2);
  contents.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  return contents;
}

}  // namespace

absl::StatusOr<Model> ModelOf(const Session& session) try {
  Model model{.graph = session.graph(), .seed = session.seed(), .run_number = session.run_number()};
  for (const std::string& name : session.VariableNames()) {
    GW_ASSIGN_OR_RETURN(Tensor value, session.GetVariable(name));
    model.variables.emplace_back(name, std::move(value));
  }
  return model;
}
GW_CATCH_OUT_OF_MEMORY("ModelOf")

absl::Status SaveModel(const Session& session, const std::string& path, SaveOptions options) {
  GW_ASSIGN_OR_RETURN(const Model model, ModelOf(session));
  return SaveModel(model, path, options);
}

absl::Status SaveModel(const Model& model, const std::string& path, SaveOptions options) try {
  GW_RETURN_IF_ERROR(CheckVariables(model));
  proto::Model message;
  message.set_magic(kMagic);
  message.set_format_version(HasStorageDTypes(model) ? kFormatVersionOfStorage : kFormatVersion);
  message.set_producer(absl::StrCat("gradweave ", kVersion));
  message.set_seed(model.seed);
  message.set_run_number(model.run_number);
  message.set_complete(true);

  auto write_tensors = [&](SavedWeights* weights) {
    message.clear_graph();
    message.clear_variables();
    message.clear_extra();
    WriteGraph(model.graph, options.source_locations, weights, *message.mutable_graph());
    auto write = [&](const NamedTensors& values, auto add) {
      for (const auto& [name, value] : values) {
        proto::Variable& variable = *add();
        variable.set_name(name);
        WriteTensor(value, weights, *variable.mutable_value());
      }
    };
    write(model.variables, [&] { return message.add_variables(); });
    write(model.extra, [&] { return message.add_extra(); });
  };
  SavedWeights weights;
  write_tensors(&weights);
  const bool inside = weights.bytes <= static_cast<uint64_t>(std::max<int64_t>(options.inline_limit, 0));
  if (inside) write_tensors(nullptr);

  GW_ASSIGN_OR_RETURN(const std::unique_ptr<FilePair> files, FilePair::Begin(path));
  if (!inside) {
    static constexpr char kPadding[SavedWeights::kAlignment] = {};
    std::vector<Piece> pieces;
    uint32_t checksum = 0;
    for (const Tensor& tensor : weights.tensors) {
      const size_t bytes = tensor.byte_size();
      for (const Piece& piece : {Piece{tensor.raw_data(), bytes},
                                 Piece{kPadding, RoundUp<size_t>(bytes, SavedWeights::kAlignment) - bytes}}) {
        pieces.push_back(piece);
        checksum = Crc32(piece.data, piece.bytes, checksum);
      }
    }
    message.set_weights_file(files->weights_name());
    message.set_weights_length(weights.bytes);
    message.set_weights_crc32(checksum);
    GW_RETURN_IF_ERROR(files->WriteWeights(pieces));
  }
  GW_ASSIGN_OR_RETURN(const std::string contents, Serialize(message));
  return files->Commit({{contents.data(), contents.size()}}, WeightsOf);
}
GW_CATCH_OUT_OF_MEMORY("SaveModel")

absl::Status RemoveLeftovers(const std::string& path) try {
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<FilePair> files, FilePair::Begin(path));
  files->RemoveLeftovers(WeightsOf);
  return absl::OkStatus();
}
GW_CATCH_OUT_OF_MEMORY("RemoveLeftovers")

absl::Status RemoveModel(const std::string& path) try {
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<FilePair> files, FilePair::Begin(path));
  return files->Remove(WeightsOf);
}
GW_CATCH_OUT_OF_MEMORY("RemoveModel")

absl::StatusOr<Model> LoadModel(const std::string& path, LoadOptions options) try {
  absl::StatusOr<ModelFile> file = ReadFiles(path, options);
  absl::StatusOr<Model> model = file.ok() ? BuildModel(*file, options) : file.status();
  if (model.ok()) return model;
  // The user has given the path and its folder; the rest may come from the file. The weights file
  // is in the folder of the model, and its errors name it.
  absl::string_view message = model.status().message();
  std::string start = absl::StrCat(path, ": ");
  for (const std::string& known : {start, absl::StrCat(FolderOf(path), "/")}) {
    if (!absl::ConsumePrefix(&message, known)) continue;
    start = known;
    break;
  }
  return absl::Status(model.status().code(), absl::StrCat(start, Printable(message)));
}
GW_CATCH_OUT_OF_MEMORY("LoadModel")

absl::StatusOr<Model> ModelFromBytes(absl::string_view bytes, LoadOptions options) try {
  absl::StatusOr<ModelFile> file = ReadBytes(bytes, options);
  absl::StatusOr<Model> model = file.ok() ? BuildModel(*file, options) : file.status();
  if (model.ok()) return model;
  return absl::Status(model.status().code(), Printable(model.status().message()));
}
GW_CATCH_OUT_OF_MEMORY("ModelFromBytes")

absl::StatusOr<Session> CreateSession(const Model& model, SessionOptions options) try {
  options.seed = model.seed;
  options.run_number = model.run_number;
  options.variables = model.variables;
  return Session::Create(model.graph, std::move(options));
}
GW_CATCH_OUT_OF_MEMORY("CreateSession")

}  // namespace gradweave
