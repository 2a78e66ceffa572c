"""The common part of the peers: flags, data and timing.

A peer is a program `<framework>_peer.py` with the flags of //benchmarks:throughput. It does the same work and prints
the same: the examples per second, or with --details or --serve JSON objects with latency and memory too. A script
parses its flags before it imports its framework, because most frameworks read the number of threads from the
environment when they are loaded.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
import typing


class Model(typing.NamedTuple):
    sizes: list  # The sizes of one example; images are [channels, height, width].
    parameters: int  # The number of trainable parameters.
    optimizer: str  # sgd, momentum (0.9), adam or adamw.
    rate: float  # Learning rate.
    # The loss: "classes" (cross entropy of each row of the output), "squares" (the mean of the output's squares), "mask"
    # (sigmoid cross entropy of each element) or "input" (mean squared error from the input).
    loss: str = "classes"
    classes: int = 10
    vocabulary: int = 0  # The input is int32 in [0, vocabulary), or float32 if this is 0.


# benchmarks/models.h describes them.
MODELS = {
    "lenet": Model([1, 28, 28], 61706, "sgd", 0.9),
    "mlp": Model([784], 235146, "sgd", 0.1),
    "vgg": Model([3, 32, 32], 82330, "sgd", 0.05),
    "resnet": Model([3, 32, 32], 78042, "sgd", 0.1),
    "transformer": Model([64, 128], 198272, "sgd", 0.01, "squares"),
    "resnet18": Model([3, 224, 224], 11689512, "momentum", 0.01, classes=1000),
    "resnet50": Model([3, 224, 224], 25557032, "momentum", 0.01, classes=1000),
    "mobilenet": Model([3, 224, 224], 3504872, "momentum", 0.01, classes=1000),
    "mobilenet64": Model([3, 64, 64], 2236682, "momentum", 0.01),
    "unet": Model([1, 64, 64], 482449, "adam", 0.001, "mask"),
    "autoencoder": Model([1, 28, 28], 108881, "adam", 0.001, "input"),
    "lstm": Model([32, 64], 100106, "adam", 0.001),
    "gpt": Model([128], 875520, "adamw", 0.001, classes=256, vocabulary=256),
    "vit": Model([3, 224, 224], 5717416, "adamw", 0.001, classes=1000),
    "embedding": Model([32], 3204810, "adam", 0.001, vocabulary=50000),
    "tabular": Model([32], 13130, "adam", 0.001),
    "deep_mlp": Model([512], 16815114, "sgd", 0.01),
    "audio": Model([1, 16000], 26915, "adam", 0.001, classes=35),
}

# Models that each peer has.
COMMON_MODELS = ["lenet", "mlp", "vgg", "resnet", "transformer"]

CLASSES = 10  # Classes of the common models.
HEADS = 4  # Attention heads of the transformer.
NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.1  # The weight of a batch in the running statistics.

_output = sys.stdout


def parse_flags(description, variants, cuda=False, models=None):
    """Parses the flags and sets the environment variables for the number of threads. Afterwards only measure() writes to
    stdout.

    variants: the values that --variant accepts. Without the flag, flags.variant is None.
    cuda: True if the peer supports CUDA devices, with the flags --device and --precision.
    models: those that the peer has; all if not given.
    """
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--model", choices=list(MODELS), default="lenet")
    parser.add_argument("--mode", choices=["train", "infer"], default="train")
    parser.add_argument("--batch_size", type=int, default=256, help="examples per step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2, help="duration of the measurement")
    parser.add_argument("--details", action="store_true", help="print a JSON object with latency and memory too")
    parser.add_argument("--serve", action="store_true",
                        help="measure once for each line of stdin, a number of seconds, and print as with --details")
    parser.add_argument("--variant", choices=variants, help="setting of the framework; default: the fastest for the model")
    parser.add_argument("--variants", action="store_true", help="print the names of the settings and exit")
    if cuda:
        parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<index>")
        parser.add_argument("--precision", choices=["ieee", "tf32", "bf16"], default="ieee",
                            help="precision to which matrix products on a CUDA device may round their operands")
        parser.add_argument("--export", metavar="FILE", help="write the model in evaluation mode as FILE in the format "
                            "of ONNX, and its output for random_data() in FILE.npz, and exit")
    flags = parser.parse_args()
    if flags.variants:
        print(" ".join(variants))
        sys.exit()
    if models is not None and flags.model not in models:
        unsupported("the peer has only the models " + " ".join(models))
    for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PJRT_NPROC"]:
        os.environ[name] = str(flags.threads)
    global _output
    _output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return flags


def random_data(flags, channels_last=False):
    """Returns inputs and targets. They are the same in every run.

    Inputs are float32 in [0, 1), or int32 ids. Labels are int32 classes: one for each example, or for "gpt" for each
    token; or for the loss "mask" float32 zeros and ones, one for each number of the input.
    """
    import numpy as np
    random = np.random.RandomState(1)
    model = MODELS[flags.model]
    sizes = model.sizes
    if channels_last and len(sizes) == 3:
        sizes = sizes[1:] + sizes[:1]
    sizes = [flags.batch_size] + sizes
    if model.vocabulary:
        inputs = random.randint(model.vocabulary, size=sizes).astype(np.int32)
    else:
        inputs = random.random_sample(sizes).astype(np.float32)
    if model.loss == "mask":
        return inputs, random.randint(2, size=sizes).astype(np.float32)
    label_sizes = sizes if flags.model == "gpt" else flags.batch_size
    return inputs, random.randint(model.classes, size=label_sizes).astype(np.int32)


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


def exported_model(flags):
    """Returns the path of the model in the format of ONNX, its output in PyTorch for random_data(), and its number of
    trainable parameters.

    PyTorch's environment, which lies beside that of the peer, writes them, and they stay there until the model changes.
    """
    import numpy as np
    here = os.path.dirname(os.path.abspath(__file__))
    directory = os.path.dirname(sys.prefix)
    digest = hashlib.sha256()
    for name in ("peer.py", "torch_models.py"):
        with open(os.path.join(here, name), "rb") as source:
            digest.update(source.read())
    path = os.path.join(directory, "models", "%s-%d-%s.onnx" % (flags.model, flags.batch_size, digest.hexdigest()[:12]))
    facts = path + ".npz"
    if not os.path.exists(facts):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        subprocess.run([os.path.join(directory, "pytorch", "bin", "python"), "-B", os.path.join(here, "pytorch_peer.py"),
                        "--model=" + flags.model, "--batch_size=%d" % flags.batch_size, "--export=" + path], check=True)
    with np.load(facts) as arrays:
        return path, arrays["output"], int(arrays["parameters"])


def check_output(output, expected, tolerance):
    """Ends the program if the largest error is above tolerance times the largest expected number."""
    import numpy as np
    error = float(np.max(np.abs(output - expected)) / np.max(np.abs(expected)))
    print("largest error: %.2g of the largest number of PyTorch's output" % error, file=sys.stderr)
    if not output.shape == expected.shape or not error <= tolerance:
        sys.exit("the output differs from PyTorch's by %g of its largest number; at most %g is right" % (error, tolerance))


def resident_peak():
    """Returns the largest number of bytes that the process has had in memory so far."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def measure(step, flags, parameters, start=None, check=None):
    """Calls step() repeatedly and prints the examples per second: the median over windows of 0.25 s.

    parameters: the number of trainable parameters, which must be equal for all peers. The variant goes to stderr.
    start: the time by time.perf_counter() when the compilation of the built model began; now, if not given.
    check: a function that is called with the result of the first step.
    """
    expected = MODELS[flags.model].parameters
    if parameters != expected:
        sys.exit("%s has %d parameters, not %d" % (flags.model, parameters, expected))
    now = time.perf_counter
    start = now() if start is None else start
    result = step()
    first_step = now() - start
    if check is not None:
        check(result)
    print("variant: %s" % flags.variant, file=sys.stderr)
    warm_up = now()
    steps = 1
    while steps < 3 or now() - warm_up < 1:
        step()
        steps += 1

    def median_rate(seconds):
        rates = []
        begin = now()
        while len(rates) < 3 or now() - begin < seconds:
            window = now()
            steps = 0
            while steps == 0 or now() - window < 0.25:
                step()
                steps += 1
            rates.append(steps * flags.batch_size / (now() - window))
        rates.sort()
        return rates[len(rates) // 2]

    for line in sys.stdin if flags.serve else [flags.seconds]:
        rate = median_rate(float(line))
        if flags.details or flags.serve:
            print(json.dumps({"examples_per_second": rate, "step_seconds": flags.batch_size / rate,
                              "first_step_seconds": first_step, "resident_peak_bytes": resident_peak(),
                              "parameters": parameters}), file=_output, flush=True)
        else:
            print("%.1f" % rate, file=_output, flush=True)
