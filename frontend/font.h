// A small bitmap font for labels in images.
#ifndef GRADWEAVE_FRONTEND_FONT_H_
#define GRADWEAVE_FRONTEND_FONT_H_

#include <array>
#include <cstdint>

namespace gradweave {

inline constexpr int kGlyphWidth = 5, kGlyphHeight = 7;

// Rows from top to bottom. Each row uses the lowest kGlyphWidth bits; the highest of them is
// leftmost.
using Glyph = std::array<uint8_t, kGlyphHeight>;

// Returns the glyph of a letter in either case, a digit, a space or '-'. Returns a blank for all
// others.
const Glyph& GlyphOf(char c);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_FONT_H_
