// Images: reading, writing, and labelled grids of gray ones.
#ifndef GRADWEAVE_FRONTEND_IMAGE_H_
#define GRADWEAVE_FRONTEND_IMAGE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {

// A grayscale image, row by row. 0 is black and 255 is white.
struct GrayImage {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> pixels;  // width * height bytes.

  GrayImage() = default;
  GrayImage(int64_t width, int64_t height, uint8_t shade = 0)
      : width(width), height(height), pixels(width * height, shade) {}
  uint8_t& at(int64_t x, int64_t y) { return pixels[y * width + x]; }
  uint8_t at(int64_t x, int64_t y) const { return pixels[y * width + x]; }
};

// Returns the images of a tensor [n, 1, height, width] or [n, height, width]: bytes, or floating
// numbers of which 0 is black and 1 is white; others are limited to [0, 1], and NaN is black.
// Returns InvalidArgument for other tensors.
absl::StatusOr<std::vector<GrayImage>> GrayImages(const Tensor& images);

// An image row by row, with the channels of a pixel together: gray, or red, green and blue.
struct Image {
  int64_t width = 0, height = 0, channels = 0;
  std::vector<uint8_t> pixels;  // width * height * channels bytes.
};

// Writes a PNG file. Returns the system's error, such as PermissionDenied or NotFound, with the
// path.
absl::Status WritePng(const std::string& path, const GrayImage& image);

// Returns the bytes of a PNG file with the image. Returns InvalidArgument for an image without
// pixels or with other than 1 or 3 channels.
absl::StatusOr<std::string> EncodePng(const Image& image);

// Reads a PNG file of 8 bits per channel or fewer. `channels` is 1 to convert colours to gray, 3 to
// convert gray to colours, or 0 to keep the file's channels. Returns the errors of ReadPng, and
// InvalidArgument for 16 bits.
absl::StatusOr<Image> ReadPngImage(const std::string& path, int channels = 0);

// Reads a PNG file. Converts colours to gray; transparent pixels become black. Returns NotFound if
// there is no such file, and InvalidArgument if it is not a PNG file, not a regular file, is
// truncated or has more than 2^26 pixels.
absl::StatusOr<GrayImage> ReadPng(const std::string& path);

// Resizes the image. Each pixel is the mean of the area that it covers.
GrayImage Resized(const GrayImage& image, int64_t width, int64_t height);

// Draws the images, which have one size, in rows of `columns` on a white background. Each image is
// enlarged `scale` times and has its label below (letters, digits, spaces and '-').
GrayImage LabelledGrid(absl::Span<const GrayImage> images, absl::Span<const std::string> labels, int columns,
                       int scale = 3);

// Draws the image with characters, one line for each row, from ' ' for black to '@' for white. Each
// pixel is two characters wide.
std::string ToText(const GrayImage& image);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_IMAGE_H_
