"""The common part of the peers: flags, data and timing.

A peer is a program `<framework>_peer.py` with the flags of //benchmarks:throughput. It does the same work and prints
the same: the examples per second. A script parses its flags before it imports its framework, because most frameworks
read the number of threads from the environment when they are loaded.
"""

import argparse
import os
import sys
import time

MODELS = ["lenet", "mlp", "vgg", "resnet", "transformer"]

# The sizes of one example; images are [channels, height, width].
INPUT_SIZES = {
    "lenet": [1, 28, 28],
    "mlp": [784],
    "vgg": [3, 32, 32],
    "resnet": [3, 32, 32],
    "transformer": [64, 128],
}

LEARNING_RATES = {"lenet": 0.9, "mlp": 0.1, "vgg": 0.05, "resnet": 0.1, "transformer": 0.01}

# The number of trainable parameters.
PARAMETERS = {"lenet": 61706, "mlp": 235146, "vgg": 82330, "resnet": 78042, "transformer": 198272}

CLASSES = 10
HEADS = 4  # Attention heads of the transformer.
NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.1  # The weight of a batch in the running statistics.

_output = sys.stdout


def parse_flags(description, variants, cuda=False):
    """Parses the flags and sets the environment variables for the number of threads. Afterwards only measure() writes to
    stdout.

    variants: the values that --variant accepts. Without the flag, flags.variant is None.
    cuda: True if the peer supports CUDA devices, with the flags --device and --precision.
    """
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--model", choices=MODELS, default="lenet")
    parser.add_argument("--mode", choices=["train", "infer"], default="train")
    parser.add_argument("--batch_size", type=int, default=256, help="examples per step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2, help="duration of the measurement")
    parser.add_argument("--variant", choices=variants, help="setting of the framework; default: the fastest for the model")
    parser.add_argument("--variants", action="store_true", help="print the names of the settings and exit")
    if cuda:
        parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<index>")
        parser.add_argument("--precision", choices=["ieee", "tf32", "bf16"], default="ieee",
                            help="precision to which matrix products on a CUDA device may round their operands")
    flags = parser.parse_args()
    if flags.variants:
        print(" ".join(variants))
        sys.exit()
    for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PJRT_NPROC"]:
        os.environ[name] = str(flags.threads)
    global _output
    _output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return flags


def random_data(flags, channels_last=False):
    """Returns float32 inputs in [0, 1) and int32 labels in [0, 10). They are the same in every run."""
    import numpy as np
    random = np.random.RandomState(1)
    sizes = INPUT_SIZES[flags.model]
    if channels_last and len(sizes) == 3:
        sizes = sizes[1:] + sizes[:1]
    inputs = random.random_sample([flags.batch_size] + sizes).astype(np.float32)
    labels = random.randint(CLASSES, size=flags.batch_size).astype(np.int32)
    return inputs, labels


def xavier_uniform(random, sizes, inputs, outputs):
    """Returns float32 weights for a unit with these numbers of inputs and outputs (Glorot and Bengio, 2010)."""
    import numpy as np
    bound = (6.0 / (inputs + outputs))**0.5
    return random.uniform(-bound, bound, sizes).astype(np.float32)


class ParameterShapes:
    """Initial values of parameters by shape. A subclass has `random` and weight(make), which keeps what make() returns."""

    def matrix(self, inputs, outputs):
        return self.weight(lambda: xavier_uniform(self.random, [inputs, outputs], inputs, outputs))

    def filters(self, kernel, inputs, outputs):
        area = kernel * kernel
        return self.weight(lambda: xavier_uniform(self.random, [kernel, kernel, inputs, outputs], area * inputs,
                                                  area * outputs))

    def constant(self, value, size):
        import numpy as np
        return self.weight(lambda: np.full([size], value, np.float32))


def unsupported(message):
    """Ends the program because the peer does not support the flags."""
    print(message, file=sys.stderr)
    sys.exit(3)


def measure(step, flags, parameters):
    """Calls step() repeatedly and prints the examples per second: the median over windows of 0.25 s.

    parameters: the number of trainable parameters, which must be equal for all peers. The variant goes to stderr.
    """
    if parameters != PARAMETERS[flags.model]:
        sys.exit("%s has %d parameters, not %d" % (flags.model, parameters, PARAMETERS[flags.model]))
    now = time.perf_counter
    start = now()
    steps = 0
    while steps < 3 or now() - start < 1:
        step()
        steps += 1
    rates = []
    begin = now()
    while len(rates) < 3 or now() - begin < flags.seconds:
        window = now()
        steps = 0
        while steps == 0 or now() - window < 0.25:
            step()
            steps += 1
        rates.append(steps * flags.batch_size / (now() - window))
    rates.sort()
    print("variant: %s" % flags.variant, file=sys.stderr)
    print("%.1f" % rates[len(rates) // 2], file=_output, flush=True)
