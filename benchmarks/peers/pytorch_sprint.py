"""The recipe of //examples:sprint in PyTorch: the same net, loss, optimizer, schedule, mirrored images and averages.

Flags and output are those of //examples:sprint. The times are those of the training alone, without reading files,
building the net and testing. With --compile, the script computes the gradients of a batch of each size before the
training, so that times do not include compilation.
"""

import argparse
import gzip
import os
import statistics
import struct
import time

import torch
from torch import nn
import torch.nn.functional as F


def read_idx(path):
    with gzip.open(path) as file:
        data = file.read()
    sizes = struct.unpack(">%dI" % data[3], data[4:4 + 4 * data[3]])
    return torch.frombuffer(bytearray(data[4 + 4 * data[3]:]), dtype=torch.uint8).reshape(sizes)


def load(folder, name):
    images = read_idx(os.path.join(folder, name + "-images-idx3-ubyte.gz"))
    return ((images.float() / 255 - 0.2860) / 0.3530)[:, None], read_idx(
        os.path.join(folder, name + "-labels-idx1-ubyte.gz")).long()


def build(width):
    net = nn.Sequential(nn.Conv2d(1, width, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(),
                        nn.Conv2d(width, 2 * width, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
                        nn.Flatten(), nn.Linear(98 * width, 16 * width), nn.ReLU(), nn.Linear(16 * width, 10))
    for module in net.modules():
        if hasattr(module, "weight"):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return net


def train(flags, seed, images, labels):
    """Returns the averaged net and the seconds of the training."""
    torch.manual_seed(seed)
    net = build(flags.width)
    if flags.channels_last:
        net = net.to(memory_format=torch.channels_last)
    averaged = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98))
    optimizer = torch.optim.SGD(net.parameters(), flags.lr, momentum=0.9, nesterov=True, weight_decay=2e-4, fused=True)
    steps = flags.epochs * -(-len(images) // flags.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, flags.lr, total_steps=steps, pct_start=0.2,
                                                   cycle_momentum=False)

    def loss_of(x, y):
        return F.cross_entropy(net(x), y, label_smoothing=0.05)

    if flags.compile:
        loss_of = torch.compile(loss_of)
        for size in {flags.batch_size, len(images) % flags.batch_size or flags.batch_size}:
            loss_of(images[:size], labels[:size]).backward()
    begin = time.perf_counter()
    for _ in range(flags.epochs):
        for rows in torch.randperm(len(images)).split(flags.batch_size):
            x = images[rows]
            x = torch.where((torch.rand(len(rows)) < 0.5)[:, None, None, None], x.flip(3), x)
            optimizer.zero_grad(set_to_none=True)
            loss_of(x, labels[rows]).backward()
            optimizer.step()
            schedule.step()
            averaged.update_parameters(net)
    return averaged, time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.08)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--channels_last", action="store_true", help="store images as [batch, height, width, channels]")
    parser.add_argument("--data_dir", default="/usr/share/datasets/fashion-mnist")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    images, labels = load(flags.data_dir, "train")
    test_images, test_labels = load(flags.data_dir, "t10k")
    seconds, accuracies = [], []
    for seed in range(flags.seed, flags.seed + flags.runs):
        net, time_of_run = train(flags, seed, images, labels)
        with torch.no_grad():
            answers = torch.cat([net(batch).argmax(1) for batch in test_images.split(1000)])
        seconds.append(time_of_run)
        accuracies.append((answers == test_labels).float().mean().item())
        print("seed %d: %.2f s, test accuracy %.4f" % (seed, seconds[-1], accuracies[-1]), flush=True)
    print("median: %.2f s, test accuracy %.4f; %d of %d runs reached %g" %
          (statistics.median(seconds), statistics.median(accuracies),
           sum(accuracy >= flags.target for accuracy in accuracies), flags.runs, flags.target))


main()
