"""What the scripts that write reference files have in common: the numbers of inputs and parameters, and the format.

Inputs and parameters come from numbers(), which reference.cc implements too, so the files store only results.
"""

import os

import numpy as np
import torch

torch.set_num_threads(1)

LINES = []


def numbers(seed, sizes, low=-1.0, high=1.0):
    """Returns SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014) of seed and index."""
    count = int(np.prod(sizes, dtype=np.int64))
    with np.errstate(over="ignore"):
        z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (low + (high - low) * unit).reshape(sizes)


def integers(seed, sizes, limit):
    return np.floor(numbers(seed, sizes, 0, limit)).astype(np.int64)


def digest(array):
    """Returns small arrays unchanged; of others the norm, the product with numbers() and eight elements."""
    flat = np.asarray(array, dtype=np.float64).reshape(-1)
    if flat.size <= 64:
        return flat
    picks = [(flat.size - 1) * k // 7 for k in range(8)]
    return np.concatenate([[np.sqrt(np.sum(flat * flat)), np.dot(flat, numbers(999, [flat.size]))], flat[picks]])


def record(name, value):
    value = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    LINES.append(" ".join([name, "x".join(str(size) for size in value.shape) or "scalar"] +
                          ["%.17g" % number for number in digest(value)]))


def tensor(array, dtype=torch.float64, grad=False):
    return torch.tensor(array, dtype=dtype, requires_grad=grad)


def parameter(seed, sizes, bound, dtype=torch.float64):
    return tensor(numbers(seed, sizes, -bound, bound), dtype, True)


def write(name, script):
    """Writes all recorded lines to a file beside this one."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name), "w") as file:
        file.write("# Written by %s with PyTorch %s: name, shape, digest.\n" % (script, torch.__version__))
        file.write("\n".join(LINES) + "\n")
