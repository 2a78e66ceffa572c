"""The models in TensorFlow.

Variants: function (a tf.function); xla (a tf.function that XLA compiles). Images are stored
as [batch, height, width, channels].
"""

import os

import peer

flags = peer.parse_flags(__doc__, ["function", "xla"], models=peer.COMMON_MODELS)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf


class Parameters(peer.ParameterShapes):
    """Creates the variables when a model runs first, and returns them in the same order when it runs again."""

    def __init__(self):
        self.weights = []
        self.statistics = []
        self.random = np.random.RandomState(2)
        self.start(False)

    def start(self, training):
        """Must be called before each further use of the model."""
        self.training = training
        self.next_weight = self.next_statistic = 0

    def weight(self, make):
        if self.next_weight == len(self.weights):
            self.weights.append(tf.Variable(make()))
        self.next_weight += 1
        return self.weights[self.next_weight - 1]

    def running(self, value, size):
        if self.next_statistic == len(self.statistics):
            self.statistics.append(tf.Variable(np.full([size], value, np.float32), trainable=False))
        self.next_statistic += 1
        return self.statistics[self.next_statistic - 1]


def dense(p, x, outputs):
    return tf.nn.bias_add(tf.matmul(x, p.matrix(x.shape[-1], outputs)), p.constant(0, outputs))


def convolution(p, x, channels, kernel, stride=1, padding=0, bias=True):
    explicit = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
    y = tf.nn.conv2d(x, p.filters(kernel, x.shape[3], channels), stride, explicit if padding else "VALID")
    return tf.nn.bias_add(y, p.constant(0, channels)) if bias else y


def average_pool(x):
    return tf.nn.avg_pool2d(x, 2, 2, "VALID")


def max_pool(x):
    return tf.nn.max_pool2d(x, 2, 2, "VALID")


def batch_norm(p, x):
    channels = x.shape[3]
    scale, offset = p.constant(1, channels), p.constant(0, channels)
    mean, variance = p.running(0, channels), p.running(1, channels)
    if not p.training:
        return tf.compat.v1.nn.fused_batch_norm(x, scale, offset, mean, variance, epsilon=peer.NORM_EPSILON,
                                                is_training=False)[0]
    y, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(x, scale, offset, epsilon=peer.NORM_EPSILON)
    mean.assign_add(peer.BATCH_NORM_MOMENTUM * (batch_mean - mean))
    variance.assign_add(peer.BATCH_NORM_MOMENTUM * (batch_variance - variance))
    return y


def layer_norm(p, x):
    width = x.shape[-1]
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, offset=p.constant(0, width), scale=p.constant(1, width),
                                     variance_epsilon=peer.NORM_EPSILON)


def flatten(x):
    return tf.reshape(x, [x.shape[0], -1])


def lenet(p, x):
    x = average_pool(tf.sigmoid(convolution(p, x, 6, 5, padding=2)))
    x = average_pool(tf.sigmoid(convolution(p, x, 16, 5)))
    x = tf.sigmoid(dense(p, flatten(x), 120))
    x = tf.sigmoid(dense(p, x, 84))
    return dense(p, x, peer.CLASSES)


def mlp(p, x):
    x = tf.nn.relu(dense(p, x, 256))
    x = tf.nn.relu(dense(p, x, 128))
    return dense(p, x, peer.CLASSES)


def vgg(p, x):
    for channels in [16, 32, 64]:
        x = tf.nn.relu(convolution(p, x, channels, 3, padding=1))
        x = tf.nn.relu(convolution(p, x, channels, 3, padding=1))
        x = max_pool(x)
    return dense(p, flatten(x), peer.CLASSES)


def block(p, x, channels, stride):
    y = tf.nn.relu(batch_norm(p, convolution(p, x, channels, 3, stride, padding=1, bias=False)))
    y = batch_norm(p, convolution(p, y, channels, 3, padding=1, bias=False))
    if stride != 1 or x.shape[3] != channels:
        x = batch_norm(p, convolution(p, x, channels, 1, stride, bias=False))
    return tf.nn.relu(y + x)


def resnet(p, x):
    x = tf.nn.relu(batch_norm(p, convolution(p, x, 16, 3, padding=1, bias=False)))
    x = block(p, block(p, block(p, x, 16, 1), 32, 2), 64, 2)
    return dense(p, tf.reduce_mean(x, [1, 2]), peer.CLASSES)


def attention(p, x, batch, tokens):
    width = x.shape[1]
    size = width // peer.HEADS
    q, k, v = (tf.transpose(tf.reshape(dense(p, x, width), [batch, tokens, peer.HEADS, size]), [0, 2, 1, 3])
               for _ in range(3))
    weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * size**-0.5)
    joined = tf.transpose(tf.matmul(weights, v), [0, 2, 1, 3])
    return dense(p, tf.reshape(joined, [batch * tokens, width]), width)


def transformer(p, x):
    batch, tokens, width = x.shape
    x = tf.reshape(x, [batch * tokens, width])  # Dense layers work on matrices.
    x = x + attention(p, layer_norm(p, x), batch, tokens)
    x = x + dense(p, tf.nn.gelu(dense(p, layer_norm(p, x), 512)), width)
    return tf.reshape(x, [batch, tokens, width])


def default_variant():
    return "xla" if flags.model in ["lenet", "mlp"] else "function"


def main():
    flags.variant = flags.variant or default_variant()
    tf.config.threading.set_intra_op_parallelism_threads(flags.threads)
    tf.config.threading.set_inter_op_parallelism_threads(flags.threads)
    model = {"lenet": lenet, "mlp": mlp, "vgg": vgg, "resnet": resnet, "transformer": transformer}[flags.model]
    inputs, labels = (tf.constant(array) for array in peer.random_data(flags, channels_last=True))
    p = Parameters()
    model(p, inputs)
    parameters = sum(int(np.prod(weight.shape)) for weight in p.weights)

    @tf.function(jit_compile=flags.variant == "xla")
    def forward(inputs):
        p.start(training=False)
        return model(p, inputs)

    @tf.function(jit_compile=flags.variant == "xla")
    def update(inputs, labels):
        p.start(training=True)
        with tf.GradientTape() as tape:
            output = model(p, inputs)
            if flags.model == "transformer":
                loss = tf.reduce_mean(tf.square(output))
            else:
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, output))
        for weight, gradient in zip(p.weights, tape.gradient(loss, p.weights)):
            weight.assign_sub(peer.MODELS[flags.model].rate * gradient)
        return loss

    if flags.mode == "infer":
        peer.measure(lambda: forward(inputs).numpy(), flags, parameters)
    else:
        peer.measure(lambda: float(update(inputs, labels)), flags, parameters)


main()
