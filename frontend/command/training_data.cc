#include "gradweave/frontend/command/training_data.h"

#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gradweave/frontend/command/command.h"
#include "gradweave/frontend/command/inputs.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/data.h"
#include "gradweave/frontend/data/csv.h"
#include "gradweave/frontend/data/image_folder.h"
#include "gradweave/frontend/data/npy.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::command {
namespace {

// The array for an input: with its dtype, except that bytes stay bytes, which batches scale; and
// with an axis of size 1 more or less if the number of elements of a sample is the same.
absl::StatusOr<data::NamedArray> ArrayFor(const Node& input, Tensor values, const std::string& path) {
  const TensorType& type = input.outputs[0];
  const Shape& shape = type.shape;
  if (values.rank() + 1 == shape.rank() && shape[shape.rank() - 1] == Dim(1)) {
    std::vector<int64_t> sizes(values.sizes().begin(), values.sizes().end());
    sizes.push_back(1);
    values = values.Reshaped(sizes);
  } else if (values.rank() == shape.rank() + 1 && values.size(values.rank() - 1) == 1) {
    values = values.Reshaped(values.sizes().subspan(0, values.rank() - 1));
  }
  DimBindings sizes;
  if (const absl::Status fits = BindSizes(input, values.sizes(), sizes); !fits.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", fits.message()));
  }
  if (IsFloating(type.dtype) && values.dtype() == kUint8) return data::NamedArray(input.name, values);
  const std::optional<Tensor> converted = Converted(values, type.dtype);
  if (!converted.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the array is ", values.type().ToString(), ", and input '",
                                                   PrintableText(input.name), "' is ", type.ToString()));
  }
  return data::NamedArray(input.name, *converted);
}

absl::StatusOr<data::Dataset> MakeDataset(const DataRequest& request, Tensor x, const std::string& x_path, Tensor y,
                                          const std::string& y_path) {
  GW_ASSIGN_OR_RETURN(data::NamedArray of_x, ArrayFor(*request.input, std::move(x), x_path));
  GW_ASSIGN_OR_RETURN(data::NamedArray of_y, ArrayFor(*request.target, std::move(y), y_path));
  data::Dataset dataset{std::move(of_x), std::move(of_y)};
  if (dataset.status().ok()) return dataset;
  return absl::InvalidArgumentError(absl::StrCat(x_path, ": ", dataset.status().message()));
}

absl::StatusOr<TrainingData> ReadTable(const std::string& path, const DataRequest& request) {
  GW_ASSIGN_OR_RETURN(const data::Csv table, data::ReadCsv(path));
  if (request.columns.empty()) {
    return UsageError("--target=COLUMN is expected, the column of the table to predict");
  }
  for (const std::string& column : request.columns) {
    bool is_known = false;
    for (const std::string& name : table.names()) is_known |= name == column;
    if (!is_known) {
      return absl::NotFoundError(absl::StrCat(path, ": the table has no column '", PrintableText(column), "'",
                                              DidYouMean(column, table.names())));
    }
  }
  const std::vector<data::CsvColumn> columns(request.columns.begin(), request.columns.end());
  TrainingData result;
  GW_ASSIGN_OR_RETURN(const Tensor x, table.NumbersExcept(columns));
  Tensor y;
  if (request.has_classes) {
    if (columns.size() != 1) return UsageError("--target has one column for a loss of classes");
    GW_ASSIGN_OR_RETURN(const data::Categories categories, table.Categories(columns[0]));
    y = categories.ids;
    result.classes = categories.names;
  } else {
    GW_ASSIGN_OR_RETURN(y, table.Numbers(columns));
  }
  GW_ASSIGN_OR_RETURN(result.train, MakeDataset(request, x, path, y, path));
  return result;
}

absl::StatusOr<TrainingData> ReadArchive(const std::string& path, const DataRequest& request) {
  GW_ASSIGN_OR_RETURN(const std::vector<data::NamedArray> arrays, data::ReadNpz(path));
  std::vector<std::string> names;
  for (const data::NamedArray& array : arrays) names.push_back(array.name);
  Tensor values[2];
  for (int i = 0; i < 2; ++i) {
    const std::string& wanted = (i == 0 ? request.input : request.target)->name;
    bool found = false;
    for (const data::NamedArray& array : arrays) {
      if (array.name != wanted) continue;
      values[i] = array.values;
      found = true;
    }
    if (!found) {
      return absl::NotFoundError(
          absl::StrCat(path, ": the archive has no array '", PrintableText(wanted), "'", DidYouMean(wanted, names)));
    }
  }
  TrainingData result;
  GW_ASSIGN_OR_RETURN(result.train, MakeDataset(request, values[0], path, values[1], path));
  return result;
}

// The arrays "image" and "label" of a data set of images.
absl::StatusOr<data::Dataset> ImagesFor(const DataRequest& request, const data::Dataset& images,
                                        const std::string& path) {
  if (!request.has_classes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": images in folders of classes need a loss of classes, such as softmax_cross_entropy"));
  }
  GW_ASSIGN_OR_RETURN(const Tensor x, images.Find("image"));
  GW_ASSIGN_OR_RETURN(const Tensor y, images.Find("label"));
  return MakeDataset(request, x, path, y, path);
}

absl::StatusOr<TrainingData> ReadFolder(const std::string& path, const DataRequest& request) {
  TrainingData result;
  std::error_code error;
  bool has_idx = false;
  for (const char* end : {"", ".gz"}) {
    has_idx |= std::filesystem::exists(absl::StrCat(path, "/train-images-idx3-ubyte", end), error);
  }
  if (has_idx) {
    GW_ASSIGN_OR_RETURN(const data::Dataset train, data::LoadFashionMnist(path, data::Split::kTrain));
    GW_ASSIGN_OR_RETURN(const data::Dataset test, data::LoadFashionMnist(path, data::Split::kTest));
    GW_ASSIGN_OR_RETURN(result.train, ImagesFor(request, train, path));
    GW_ASSIGN_OR_RETURN(result.validation, ImagesFor(request, test, path));
    result.classes = data::FashionMnistClasses();
    return result;
  }
  const Shape& shape = request.input->outputs[0].shape;
  const bool is_gray = shape.rank() == 4 && shape[1] == Dim(1), is_colour = shape.rank() == 4 && shape[1] == Dim(3);
  GW_ASSIGN_OR_RETURN(const data::ImageFolder folder, data::ReadImageFolder(path, {.channels = is_gray     ? 1
                                                                                               : is_colour ? 3
                                                                                                           : 0}));
  GW_ASSIGN_OR_RETURN(result.train, ImagesFor(request, folder.dataset, path));
  result.classes = folder.classes;
  return result;
}

}  // namespace

absl::StatusOr<TrainingData> ReadTrainingData(const std::string& path, const DataRequest& request) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return ReadFolder(path, request);
  const std::vector<std::string> paths = absl::StrSplit(path, ',');
  std::vector<FileKind> kinds;
  for (const std::string& part : paths) {
    GW_ASSIGN_OR_RETURN(const FileKind kind, KindOf(part));
    kinds.push_back(kind);
  }
  if (kinds == std::vector<FileKind>{FileKind::kNpy, FileKind::kNpy}) {
    GW_ASSIGN_OR_RETURN(const Tensor x, data::ReadNpy(paths[0]));
    GW_ASSIGN_OR_RETURN(const Tensor y, data::ReadNpy(paths[1]));
    TrainingData result;
    GW_ASSIGN_OR_RETURN(result.train, MakeDataset(request, x, paths[0], y, paths[1]));
    return result;
  }
  if (kinds == std::vector<FileKind>{FileKind::kZip}) return ReadArchive(path, request);
  if (kinds == std::vector<FileKind>{FileKind::kText}) return ReadTable(path, request);
  return absl::InvalidArgumentError(
      absl::StrCat(PrintableText(path), ": x.npy,y.npy, a file .npz or .csv, or a folder of images is expected, and ",
                   kinds.size() == 1 ? absl::StrCat("this is ", KindName(kinds[0])) : "these are other files"));
}

}  // namespace gradweave::command
