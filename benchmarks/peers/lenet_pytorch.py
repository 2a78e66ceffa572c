"""LeNet's training step in PyTorch: the work of benchmarks/lenet_throughput.cc.

Prints the examples a second, the median over rounds. Needs torch (Debian: python3-torch).
"""

import argparse
import statistics
import time

import torch
from torch import nn


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, kernel_size=5), nn.Sigmoid(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Sigmoid(),
        nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="Steps in a round.")
    flags = parser.parse_args()

    torch.set_num_threads(flags.threads)
    torch.manual_seed(0)
    model = lenet()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.9)
    loss_function = nn.CrossEntropyLoss()
    images = torch.rand(flags.batch_size, 1, 28, 28)
    labels = torch.randint(0, 10, (flags.batch_size,))

    def step():
        optimizer.zero_grad()
        loss = loss_function(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(5):
        step()
    rates = []
    for _ in range(flags.rounds):
        start = time.perf_counter()
        for _ in range(flags.steps):
            step()
        rates.append(flags.steps * flags.batch_size / (time.perf_counter() - start))
    print(f"{statistics.median(rates):.0f}")


if __name__ == "__main__":
    main()
