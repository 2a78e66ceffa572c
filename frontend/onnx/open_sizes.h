// Assumptions of an import about sizes that the file leaves open. Exporters write open sizes for
// nets that work for some sizes only: two inputs with batches of the same size have two names, and
// images have to be multiples of 32 pixels although the file does not state this. If a node does
// not fit, the import begins again with sizes for which it does.
#ifndef GRADWEAVE_FRONTEND_ONNX_OPEN_SIZES_H_
#define GRADWEAVE_FRONTEND_ONNX_OPEN_SIZES_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gradweave/graph/shape.h"

namespace gradweave::onnx {

// The sizes that symbols of the file stand for.
class OpenSizes {
 public:
  // The size for a symbol of the file: the symbol itself, a multiple of another one, or a number.
  Dim Of(const std::string& symbol) const;
  // Makes the symbol stand for a size. Returns false if it stands for another one, or if the size
  // contains it.
  bool Set(const std::string& symbol, const Dim& size);

 private:
  std::map<std::string, Dim> sizes_;
};

// An assumption: symbols and what they stand for.
using SizeGuess = std::vector<std::pair<std::string, Dim>>;

// Returns guesses that may make a node fit, the best first, from the shapes of its operands and
// from pairs of sizes that have to be equal. A guess makes one symbol another one, or a multiple of
// a power of two.
std::vector<SizeGuess> GuessSizes(absl::Span<const Shape> operands, const std::vector<std::pair<Dim, Dim>>& equal);

}  // namespace gradweave::onnx

#endif  // GRADWEAVE_FRONTEND_ONNX_OPEN_SIZES_H_
