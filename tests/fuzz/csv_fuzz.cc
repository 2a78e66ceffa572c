// CSV text. The first byte chooses options, the second the separator.
#include "gradweave/frontend/data/csv.h"
#include "gradweave/graph/check.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

void Run(ByteReader bytes) {
  const uint8_t choices = bytes.Byte();
  data::CsvOptions options;
  options.header = (choices & 1) != 0;
  options.trim = (choices & 2) != 0;
  if ((choices & 4) != 0) options.missing_marks = {"", "NA", "?"};
  options.separator = bytes.Pick({',', ';', '\t', '|', '"', '\n'});
  const absl::StatusOr<data::Csv> table = data::ParseCsv(std::string(bytes.Rest()), options);
  CheckMessage(table.status());
  if (!table.ok()) return;
  GW_CHECK(table->rows() >= 0 && table->columns() >= 1);
  GW_CHECK(table->names().size() == (options.header ? static_cast<size_t>(table->columns()) : 0));
  size_t characters = 0;
  for (int64_t row = 0; row < table->rows(); ++row) {
    for (int64_t column = 0; column < table->columns(); ++column) characters += table->text(row, column).size();
  }
  GW_CHECK(characters <= 1 << 20);
  const DType dtype = choices & 8 ? kFloat64 : choices & 16 ? kInt32 : choices & 32 ? kUint8 : kFloat32;
  const int most = static_cast<int>(std::min<int64_t>(table->columns(), 8));
  for (int column = 0; column < most; ++column) {
    const absl::StatusOr<Tensor> numbers = table->Numbers({column}, {.dtype = dtype, .missing = 0});
    CheckMessage(numbers.status());
    if (numbers.ok()) GW_CHECK(numbers->num_elements() == table->rows());
    data::CategoryOptions category;
    if ((choices & 64) != 0) category.order = data::CategoryOptions::Order::kAppearance;
    if ((choices & 128) != 0) category.missing = -1;
    const absl::StatusOr<data::Categories> categories = table->Categories(column, category);
    CheckMessage(categories.status());
    if (!categories.ok()) continue;
    for (int64_t row = 0; row < table->rows(); ++row) {
      const int32_t id = categories->ids.data<int32_t>()[row];
      GW_CHECK(id == -1 || categories->names[id] == table->text(row, column));
    }
  }
  if (!table->names().empty()) CheckMessage(table->NumbersExcept({table->names()[0]}).status());
}

}  // namespace
}  // namespace gradweave::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gradweave::fuzz::Run(gradweave::fuzz::ByteReader(data, size));
  return 0;
}
