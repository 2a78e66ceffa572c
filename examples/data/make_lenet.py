"""Makes lenet.onnx: LeNet with the random weights that PyTorch gives it, as PyTorch's exporter writes it.

    python3 -m venv /tmp/venv; /tmp/venv/bin/pip install torch onnx numpy
    /tmp/venv/bin/python examples/data/make_lenet.py
"""

import pathlib

import torch
from torch import nn

torch.manual_seed(0)
lenet = nn.Sequential(
    nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
    nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
    nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10))
torch.onnx.export(
    lenet, (torch.zeros(1, 1, 28, 28),), str(pathlib.Path(__file__).with_name("lenet.onnx")), input_names=["image"],
    output_names=["logits"], dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}}, opset_version=17,
    dynamo=False, do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE)
