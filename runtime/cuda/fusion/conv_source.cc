// Generates the CUDA C++ of convolutions.
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gradweave/runtime/cuda/fusion/conv_program.h"
#include "gradweave/runtime/cuda/fusion/fused_source.h"

namespace gradweave {

std::string ConvolutionSource(const ConvProgram& program) {
  const ConvShape& shape = program.shape;
  const ConvTiling& tiling = program.tiling;
  const std::string type = program.dtype == kFloat32 ? "float" : "double";
  std::string text = absl::StrCat("struct Convolution {\n  using Type = ", type, ";\n");
  const std::pair<absl::string_view, int32_t> numbers[] = {
      {"kChannels", shape.channels},
      {"kGroupOutputs", shape.outputs},
      {"kGroups", shape.groups},
      {"kHeight", shape.height},
      {"kWidth", shape.width},
      {"kKernelHeight", shape.kernel_height},
      {"kKernelWidth", shape.kernel_width},
      {"kOutputHeight", shape.output_height},
      {"kOutputWidth", shape.output_width},
      {"kStrideY", shape.stride_y},
      {"kStrideX", shape.stride_x},
      {"kDilationY", shape.dilation_y},
      {"kDilationX", shape.dilation_x},
      {"kTop", shape.top},
      {"kLeft", shape.left},
      {"kFilterGroup", shape.filter_group},
      {"kFilterOutput", shape.filter_output},
      {"kFilterChannel", shape.filter_channel},
      {"kCellRows", tiling.cell_rows},
      {"kCellColumns", tiling.cell_columns},
      {"kTileRows", tiling.tile_rows},
      {"kTileColumns", tiling.tile_columns},
      {"kSamples", tiling.samples},
      {"kOutputs", tiling.outputs},
      {"kOutputSlots", tiling.output_slots},
      {"kSlots", tiling.slots},
      {"kChannelBlock", tiling.channel_block},
      {"kPatchRows", tiling.patch_rows},
      {"kPatchColumns", tiling.patch_columns},
      {"kSlotStep", tiling.slot_step},
      {"kWeightStep", tiling.weight_step},
      {"kPooledHeight", program.pool.has_value() ? program.pool->height : 0},
      {"kPooledWidth", program.pool.has_value() ? program.pool->width : 0},
  };
  for (const auto& [name, number] : numbers) {
    absl::StrAppend(&text, "  static constexpr int ", name, " = ", number, ";\n");
  }
  const std::pair<absl::string_view, bool> flags[] = {{"kFlipped", shape.flipped},
                                                      {"kHasBias", program.has_bias},
                                                      {"kPools", program.pool.has_value()},
                                                      {"kIndices", program.pool.has_value() && program.pool->largest}};
  for (const auto& [name, flag] : flags) {
    absl::StrAppend(&text, "  static constexpr bool ", name, " = ", flag ? "true" : "false", ";\n");
  }
  const bool largest = program.pool.has_value() && program.pool->largest;
  absl::StrAppend(&text, "  using Pool = ", largest ? "Largest" : "Mean", "<", type, ">;\n",
                  ChainOfSumsText(program.program, program.dtype), "};\n");
  return text;
}

}  // namespace gradweave
