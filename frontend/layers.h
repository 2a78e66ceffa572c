// Layers: functions of values that own variables. Each layer has a kind, from which its variables
// get their names, and a function Apply. Layers take the input's channels or features from its
// shape, so these sizes must be known. Errors, numbers out of range among them, are recorded in the
// graph with the line of the call that applied the layers.
//
// | header | layers |
// | --- | --- |
// | layer.h | Sequential, Residual, Standalone, and what a layer of one's own needs |
// | basic_layers.h | Dense, Flatten, Reshape, Dropout, Embedding |
// | conv_layers.h | Conv1D, Conv2D, ConvTranspose2D, average and maximum pools |
// | norm_layers.h | BatchNorm, LayerNorm, GroupNorm, InstanceNorm, RmsNorm |
// | activation_layers.h | Relu, PRelu, Gelu, Swish, Mish, Softmax and others |
// | recurrent_layers.h | Lstm, Gru, Rnn, Bidirectional, RecurrentStack |
// | attention_layers.h | MultiHeadAttention, TransformerBlock, positions |
#ifndef GRADWEAVE_FRONTEND_LAYERS_H_
#define GRADWEAVE_FRONTEND_LAYERS_H_

#include "gradweave/frontend/activation_layers.h"
#include "gradweave/frontend/attention_layers.h"
#include "gradweave/frontend/basic_layers.h"
#include "gradweave/frontend/conv_layers.h"
#include "gradweave/frontend/layer.h"
#include "gradweave/frontend/norm_layers.h"
#include "gradweave/frontend/recurrent_layers.h"

#endif  // GRADWEAVE_FRONTEND_LAYERS_H_
