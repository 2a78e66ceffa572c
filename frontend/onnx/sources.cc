// ONNX's ops that make values: constants, ranges, windows and random numbers.
#include <cmath>
#include <functional>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

constexpr int64_t kMostKnown = 4096;  // Larger constants are computed by the run.

absl::Status ConstantRow(Call& call) {
  if (const proto::Attribute* text = call.Find("value_string"); text != nullptr)
    return call.Refuse("strings are not supported");
  if (call.Find("value_float") != nullptr) {
    call.Set(0, Tensor::Scalar(static_cast<float>(call.Float("value_float", 0))));
  } else if (call.Find("value_int") != nullptr) {
    call.Set(0, Tensor::Scalar(call.Int("value_int", 0)));
  } else if (const std::optional<Integers> numbers = call.Ints("value_ints"); numbers.has_value()) {
    call.Set(0, Tensor::Of<int64_t>({static_cast<int64_t>(numbers->size())}, absl::Span<const int64_t>(*numbers)));
  } else if (const proto::Attribute* floats = call.Find("value_floats"); floats != nullptr) {
    const std::vector<float> values(floats->floats().begin(), floats->floats().end());
    call.Set(0, Tensor::Of<float>({static_cast<int64_t>(values.size())}, absl::Span<const float>(values)));
  } else {
    GW_ASSIGN_OR_RETURN(Tensor tensor, call.TensorAttribute("value"));
    call.Set(0, std::move(tensor));
  }
  return absl::OkStatus();
}

absl::Status ConstantOfShape(Call& call) {
  GW_ASSIGN_OR_RETURN(const Elements sizes, call.KnownElements(0));
  Tensor value = Tensor::Scalar(0.0f);
  if (call.Find("value") != nullptr) {
    GW_ASSIGN_OR_RETURN(value, call.TensorAttribute("value"));
  }
  if (value.num_elements() != 1) return call.Wrong("its value has to be one number");
  const Shape shape(sizes);
  for (const Dim& size : sizes) {
    if (size.is_known() && size.size() < 0) return call.Wrong("a size is negative");
  }
  if (shape.is_static()) {
    const std::optional<int64_t> count = CheckedNumElements(shape.sizes());
    if (!count.has_value()) return call.Wrong("the shape ", shape.ToString(), " has too many elements");
    if (*count <= kMostKnown) {
      Tensor filled(value.dtype(), shape.sizes());
      VisitAnyDType(value.dtype(), [&](auto zero) {
        using T = decltype(zero);
        std::fill(filled.mutable_values<T>().begin(), filled.mutable_values<T>().end(), value.data<T>()[0]);
      });
      call.Set(0, std::move(filled));
      return absl::OkStatus();
    }
  }
  call.Set(0, BroadcastTo(call.scope().Constant(value.Reshaped({})), shape));
  return absl::OkStatus();
}

absl::Status RangeRow(Call& call) {
  const DType dtype = call.Type(0).dtype;
  if (!IsFloating(dtype) && call.item(1).elements.has_value()) {
    // Up to a size that only a run knows.
    GW_ASSIGN_OR_RETURN(const double start, call.KnownNumber(0));
    GW_ASSIGN_OR_RETURN(const double step, call.KnownNumber(2));
    if (step < 1) return call.Refuse("it goes down from or to a size that only a run knows");
    const auto whole_step = ToInteger(step);
    const Dim count = FloorDivide((*call.item(1).elements)[0] - ToInteger(start) + (whole_step - 1), whole_step);
    call.Set(0, Range(call.scope(), count, {.start = start, .step = step, .dtype = dtype}));
    return absl::OkStatus();
  }
  GW_ASSIGN_OR_RETURN(const double start, call.KnownNumber(0));
  GW_ASSIGN_OR_RETURN(const double limit, call.KnownNumber(1));
  GW_ASSIGN_OR_RETURN(const double step, call.KnownNumber(2));
  if (!(step < 0 || step > 0)) return call.Wrong("its step has to be a number other than 0");
  const double count = std::max(0.0, std::ceil((limit - start) / step));
  if (!(count < 1e15)) return call.Wrong("it has too many elements");
  const auto size = static_cast<int64_t>(count);
  if (size > kMostKnown) {
    call.Set(0, Range(call.scope(), size, {.start = start, .step = step, .dtype = dtype}));
    return absl::OkStatus();
  }
  Tensor result(kFloat64, {size});
  for (int64_t i = 0; i < size; ++i) result.mutable_data<double>()[i] = start + static_cast<double>(i) * step;
  call.Set(0, result.Cast(dtype));
  return absl::OkStatus();
}

// Windows of signal processing: a + b cos(2 pi i/n) + c cos(4 pi i/n).
absl::Status Window(Call& call, double a, double b, double c) {
  GW_ASSIGN_OR_RETURN(const double size, call.KnownNumber(0));
  GW_ASSIGN_OR_RETURN(const DType dtype, DTypeFromOnnx(call.Int("output_datatype", 1)));
  if (!(size >= 0 && size < 1e9)) return call.Wrong("its size is out of range");
  const auto count = static_cast<int64_t>(size);
  GW_RETURN_IF_ERROR(call.importer().Take(2 * count * static_cast<int64_t>(sizeof(double))));
  const double period = call.Int("periodic", 1) != 0 ? size : size - 1;
  Tensor window(kFloat64, {count});
  for (int64_t i = 0; i < count; ++i) {
    const double angle = 2 * M_PI * static_cast<double>(i) / period;
    window.mutable_data<double>()[i] = a + b * std::cos(angle) + c * std::cos(2 * angle);
  }
  call.Set(0, window.Cast(dtype));
  return absl::OkStatus();
}

absl::StatusOr<RandomOptions> RandomOf(const Call& call, DType otherwise) {
  RandomOptions options{.dtype = otherwise};
  if (const int64_t dtype = call.Int("dtype", 0); dtype != 0) {
    GW_ASSIGN_OR_RETURN(options.dtype, DTypeFromOnnx(dtype));
  }
  // ONNX's seed is a float. It need not be kept, because the generator differs anyway.
  if (call.Find("seed") != nullptr) options.seed = ToInteger(call.Float("seed", 0));
  return options;
}

template <bool kLike, bool kNormal>
absl::Status Random(Call& call) {
  GW_ASSIGN_OR_RETURN(const RandomOptions options,
                      RandomOf(call, kLike && IsFloating(call.Type(0).dtype) ? call.Type(0).dtype : kFloat32));
  const Shape shape = kLike ? call.Type(0).shape : Shape(call.Ints("shape").value_or(Integers()));
  if constexpr (kNormal) {
    call.Set(0, RandomNormal(call.scope(), shape, call.Float("mean", 0), call.Float("scale", 1), options));
  } else {
    call.Set(0, RandomUniform(call.scope(), shape, call.Float("low", 0), call.Float("high", 1), options));
  }
  return absl::OkStatus();
}

absl::Status Bernoulli(Call& call) {
  const Value probability = call.In(0);
  DType dtype = probability.dtype();
  if (const int64_t given = call.Int("dtype", 0); given != 0) {
    GW_ASSIGN_OR_RETURN(dtype, DTypeFromOnnx(given));
  }
  RandomOptions options{.dtype = probability.dtype()};
  if (call.Find("seed") != nullptr) options.seed = ToInteger(call.Float("seed", 0));
  const Value draw = RandomUniform(call.scope(), probability.shape(), 0, 1, options);
  call.Set(0, Cast(Less(draw, probability), dtype));
  return absl::OkStatus();
}

// Triangles between frequencies at equal distances on the mel scale (Stevens et al., "A scale for
// the measurement of the psychological magnitude pitch", 1937), rounded down to bins as ONNX says.
absl::Status MelWeightMatrix(Call& call) {
  double numbers[5];
  for (int i = 0; i < 5; ++i) {
    GW_ASSIGN_OR_RETURN(numbers[i], call.KnownNumber(i));
  }
  const auto [bands, length, rate, low, high] = numbers;
  GW_ASSIGN_OR_RETURN(const DType dtype, DTypeFromOnnx(call.Int("output_datatype", 1)));
  constexpr double kMost = 65536;
  if (!(bands >= 1 && bands <= kMost && length >= 1 && length <= kMost && rate > 0 && low >= 0 && high > low &&
        high <= rate && rate < 1e12))
    return call.Wrong("its sizes or frequencies are out of range");
  const auto count = static_cast<int64_t>(bands), bins = static_cast<int64_t>(length) / 2 + 1;
  GW_RETURN_IF_ERROR(call.importer().Take(2 * bins * count * static_cast<int64_t>(sizeof(double))));
  auto to_mel = [](double hertz) { return 2595 * std::log10(1 + hertz / 700); };
  const double step = (to_mel(high) - to_mel(low)) / static_cast<double>(count + 2);
  auto bin = [&](int64_t i) {
    const double hertz = 700 * (std::pow(10, (to_mel(low) + static_cast<double>(i) * step) / 2595) - 1);
    return ToInteger(std::floor((length + 1) * hertz / rate));
  };
  Tensor weights(kFloat64, {bins, count});
  for (int64_t i = 0; i < count; ++i) {
    const int64_t from = bin(i), centre = bin(i + 1), to = bin(i + 2);
    auto set = [&](int64_t at, double weight) {
      if (at >= 0 && at < bins) weights.mutable_data<double>()[at * count + i] = weight;
    };
    if (centre == from) set(centre, 1);
    for (int64_t j = from; centre > from && j <= centre; ++j)
      set(j, static_cast<double>(j - from) / static_cast<double>(centre - from));
    for (int64_t j = centre; j < to; ++j) set(j, static_cast<double>(to - j) / static_cast<double>(to - centre));
  }
  call.Set(0, weights.Cast(dtype));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"Bernoulli", 15, 1, Bernoulli},
    {"BlackmanWindow", 17, 1, [](Call& call) { return Window(call, 0.42, -0.5, 0.08); }},
    {"Constant", 1, 0, ConstantRow},
    {"ConstantOfShape", 9, 1, ConstantOfShape},
    {"HammingWindow", 17, 1, [](Call& call) { return Window(call, 25.0 / 46, -21.0 / 46, 0); }},
    {"HannWindow", 17, 1, [](Call& call) { return Window(call, 0.5, -0.5, 0); }},
    {"MelWeightMatrix", 17, 5, MelWeightMatrix},
    {"RandomNormal", 1, 0, Random<false, true>},
    {"RandomNormalLike", 1, 1, Random<true, true>},
    {"RandomUniform", 1, 0, Random<false, false>},
    {"RandomUniformLike", 1, 1, Random<true, false>},
    {"Range", 11, 3, RangeRow},
};

}  // namespace

absl::Span<const OpRow> SourceRows() { return kRows; }

}  // namespace gradweave::onnx
