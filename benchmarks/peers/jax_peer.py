"""The models in JAX.

A step is one jax.jit call; training donates the parameters. Images are stored as [batch, height, width, channels].
Pooling is a reshape and a reduction, because XLA computes its gradient faster on CPUs than that of a window.
"""

import peer

flags = peer.parse_flags(__doc__, ["jit"], models=peer.COMMON_MODELS)

import functools

import jax
from jax import lax
from jax import numpy as jnp
import numpy as np


class Parameters(peer.ParameterShapes):
    """Creates the parameters when a model runs first, and returns them in the same order when it runs again."""

    def __init__(self, weights=None, statistics=None, training=True):
        self.making = weights is None
        self.weights = [] if self.making else weights
        self.statistics = [] if self.making else statistics
        self.training = training
        self.new_statistics = []
        self.random = np.random.RandomState(2)
        self.next_weight = self.next_statistic = 0

    def weight(self, make):
        if self.making:
            self.weights.append(jnp.asarray(make()))
        self.next_weight += 1
        return self.weights[self.next_weight - 1]

    def running(self, value, size):
        if self.making:
            self.statistics.append(jnp.full([size], value, jnp.float32))
        self.next_statistic += 1
        return self.statistics[self.next_statistic - 1]


def dense(p, x, outputs):
    return x @ p.matrix(x.shape[-1], outputs) + p.constant(0, outputs)


def convolution(p, x, channels, kernel, stride=1, padding=0, bias=True):
    y = lax.conv_general_dilated(x, p.filters(kernel, x.shape[3], channels), (stride, stride), [(padding, padding)] * 2,
                                 dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y + p.constant(0, channels) if bias else y


def windows(x):
    """Splits height and width of [batch, height, width, channels] into windows of 2. Drops an odd row or column."""
    batch, height, width, channels = x.shape
    x = x[:, :height // 2 * 2, :width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels)


def average_pool(x):
    return windows(x).mean((2, 4))


def max_pool(x):
    return windows(x).max((2, 4))


def batch_norm(p, x):
    channels = x.shape[3]
    scale, offset = p.constant(1, channels), p.constant(0, channels)
    mean, variance = p.running(0, channels), p.running(1, channels)
    if p.training:
        batch_mean, batch_variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        count = x.size // channels
        update = peer.BATCH_NORM_MOMENTUM
        p.new_statistics += [mean + update * (batch_mean - mean),
                             variance + update * (batch_variance * (count / (count - 1)) - variance)]
        mean, variance = batch_mean, batch_variance
    factor = scale * lax.rsqrt(variance + peer.NORM_EPSILON)
    return x * factor + (offset - mean * factor)


def layer_norm(p, x):
    width = x.shape[-1]
    mean = x.mean(-1, keepdims=True)
    normal = (x - mean) * lax.rsqrt(x.var(-1, keepdims=True) + peer.NORM_EPSILON)
    return normal * p.constant(1, width) + p.constant(0, width)


def lenet(p, x):
    x = average_pool(jax.nn.sigmoid(convolution(p, x, 6, 5, padding=2)))
    x = average_pool(jax.nn.sigmoid(convolution(p, x, 16, 5)))
    x = x.reshape(x.shape[0], -1)
    x = jax.nn.sigmoid(dense(p, x, 120))
    x = jax.nn.sigmoid(dense(p, x, 84))
    return dense(p, x, peer.CLASSES)


def mlp(p, x):
    x = jax.nn.relu(dense(p, x, 256))
    x = jax.nn.relu(dense(p, x, 128))
    return dense(p, x, peer.CLASSES)


def vgg(p, x):
    for channels in [16, 32, 64]:
        x = jax.nn.relu(convolution(p, x, channels, 3, padding=1))
        x = jax.nn.relu(convolution(p, x, channels, 3, padding=1))
        x = max_pool(x)
    return dense(p, x.reshape(x.shape[0], -1), peer.CLASSES)


def block(p, x, channels, stride):
    y = jax.nn.relu(batch_norm(p, convolution(p, x, channels, 3, stride, padding=1, bias=False)))
    y = batch_norm(p, convolution(p, y, channels, 3, padding=1, bias=False))
    if stride != 1 or x.shape[3] != channels:
        x = batch_norm(p, convolution(p, x, channels, 1, stride, bias=False))
    return jax.nn.relu(y + x)


def resnet(p, x):
    x = jax.nn.relu(batch_norm(p, convolution(p, x, 16, 3, padding=1, bias=False)))
    x = block(p, block(p, block(p, x, 16, 1), 32, 2), 64, 2)
    return dense(p, x.mean((1, 2)), peer.CLASSES)


def attention(p, x):
    batch, tokens, width = x.shape
    size = width // peer.HEADS
    q, k, v = (dense(p, x, width).reshape(batch, tokens, peer.HEADS, size).transpose(0, 2, 1, 3) for _ in range(3))
    weights = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) * size**-0.5)
    return dense(p, (weights @ v).transpose(0, 2, 1, 3).reshape(batch, tokens, width), width)


def transformer(p, x):
    x = x + attention(p, layer_norm(p, x))
    hidden = jax.nn.gelu(dense(p, layer_norm(p, x), 512), approximate=False)
    return x + dense(p, hidden, x.shape[2])


def main():
    flags.variant = flags.variant or "jit"
    model = {"lenet": lenet, "mlp": mlp, "vgg": vgg, "resnet": resnet, "transformer": transformer}[flags.model]
    inputs, labels = (jax.device_put(array) for array in peer.random_data(flags, channels_last=True))
    made = Parameters()
    model(made, inputs[:1])
    weights, statistics = made.weights, made.statistics
    parameters = sum(weight.size for weight in weights)

    if flags.mode == "infer":

        @jax.jit
        def forward(weights, statistics, inputs):
            return model(Parameters(weights, statistics, training=False), inputs)

        peer.measure(lambda: np.asarray(forward(weights, statistics, inputs)), flags, parameters)
        return

    def loss_of(weights, statistics, inputs, labels):
        p = Parameters(weights, statistics)
        output = model(p, inputs)
        if flags.model == "transformer":
            return jnp.mean(output * output), p.new_statistics
        chosen = jnp.take_along_axis(output, labels[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(output, axis=1) - chosen), p.new_statistics

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(weights, statistics, inputs, labels):
        (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(weights, statistics, inputs, labels)
        rate = peer.MODELS[flags.model].rate
        return [weight - rate * gradient for weight, gradient in zip(weights, gradients)], statistics, loss

    def train():
        nonlocal weights, statistics
        weights, statistics, loss = update(weights, statistics, inputs, labels)
        return float(loss)

    peer.measure(train, flags, parameters)


main()
