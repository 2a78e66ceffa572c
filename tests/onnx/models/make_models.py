"""Makes the ONNX files of this folder and the numbers that import_test compares with.

    python3 -m venv /tmp/venv; /tmp/venv/bin/pip install torch onnx numpy
    /tmp/venv/bin/python tests/onnx/models/make_models.py

The files here were made with PyTorch's exporter to TorchScript. Each <name>.npz has the inputs of two runs with
different sizes, the outputs, and the gradients of the mean cross-entropy with respect to all parameters, by PyTorch's
autograd.
"""

import pathlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

FOLDER = pathlib.Path(__file__).parent


class ConvNet(nn.Module):
    """LeNet's kinds of layers and newer ones, small: images [batch, 1, 12, 12]."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, groups=2)
        self.dense1 = nn.Linear(24, 10)
        self.dense2 = nn.Linear(10, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv1(x))), 2)
        x = F.avg_pool2d(torch.sigmoid(self.conv2(x)), 2, stride=1, padding=1)[:, :, 1:, 1:]
        x = x.reshape(x.shape[0], -1)
        return self.dense2(F.leaky_relu(self.dense1(x), 0.1))


class Transformer(nn.Module):
    """One block of an encoder with shapes computed from the input: tokens [batch, time] -> classes [batch, 5]."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.places = nn.Embedding(16, 8)
        self.norm1 = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.norm2 = nn.LayerNorm(8)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)
        self.head = nn.Linear(8, 5)
        # The exporter would merge equal parameters of the two norms.
        for parameter in [*self.norm1.parameters(), *self.norm2.parameters()]:
            nn.init.uniform_(parameter, 0.5, 1.5)

    def forward(self, tokens):
        batch, time = tokens.shape
        x = self.tokens(tokens) + self.places(torch.arange(time))
        q, k, v = self.qkv(self.norm1(x)).view(batch, time, 3, 2, 4).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / 2
        mask = torch.ones(time, time).tril().bool()
        scores = scores.masked_fill(~mask, float("-inf"))
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, time, 8)
        x = x + self.out(mixed)
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """An LSTM and a bidirectional GRU over sequences [batch, 6, 3]."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.gru = nn.GRU(4, 3, batch_first=True, bidirectional=True)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x, _ = self.lstm(x)
        x, _ = self.gru(x)
        return self.head(x[:, -1])


def write(name, model, inputs, axes):
    model.eval()
    torch.onnx.export(
        model, (inputs[0],), str(FOLDER / f"{name}.onnx"), input_names=["x"], output_names=["y"],
        dynamic_axes={"x": axes, "y": {0: "batch"}}, opset_version=17, dynamo=False,
        do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE)
    arrays = {}
    for i, x in enumerate(inputs):
        y = model(x)
        labels = torch.arange(x.shape[0]) % 5
        model.zero_grad()
        F.cross_entropy(y, labels).backward()
        arrays[f"x{i}"], arrays[f"y{i}"], arrays[f"labels{i}"] = x.numpy(), y.detach().numpy(), labels.numpy()
        for key, parameter in model.named_parameters():
            arrays[f"gradient{i}/{key}"] = parameter.grad.numpy()
    np.savez(FOLDER / f"{name}.npz", **arrays)


def main():
    torch.manual_seed(1)
    net = ConvNet()
    net.norm.running_mean.uniform_(-0.3, 0.3)
    net.norm.running_var.uniform_(0.5, 1.5)
    write("conv_net", net, [torch.randn(n, 1, 12, 12) for n in (3, 7)], {0: "batch"})
    write("transformer", Transformer(), [torch.randint(0, 11, shape) for shape in ((2, 7), (3, 9))],
          {0: "batch", 1: "time"})
    write("recurrent", Recurrent(), [torch.randn(n, 6, 3) for n in (2, 5)], {0: "batch"})


main()
