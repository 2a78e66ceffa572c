"""The models in ONNX Runtime, for inference only. A model is a graph of operator set 17 with random weights."""

import peer

flags = peer.parse_flags(__doc__, ["all"])
if flags.mode == "train":
    peer.unsupported("ONNX Runtime only infers")

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
import onnxruntime


class Graph:
    """Nodes and weights. Each method adds a layer and returns the name of its result."""

    def __init__(self):
        self.nodes = []
        self.initializers = []
        self.parameters = 0
        self.random = np.random.RandomState(2)

    def node(self, kind, *inputs, **attributes):
        name = "value%d" % len(self.nodes)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, array):
        name = "constant%d" % len(self.initializers)
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def number(self, value):
        return self.constant(np.float32(value))

    def weight(self, array):
        self.parameters += array.size
        return self.constant(array.astype(np.float32))

    def matrix(self, inputs, outputs):
        return self.weight(peer.xavier_uniform(self.random, [inputs, outputs], inputs, outputs))

    def dense(self, x, inputs, outputs):
        """A dense layer on [batch, inputs]."""
        return self.node("Gemm", x, self.matrix(inputs, outputs), self.weight(np.zeros(outputs)))

    def dense_of_tokens(self, x, inputs, outputs):
        """A dense layer on [batch, tokens, inputs]."""
        return self.node("Add", self.node("MatMul", x, self.matrix(inputs, outputs)), self.weight(np.zeros(outputs)))

    def convolution(self, x, inputs, channels, kernel, stride=1, padding=0, bias=True):
        area = kernel * kernel
        filters = self.weight(peer.xavier_uniform(self.random, [channels, inputs, kernel, kernel], area * inputs,
                                                  area * channels))
        values = [filters, self.weight(np.zeros(channels))] if bias else [filters]
        return self.node("Conv", x, *values, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padding] * 4)

    def batch_norm(self, x, channels):
        scale, offset = self.weight(np.ones(channels)), self.weight(np.zeros(channels))
        mean, variance = self.constant(np.zeros(channels, np.float32)), self.constant(np.ones(channels, np.float32))
        return self.node("BatchNormalization", x, scale, offset, mean, variance, epsilon=peer.NORM_EPSILON)

    def layer_norm(self, x, width):
        return self.node("LayerNormalization", x, self.weight(np.ones(width)), self.weight(np.zeros(width)),
                         epsilon=peer.NORM_EPSILON)

    def pool(self, kind, x):
        return self.node(kind, x, kernel_shape=[2, 2], strides=[2, 2])


def lenet(g, x):
    x = g.pool("AveragePool", g.node("Sigmoid", g.convolution(x, 1, 6, 5, padding=2)))
    x = g.pool("AveragePool", g.node("Sigmoid", g.convolution(x, 6, 16, 5)))
    x = g.node("Sigmoid", g.dense(g.node("Flatten", x), 400, 120))
    x = g.node("Sigmoid", g.dense(x, 120, 84))
    return g.dense(x, 84, peer.CLASSES)


def mlp(g, x):
    x = g.node("Relu", g.dense(x, 784, 256))
    x = g.node("Relu", g.dense(x, 256, 128))
    return g.dense(x, 128, peer.CLASSES)


def vgg(g, x):
    inputs = 3
    for channels in [16, 32, 64]:
        x = g.node("Relu", g.convolution(x, inputs, channels, 3, padding=1))
        x = g.node("Relu", g.convolution(x, channels, channels, 3, padding=1))
        x = g.pool("MaxPool", x)
        inputs = channels
    return g.dense(g.node("Flatten", x), 1024, peer.CLASSES)


def block(g, x, inputs, channels, stride):
    y = g.batch_norm(g.convolution(x, inputs, channels, 3, stride, padding=1, bias=False), channels)
    y = g.batch_norm(g.convolution(g.node("Relu", y), channels, channels, 3, padding=1, bias=False), channels)
    if stride != 1 or inputs != channels:
        x = g.batch_norm(g.convolution(x, inputs, channels, 1, stride, bias=False), channels)
    return g.node("Relu", g.node("Add", y, x))


def resnet(g, x):
    x = g.node("Relu", g.batch_norm(g.convolution(x, 3, 16, 3, padding=1, bias=False), 16))
    x = block(g, block(g, block(g, x, 16, 16, 1), 16, 32, 2), 32, 64, 2)
    return g.dense(g.node("Flatten", g.node("GlobalAveragePool", x)), 64, peer.CLASSES)


def attention(g, x, tokens, width):
    size = width // peer.HEADS

    def split(transposed):
        heads = g.node("Reshape", g.dense_of_tokens(x, width, width), g.constant(np.array([0, 0, peer.HEADS, size])))
        return g.node("Transpose", heads, perm=transposed)

    q, k, v = split([0, 2, 1, 3]), split([0, 2, 3, 1]), split([0, 2, 1, 3])
    weights = g.node("Softmax", g.node("Mul", g.node("MatMul", q, k), g.number(size**-0.5)), axis=-1)
    heads = g.node("Transpose", g.node("MatMul", weights, v), perm=[0, 2, 1, 3])
    return g.dense_of_tokens(g.node("Reshape", heads, g.constant(np.array([0, 0, width]))), width, width)


def gelu(g, x):
    error = g.node("Erf", g.node("Div", x, g.number(2**0.5)))
    return g.node("Mul", g.node("Mul", x, g.node("Add", error, g.number(1))), g.number(0.5))


def transformer(g, x):
    tokens, width = peer.INPUT_SIZES["transformer"]
    x = g.node("Add", x, attention(g, g.layer_norm(x, width), tokens, width))
    hidden = gelu(g, g.dense_of_tokens(g.layer_norm(x, width), width, 512))
    return g.node("Add", x, g.dense_of_tokens(hidden, 512, width))


def main():
    flags.variant = flags.variant or "all"
    inputs, _ = peer.random_data(flags)
    graph = Graph()
    model = {"lenet": lenet, "mlp": mlp, "vgg": vgg, "resnet": resnet, "transformer": transformer}[flags.model]
    output = model(graph, "input")
    output_sizes = list(inputs.shape) if flags.model == "transformer" else [flags.batch_size, peer.CLASSES]
    proto = helper.make_model(
        helper.make_graph(graph.nodes, flags.model,
                          [helper.make_tensor_value_info("input", TensorProto.FLOAT, inputs.shape)],
                          [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_sizes)],
                          graph.initializers),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = flags.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    feeds = {"input": inputs}
    peer.measure(lambda: session.run([output], feeds)[0], flags, graph.parameters)


main()
