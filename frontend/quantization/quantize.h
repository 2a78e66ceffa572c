// Quantization: from a float32 model to one whose products and convolutions take 8-bit integers.
#ifndef GRADWEAVE_FRONTEND_QUANTIZATION_QUANTIZE_H_
#define GRADWEAVE_FRONTEND_QUANTIZATION_QUANTIZE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/model_file/checkpoint.h"

namespace gradweave {

// How the range of a value is found from its numbers in the samples. Numbers outside of the range
// saturate.
enum class Calibration : uint8_t {
  kMinMax,      // From the smallest to the largest number.
  kPercentile,  // Leaves out the largest absolute values, according to QuantizeOptions::percentile.
  // Minimizes the Kullback-Leibler divergence of the quantized numbers from the others (Migacz,
  // "8-bit inference with TensorRT", 2017).
  kEntropy,
};

struct QuantizeOptions {
  Calibration calibration = Calibration::kMinMax;
  double percentile = 99.99;  // Percentage of absolute values that kPercentile keeps, in (0, 100].
  // Inputs of layers are int8 with zero point 0 if this is true. Otherwise they are uint8, and the
  // zero point is chosen so that the integers cover the range.
  bool symmetric = false;
  bool per_channel = true;  // A scale for each output channel of the weights, or one for all.
  // Layers with a larger error (QuantizedLayer::error) stay in float32.
  double greatest_error = 0.1;
  std::vector<std::string> keep = {};     // Names of layers (QuantizedLayer::name) that stay in float32.
  std::vector<std::string> outputs = {};  // The outputs that the new model has; empty: all that assign no variable.
  int threads = 0;                        // SessionOptions::threads of the runs over the samples.
};

// A product or convolution of the model, and whether it was quantized.
struct QuantizedLayer {
  std::string name;  // The name of its weights' variable, or "matmul_17" if they have none.
  std::string op;    // "MatMul" or "Conv2D".
  bool quantized = false;
  std::string reason;  // Why it was not quantized.
  // The root mean square of the differences that quantization of this layer alone makes, divided by
  // that of its results, over all samples.
  double error = 0;
};

struct QuantizedModel {
  Model model;
  std::vector<QuantizedLayer> layers;  // In the graph's order.

  // Returns a table of the layers.
  std::string ToString() const;
};

// Makes a model for inference whose layers compute with integers, from a trained one. A layer is a
// MatMul or Conv2D of float32 whose weights no input changes, with what follows: the addition of a
// bias, and multiplications and additions of one number per channel, which are folded into the
// weights (batch normalization becomes such operations), and a Relu. Its weights become int8, its
// bias int32, its input int8 or uint8 (ops/quantized.h). Where a layer's result is needed by other
// quantized layers alone, no float32 number lies between them. All other nodes stay as they are.
//
// Each sample is a batch of inputs by name: some hundred typical inputs in all. The ranges of the
// layers' inputs come from them. Results have the same bits on every machine where the nodes in
// float32 have.
//
// Returns InvalidArgument without samples, for an input that a sample lacks, for NaN or infinity in
// an input of a layer, for options out of range, for an output that is not in the model, and if no
// output is left.
absl::StatusOr<QuantizedModel> Quantize(const Model& model, const std::vector<NamedTensors>& samples,
                                        const QuantizeOptions& options = {});

// Returns a copy of the model's graph, with the chosen outputs, whose layers compute with numbers
// that integers stand for: weights and inputs of layers go through FakeQuantize. The inputs' ranges
// come from the samples; the weights' ranges follow the weights. Variables keep their names. To
// train for quantization, add a loss and an optimizer to the graph, start from the trained
// variables, and give the model with the new values to Quantize:
//
//   GW_ASSIGN_OR_RETURN(gw::Graph graph, gw::FakeQuantized(model, samples));
//   gw::Value loss = ... graph.Output("logits")[0] ...;
//
// `greatest_error` has no effect. Returns the errors of Quantize.
absl::StatusOr<Graph> FakeQuantized(const Model& model, const std::vector<NamedTensors>& samples,
                                    const QuantizeOptions& options = {});

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_QUANTIZATION_QUANTIZE_H_
