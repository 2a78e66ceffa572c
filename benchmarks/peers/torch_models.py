"""The models in PyTorch. benchmarks/models.h says what they are."""

import torch
from torch import nn
import torch.nn.functional as F

import peer


class Block(nn.Module):
    """Layers, with the input added to their result. Where they change the shape, a convolution adapts the input."""

    def __init__(self, layers, inputs, outputs, stride):
        super().__init__()
        self.layers = layers
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), batch_norm(outputs))

    def forward(self, x):
        return F.relu(self.layers(x) + self.shortcut(x))


def convolution(inputs, outputs, kernel, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)


def batch_norm(channels, kind=nn.BatchNorm2d):
    return kind(channels, eps=peer.NORM_EPSILON, momentum=peer.BATCH_NORM_MOMENTUM)


def basic_block(inputs, width, stride):
    layers = nn.Sequential(convolution(inputs, width, 3, stride), batch_norm(width), nn.ReLU(),
                           convolution(width, width, 3), batch_norm(width))
    return Block(layers, inputs, width, stride), width


def bottleneck(inputs, width, stride):
    layers = nn.Sequential(convolution(inputs, width, 1), batch_norm(width), nn.ReLU(),
                           convolution(width, width, 3, stride), batch_norm(width), nn.ReLU(),
                           convolution(width, 4 * width, 1), batch_norm(4 * width))
    return Block(layers, inputs, 4 * width, stride), 4 * width


def imagenet_resnet(block, stages):
    layers = [convolution(3, 64, 7, 2), batch_norm(64), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    channels = 64
    for stage, blocks in enumerate(stages):
        for i in range(blocks):
            layer, channels = block(channels, 64 << stage, 2 if i == 0 and stage > 0 else 1)
            layers.append(layer)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


class Residual(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        return x + self.layers(x)


def mobilenet(classes):
    layers = [convolution(3, 32, 3, 2), batch_norm(32), nn.ReLU6()]
    inputs = 32
    for expansion, outputs, repeats, stride in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                                (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:
        for i in range(repeats):
            step, hidden = stride if i == 0 else 1, inputs * expansion
            block = [] if expansion == 1 else [convolution(inputs, hidden, 1), batch_norm(hidden), nn.ReLU6()]
            block += [convolution(hidden, hidden, 3, step, groups=hidden), batch_norm(hidden), nn.ReLU6(),
                      convolution(hidden, outputs, 1), batch_norm(outputs)]
            block = nn.Sequential(*block)
            layers.append(Residual(block) if step == 1 and inputs == outputs else block)
            inputs = outputs
    return nn.Sequential(*layers, convolution(320, 1280, 1), batch_norm(1280), nn.ReLU6(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(1280, classes))


def double_convolution(inputs, outputs):
    return nn.Sequential(convolution(inputs, outputs, 3), batch_norm(outputs), nn.ReLU(),
                         convolution(outputs, outputs, 3), batch_norm(outputs), nn.ReLU())


class Level(nn.Module):
    """A level of a U-Net, and those below it."""

    def __init__(self, inputs, channels, depth):
        super().__init__()
        self.down = double_convolution(inputs, channels)
        below = Level(channels, 2 * channels, depth - 1) if depth > 1 else double_convolution(channels, 2 * channels)
        self.below = nn.Sequential(nn.MaxPool2d(2), below, nn.ConvTranspose2d(2 * channels, channels, 2, stride=2))
        self.up = double_convolution(2 * channels, channels)

    def forward(self, x):
        x = self.down(x)
        return self.up(torch.cat([x, self.below(x)], 1))


def autoencoder():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 32), nn.Linear(32, 32 * 7 * 7), nn.ReLU(), nn.Unflatten(1, (32, 7, 7)),
        nn.ConvTranspose2d(32, 16, 2, stride=2), nn.ReLU(), nn.ConvTranspose2d(16, 1, 2, stride=2), nn.Sigmoid())


class Attention(nn.Module):
    """Self-attention with several heads. One product gives queries, keys and values."""

    def __init__(self, width, heads, causal=False):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.inputs(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        joined = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.output(joined.transpose(1, 2).reshape(batch, tokens, width))


def attention_block(width, heads, causal=False):
    def norm():
        return nn.LayerNorm(width, eps=peer.NORM_EPSILON)

    return nn.Sequential(Residual(nn.Sequential(norm(), Attention(width, heads, causal))),
                         Residual(nn.Sequential(norm(), nn.Linear(width, 4 * width), nn.GELU(),
                                                nn.Linear(4 * width, width))))


class Encoder(nn.Module):
    """Attention and two dense layers. Each works on its normalized input and is added to it."""

    def __init__(self, width=128, hidden=512):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=peer.NORM_EPSILON)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.norm2 = nn.LayerNorm(width, eps=peer.NORM_EPSILON)
        self.dense1 = nn.Linear(width, hidden)
        self.dense2 = nn.Linear(hidden, width)

    def attention(self, x):
        batch, tokens, width = x.shape
        q, k, v = (layer(x).view(batch, tokens, peer.HEADS, width // peer.HEADS).transpose(1, 2)
                   for layer in (self.query, self.key, self.value))
        if hasattr(F, "scaled_dot_product_attention"):
            joined = F.scaled_dot_product_attention(q, k, v)
        else:
            weights = torch.softmax(q @ k.transpose(2, 3) * (width // peer.HEADS)**-0.5, dim=3)
            joined = weights @ v
        return self.output(joined.transpose(1, 2).reshape(batch, tokens, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.dense2(F.gelu(self.dense1(self.norm2(x))))


class Positions(nn.Module):
    """Adds a learned vector to each token. With a class token, it first puts that before the others."""

    def __init__(self, tokens, width, class_token=False):
        super().__init__()
        self.table = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02) if class_token else None

    def forward(self, x):
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return x + self.table


class Function(nn.Module):
    """A function of a tensor as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def gpt():
    width, heads, tokens, vocabulary = 128, 4, 128, peer.MODELS["gpt"].vocabulary
    return nn.Sequential(nn.Embedding(vocabulary, width), Positions(tokens, width),
                         *(attention_block(width, heads, causal=True) for _ in range(4)),
                         nn.LayerNorm(width, eps=peer.NORM_EPSILON), nn.Linear(width, vocabulary))


def vit():
    width, heads = 192, 3
    return nn.Sequential(nn.Conv2d(3, width, 16, stride=16), Function(lambda x: x.flatten(2).transpose(1, 2)),
                         Positions(14 * 14 + 1, width, class_token=True),
                         *(attention_block(width, heads) for _ in range(12)),
                         nn.LayerNorm(width, eps=peer.NORM_EPSILON), Function(lambda x: x[:, 0]),
                         nn.Linear(width, 1000))


class Lstm(nn.Module):
    """The last hidden state. Of PyTorch's two biases, which it adds, one is fixed at zero."""

    def __init__(self, inputs, hidden):
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        nn.init.zeros_(self.lstm.bias_hh_l0)
        self.lstm.bias_hh_l0.requires_grad_(False)

    def forward(self, x):
        return self.lstm(x)[0][:, -1]


def embedding():
    model = peer.MODELS["embedding"]
    return nn.Sequential(nn.Embedding(model.vocabulary, 64), Function(lambda x: x.mean(1)), nn.Linear(64, 64), nn.ReLU(),
                         nn.Linear(64, 10))


def audio():
    layers, inputs = [], 1
    for channels in [32, 32, 64, 64]:
        layers += [nn.Conv1d(inputs, channels, 80 if inputs == 1 else 3, stride=16 if inputs == 1 else 1),
                   batch_norm(channels, nn.BatchNorm1d), nn.ReLU(), nn.MaxPool1d(4)]
        inputs = channels
    return nn.Sequential(*layers, Function(lambda x: x.mean(2)), nn.Linear(inputs, 35))


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10))


def perceptron(*widths):
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def vgg():
    layers, inputs = [], 3
    for channels in [16, 32, 64]:
        layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(),
                   nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        inputs = channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))


def resnet():
    return nn.Sequential(convolution(3, 16, 3), batch_norm(16), nn.ReLU(), basic_block(16, 16, 1)[0],
                         basic_block(16, 32, 2)[0], basic_block(32, 64, 2)[0], nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(64, 10))


BUILDERS = {
    "lenet": lenet,
    "mlp": lambda: perceptron(784, 256, 128, 10),
    "vgg": vgg,
    "resnet": resnet,
    "transformer": Encoder,
    "resnet18": lambda: imagenet_resnet(basic_block, [2, 2, 2, 2]),
    "resnet50": lambda: imagenet_resnet(bottleneck, [3, 4, 6, 3]),
    "mobilenet": lambda: mobilenet(1000),
    "mobilenet64": lambda: mobilenet(10),
    "unet": lambda: nn.Sequential(Level(1, 16, 3), nn.Conv2d(16, 1, 1)),
    "autoencoder": autoencoder,
    "lstm": lambda: nn.Sequential(Lstm(64, 128), nn.Linear(128, 10)),
    "gpt": gpt,
    "vit": vit,
    "embedding": embedding,
    "tabular": lambda: perceptron(32, 128, 64, 10),
    "deep_mlp": lambda: perceptron(*[512] * 65, 10),
    "audio": audio,
}


def build_model(name):
    """Returns the model with its initial weights, and the number of its trainable parameters."""
    model = BUILDERS[name]()
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            if name == "deep_mlp":
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model, sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def loss_of(name, output, inputs, labels):
    """The loss of a model's output, which training minimizes."""
    loss = peer.MODELS[name].loss
    if loss == "squares":
        return output.square().mean()
    if loss == "mask":
        return F.binary_cross_entropy_with_logits(output, labels)
    if loss == "input":
        return F.mse_loss(output, inputs)
    return F.cross_entropy(output.flatten(0, -2), labels.flatten())


def make_optimizer(name, model):
    """The optimizer of a model, with one kernel for all of its updates where this PyTorch has it."""
    settings = {"fused": True} if hasattr(torch, "compile") else {}
    optimizers = {
        "sgd": lambda weights, rate: torch.optim.SGD(weights, rate, **settings),
        "momentum": lambda weights, rate: torch.optim.SGD(weights, rate, momentum=0.9, **settings),
        "adam": lambda weights, rate: torch.optim.Adam(weights, rate, **settings),
        "adamw": lambda weights, rate: torch.optim.AdamW(weights, rate, weight_decay=0.01, **settings),
    }
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return optimizers[peer.MODELS[name].optimizer](weights, peer.MODELS[name].rate)
