// Pictures: reading, writing, and labelled grids of them.
#ifndef GRADWEAVE_FRONTEND_IMAGE_H_
#define GRADWEAVE_FRONTEND_IMAGE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace gradweave {

// Shades of gray, 0 black and 255 white, row by row.
struct GrayImage {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> pixels;  // width * height.

  GrayImage() = default;
  GrayImage(int64_t width, int64_t height, uint8_t shade = 0)
      : width(width), height(height), pixels(width * height, shade) {}
  uint8_t& at(int64_t x, int64_t y) { return pixels[y * width + x]; }
  uint8_t at(int64_t x, int64_t y) const { return pixels[y * width + x]; }
};

// Writes a PNG file; PermissionDenied, NotFound and so on where the system refuses.
absl::Status WritePng(const std::string& path, const GrayImage& image);

// Reads a PNG file, colours turned to shades and transparency to black, or a PGM file (P2 or P5). InvalidArgument where
// the file is no such image, is truncated or has more than 2^26 pixels.
absl::StatusOr<GrayImage> ReadImage(const std::string& path);

// The image in another size; each pixel is the mean of the area that it covers.
GrayImage Resized(const GrayImage& image, int64_t width, int64_t height);

// The images, all of one size and enlarged `scale` times, in rows of `columns` on white, each under its label (letters,
// digits, spaces and -).
GrayImage LabelledGrid(absl::Span<const GrayImage> images, absl::Span<const std::string> labels, int columns,
                       int scale = 3);

// The image in characters, a line for each row, from ' ' for black to '@' for white; each pixel is two characters wide.
std::string ToText(const GrayImage& image);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_IMAGE_H_
