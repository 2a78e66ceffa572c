#include "gradweave/frontend/image.h"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/font.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/frontend/plot.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/dtype.h"
#include "gradweave/graph/out_of_memory.h"

namespace gradweave {
namespace {

constexpr int64_t kMostPixels = int64_t{1} << 26;

void DrawText(GrayImage& image, absl::string_view text, int64_t left, int64_t top, int scale) {
  for (char c : text) {
    const Glyph& glyph = GlyphOf(c);
    for (int y = 0; y < kGlyphHeight * scale; ++y) {
      for (int x = 0; x < kGlyphWidth * scale; ++x) {
        const bool ink = glyph[y / scale] >> (kGlyphWidth - 1 - x / scale) & 1;
        if (ink && left + x >= 0 && left + x < image.width && top + y < image.height) image.at(left + x, top + y) = 0;
      }
    }
    left += (kGlyphWidth + 1) * scale;
  }
}

// Reads a PNG file with 1 or 3 channels, or with 0 those that it has, of at most this many bits.
absl::StatusOr<Image> Read(const std::string& path, int channels, int most_bits) {
  GW_ASSIGN_OR_RETURN(const InputFile file, OpenInputFile(path));
  png_image png = {};
  png.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_stdio(&png, file.stream.get())) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": this is not a readable PNG file: ", png.message));
  }
  const absl::Cleanup free = [&] { png_image_free(&png); };
  // libpng refuses widths and heights of 0 and of more than 2^31 - 1.
  if (int64_t{png.width} * png.height > kMostPixels) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the image is ", png.width, " by ", png.height, ", and at most 2^26 pixels are allowed"));
  }
  // A pixel has at least one bit, and deflate makes at most 1032 bytes of one
  // (https://zlib.net/zlib_tech.html), so a small file cannot make the reader take much memory.
  constexpr int64_t kMostBytesPerByte = 1032;
  if (int64_t{png.width} * png.height / 8 / kMostBytesPerByte > file.size) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the image claims to be ", png.width, " by ", png.height,
                                                   ", and a file of ", file.size,
                                                   " bytes cannot have this many pixels"));
  }
  // libpng calls files of 16 bits linear.
  if ((png.format & PNG_FORMAT_FLAG_LINEAR) != 0 && most_bits < 16) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the image has 16 bits for each channel; at most ", most_bits, " are expected"));
  }
  if (channels == 0) channels = (png.format & PNG_FORMAT_FLAG_COLOR) != 0 ? 3 : 1;
  png.format = channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  Image image{png.width, png.height, channels, {}};
  image.pixels.resize(image.width * image.height * channels);
  const png_color black = {0, 0, 0};
  if (!png_image_finish_read(&png, &black, image.pixels.data(), 0, nullptr)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the PNG file is damaged or truncated: ", png.message));
  }
  return image;
}

}  // namespace

absl::StatusOr<std::vector<GrayImage>> GrayImages(const Tensor& images) try {
  const bool has_channel = images.rank() == 4 && images.size(1) == 1;
  if ((!has_channel && images.rank() != 3) || (images.dtype() != kUint8 && !IsFloating(images.dtype()))) {
    return absl::InvalidArgumentError(
        absl::StrCat("GrayImages: the tensor is ", images.type().ToString(),
                     " and has to be floating or uint8, [n, 1, height, width] or [n, height, width]"));
  }
  const int64_t height = images.size(images.rank() - 2), width = images.size(images.rank() - 1);
  std::vector<GrayImage> result(images.size(0), GrayImage(width, height));
  VisitDType(images.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* at = images.data<T>();
    for (GrayImage& image : result) {
      for (uint8_t& pixel : image.pixels) {
        if constexpr (std::is_floating_point_v<T>) {
          const T shade = *at++;
          pixel = shade > 0 ? static_cast<uint8_t>(std::lround(255 * std::min(shade, T{1}))) : 0;
        } else {
          pixel = static_cast<uint8_t>(*at++);
        }
      }
    }
  });
  return result;
}
GW_CATCH_OUT_OF_MEMORY("GrayImages")

absl::Status WritePng(const std::string& path, const GrayImage& image) try {
  GW_ASSIGN_OR_RETURN(const std::string bytes, EncodePng({image.width, image.height, 1, image.pixels}));
  return WriteTextFile(path, bytes);
}
GW_CATCH_OUT_OF_MEMORY("WritePng")

absl::StatusOr<std::string> EncodePng(const Image& image) try {
  if (image.width < 1 || image.height < 1 || (image.channels != 1 && image.channels != 3) ||
      image.width > std::numeric_limits<int32_t>::max() || image.height > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat("EncodePng: the image is ", image.width, " by ", image.height,
                                                   " with ", image.channels,
                                                   " channels; pixels with 1 or 3 channels are expected"));
  }
  png_image png = {};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = image.channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::string bytes(size, '\0');
  if (!png_image_write_to_memory(&png, bytes.data(), &size, 0, image.pixels.data(), 0, nullptr)) {
    return absl::InternalError(absl::StrCat("EncodePng: ", png.message));
  }
  bytes.resize(size);
  return bytes;
}
GW_CATCH_OUT_OF_MEMORY("EncodePng")

absl::StatusOr<Image> ReadPngImage(const std::string& path, int channels) try { return Read(path, channels, 8); }
GW_CATCH_OUT_OF_MEMORY("ReadPngImage")

absl::StatusOr<GrayImage> ReadPng(const std::string& path) try {
  GW_ASSIGN_OR_RETURN(Image read, Read(path, 1, 16));
  GrayImage image;
  image.width = read.width;
  image.height = read.height;
  image.pixels = std::move(read.pixels);
  return image;
}
GW_CATCH_OUT_OF_MEMORY("ReadPng")

GrayImage Resized(const GrayImage& image, int64_t width, int64_t height) {
  GrayImage result(width, height);
  const double scale_x = static_cast<double>(image.width) / width, scale_y = static_cast<double>(image.height) / height;
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const double x0 = x * scale_x, x1 = x0 + scale_x, y0 = y * scale_y, y1 = y0 + scale_y;
      double sum = 0;
      for (int64_t i = static_cast<int64_t>(y0); i < y1 && i < image.height; ++i) {
        const double part_y = std::min(y1, i + 1.0) - std::max<double>(y0, i);
        for (int64_t j = static_cast<int64_t>(x0); j < x1 && j < image.width; ++j) {
          sum += image.at(j, i) * part_y * (std::min(x1, j + 1.0) - std::max<double>(x0, j));
        }
      }
      result.at(x, y) = static_cast<uint8_t>(std::clamp(std::lround(sum / (scale_x * scale_y)), 0l, 255l));
    }
  }
  return result;
}

GrayImage LabelledGrid(absl::Span<const GrayImage> images, absl::Span<const std::string> labels, int columns,
                       int scale) {
  if (images.empty() || columns < 1 || scale < 1) return GrayImage(1, 1, 255);
  constexpr int kMargin = 6;
  const int text_scale = std::max(1, scale / 2);
  const int64_t text_height = kGlyphHeight * text_scale;
  const int64_t cell_width = images[0].width * scale + 2 * kMargin,
                cell_height = images[0].height * scale + text_height + 3 * kMargin;
  const int64_t rows = (static_cast<int64_t>(images.size()) + columns - 1) / columns;
  GrayImage grid(cell_width * columns, cell_height * rows, 255);
  for (size_t i = 0; i < images.size(); ++i) {
    const int64_t left = static_cast<int64_t>(i) % columns * cell_width,
                  top = static_cast<int64_t>(i) / columns * cell_height;
    if (i < labels.size()) {
      const int64_t text_width = static_cast<int64_t>(labels[i].size()) * (kGlyphWidth + 1) * text_scale - text_scale;
      DrawText(grid, labels[i], left + (cell_width - text_width) / 2, top + kMargin, text_scale);
    }
    for (int64_t y = 0; y < images[i].height * scale; ++y) {
      for (int64_t x = 0; x < images[i].width * scale; ++x) {
        grid.at(left + kMargin + x, top + text_height + 2 * kMargin + y) = images[i].at(x / scale, y / scale);
      }
    }
  }
  return grid;
}

std::string ToText(const GrayImage& image) {
  constexpr absl::string_view kShades = " .:-=+*#%@";
  std::string text;
  for (int64_t y = 0; y < image.height; ++y) {
    for (int64_t x = 0; x < image.width; ++x) text.append(2, kShades[image.at(x, y) * kShades.size() / 256]);
    text += '\n';
  }
  return text;
}

}  // namespace gradweave
