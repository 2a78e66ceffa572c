"""The models in MXNet's Gluon, hybridized with static memory.

Variants: hybrid; fused (oneDNN's fused subgraphs, for inference only).
"""

import peer

flags = peer.parse_flags(__doc__, ["hybrid", "fused"], models=peer.COMMON_MODELS)

import mxnet as mx
from mxnet import autograd, gluon
from mxnet.gluon import nn


def batch_norm():
    return nn.BatchNorm(momentum=1 - peer.BATCH_NORM_MOMENTUM, epsilon=peer.NORM_EPSILON)


def sequential(*layers):
    block = nn.HybridSequential()
    block.add(*layers)
    return block


class Block(gluon.HybridBlock):
    """Two convolutions, with the input added to their result."""

    def __init__(self, channels, stride, changes):
        super().__init__()
        self.layers = sequential(nn.Conv2D(channels, 3, stride, 1, use_bias=False), batch_norm(),
                                 nn.Activation("relu"), nn.Conv2D(channels, 3, 1, 1, use_bias=False), batch_norm())
        self.shortcut = sequential(nn.Conv2D(channels, 1, stride, use_bias=False), batch_norm()) if changes else None

    def hybrid_forward(self, F, x):
        return F.Activation(self.layers(x) + (self.shortcut(x) if self.shortcut else x), act_type="relu")


class Encoder(gluon.HybridBlock):
    """Attention and two dense layers. Each works on its normalized input and is added to it."""

    def __init__(self, width=128, hidden=512):
        super().__init__()
        self.size = width // peer.HEADS
        self.norm1 = nn.LayerNorm(epsilon=peer.NORM_EPSILON)
        self.query, self.key, self.value, self.output = (nn.Dense(width, flatten=False) for _ in range(4))
        for layer in (self.query, self.key, self.value, self.output):
            self.register_child(layer)
        self.norm2 = nn.LayerNorm(epsilon=peer.NORM_EPSILON)
        self.dense1 = nn.Dense(hidden, flatten=False)
        self.gelu = nn.GELU()
        self.dense2 = nn.Dense(width, flatten=False)

    def attention(self, F, x):

        def split(layer):  # [batch, tokens, width] -> [batch * heads, tokens, size].
            heads = F.reshape(layer(x), shape=(0, 0, peer.HEADS, self.size))
            return F.reshape(F.transpose(heads, axes=(0, 2, 1, 3)), shape=(-3, 0, 0))

        q, k, v = split(self.query), split(self.key), split(self.value)
        weights = F.softmax(F.batch_dot(q, k, transpose_b=True) * self.size**-0.5)
        heads = F.reshape(F.batch_dot(weights, v), shape=(-4, -1, peer.HEADS, 0, 0))
        return self.output(F.reshape(F.transpose(heads, axes=(0, 2, 1, 3)), shape=(0, 0, -3)))

    def hybrid_forward(self, F, x):
        x = x + self.attention(F, self.norm1(x))
        return x + self.dense2(self.gelu(self.dense1(self.norm2(x))))


class SquaredMean(gluon.HybridBlock):
    """The mean square of each example. Ignores the labels."""

    def hybrid_forward(self, F, x, labels):
        return F.mean(F.square(x), axis=0, exclude=True)


def build_model(name):
    if name == "lenet":
        return sequential(
            nn.Conv2D(6, 5, padding=2, activation="sigmoid"), nn.AvgPool2D(2),
            nn.Conv2D(16, 5, activation="sigmoid"), nn.AvgPool2D(2),
            nn.Flatten(), nn.Dense(120, "sigmoid"), nn.Dense(84, "sigmoid"), nn.Dense(peer.CLASSES))
    if name == "mlp":
        return sequential(nn.Dense(256, "relu"), nn.Dense(128, "relu"), nn.Dense(peer.CLASSES))
    if name == "vgg":
        layers = []
        for channels in [16, 32, 64]:
            layers += [nn.Conv2D(channels, 3, padding=1, activation="relu"),
                       nn.Conv2D(channels, 3, padding=1, activation="relu"), nn.MaxPool2D(2)]
        return sequential(*layers, nn.Flatten(), nn.Dense(peer.CLASSES))
    if name == "resnet":
        return sequential(
            nn.Conv2D(16, 3, padding=1, use_bias=False), batch_norm(), nn.Activation("relu"),
            Block(16, 1, False), Block(32, 2, True), Block(64, 2, True),
            nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(peer.CLASSES))
    return Encoder()


def main():
    flags.variant = flags.variant or ("fused" if flags.mode == "infer" else "hybrid")
    if flags.variant == "fused" and flags.mode == "train":
        peer.unsupported("fused only infers")
    mx.random.seed(1)
    model = build_model(flags.model)
    model.initialize(mx.init.Xavier())
    inputs, labels = (mx.nd.array(array, dtype=array.dtype) for array in peer.random_data(flags))
    model(inputs)
    parameters = sum(parameter.data().size for parameter in model.collect_params().values()
                     if parameter.grad_req != "null")
    model.hybridize(static_alloc=True, static_shape=True)
    if flags.mode == "infer":
        if flags.variant == "fused":
            model.optimize_for(inputs, backend="MKLDNN", static_alloc=True, static_shape=True)
        peer.measure(lambda: model(inputs).asnumpy(), flags, parameters)
        return

    loss_of = SquaredMean() if flags.model == "transformer" else gluon.loss.SoftmaxCrossEntropyLoss()
    loss_of.hybridize(static_alloc=True, static_shape=True)
    trainer = gluon.Trainer(model.collect_params(), "sgd", {"learning_rate": peer.MODELS[flags.model].rate},
                            kvstore=None)

    def train():
        with autograd.record():
            loss = loss_of(model(inputs), labels)
        loss.backward()
        trainer.step(flags.batch_size)  # Divides the gradient of the summed losses.
        return loss.mean().asscalar()

    peer.measure(train, flags, parameters)


main()
