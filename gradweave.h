// The public header of Gradweave. Programs include only this one.
#ifndef GRADWEAVE_GRADWEAVE_H_
#define GRADWEAVE_GRADWEAVE_H_

#include "gradweave/frontend/batches.h"
#include "gradweave/frontend/callbacks.h"
#include "gradweave/frontend/data.h"
#include "gradweave/frontend/dataset.h"
#include "gradweave/frontend/initializers.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/frontend/metrics.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/frontend/summary.h"
#include "gradweave/frontend/trainer.h"
#include "gradweave/frontend/transforms.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/print.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/graph/verify.h"
#include "gradweave/graph/version.h"
#include "gradweave/ops/conv.h"
#include "gradweave/ops/einsum.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/normalization.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"
#include "gradweave/ops/state.h"
#include "gradweave/runtime/cuda/options.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "gradweave/runtime/session/device.h"
#include "gradweave/runtime/session/session.h"

namespace gw = gradweave;

#endif  // GRADWEAVE_GRADWEAVE_H_
