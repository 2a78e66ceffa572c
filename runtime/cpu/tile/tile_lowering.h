// How ops become instructions on tiles.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_TILE_LOWERING_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_TILE_LOWERING_H_

#include "gradweave/runtime/cpu/tile/tile_program.h"

namespace gradweave {

void LowerConv2D(TileBuilder& builder, const BatchNode& at);
void LowerConv2DInputGrad(TileBuilder& builder, const BatchNode& at);
void LowerConv2DFilterGrad(TileBuilder& builder, const BatchNode& at);
void LowerMatMul(TileBuilder& builder, const BatchNode& at);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_TILE_LOWERING_H_
