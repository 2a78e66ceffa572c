// Lowering of ops to instructions on tiles.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_TILE_LOWERING_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_TILE_LOWERING_H_

#include "gradweave/runtime/cpu/tile/blocks.h"
#include "gradweave/runtime/cpu/tile/tile_program.h"

namespace gradweave {

inline const TensorType& OperandType(const BatchNode& at, int i) { return at.graph.type(at.node.inputs[i]); }
inline bool IsFloat(const TensorType& type) { return type.dtype == kFloat32; }

// Lower convolutions and matrix products (tile_conv.cc).
void LowerConv2D(TileBuilder& builder, const BatchNode& at);
void LowerConv2DInputGrad(TileBuilder& builder, const BatchNode& at);
void LowerConv2DFilterGrad(TileBuilder& builder, const BatchNode& at);
void LowerMatMul(TileBuilder& builder, const BatchNode& at);
// Division of a dense layer's sums into blocks of outputs x places, where a place is a vector of
// samples. If `by_outputs` is true, blocks are lanes x vectors of outputs.
struct DenseBlocks {
  bool by_outputs;
  Blocks blocks;
};
DenseBlocks ChooseDenseBlocks(const TileKernels& kernels, int64_t outputs, int64_t places);

// Lower pools and their gradients (tile_pool.cc). The Supports functions return true if the node
// can be lowered.
bool SupportsPool(const BatchNode& at);
void LowerAvgPool(TileBuilder& builder, const BatchNode& at);
void LowerAvgPoolGrad(TileBuilder& builder, const BatchNode& at);
// Lowers a binary op whose first operand is the gradient of an average pool, without computing that
// value, if no other op has needed it yet. Returns false if this is not possible.
bool LowerBinaryOfSpread(TileBuilder& builder, const BatchNode& at);
void LowerMaxPool(TileBuilder& builder, const BatchNode& at);
bool SupportsUnpool(const BatchNode& at);
void LowerUnpool(TileBuilder& builder, const BatchNode& at);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_TILE_LOWERING_H_
