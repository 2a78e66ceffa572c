// The name of the CPU as a device, as nodes have it. Other devices are "cuda:0" and the like.
#ifndef GRADWEAVE_GRAPH_DEVICE_NAME_H_
#define GRADWEAVE_GRAPH_DEVICE_NAME_H_

namespace gradweave {

inline constexpr char kCpuDevice[] = "cpu:0";

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_DEVICE_NAME_H_
