// A small font for labels in pictures.
#ifndef GRADWEAVE_FRONTEND_FONT_H_
#define GRADWEAVE_FRONTEND_FONT_H_

#include <array>
#include <cstdint>

namespace gradweave {

inline constexpr int kGlyphWidth = 5, kGlyphHeight = 7;

// Rows from the top; in each the lowest kGlyphWidth bits, the highest of them leftmost.
using Glyph = std::array<uint8_t, kGlyphHeight>;

// Of letters, whose case does not matter, digits, space and -; a blank for others.
const Glyph& GlyphOf(char c);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_FONT_H_
