#!/usr/bin/python3
"""Measures Gradweave and the installed peers on the same work, in turn, and writes benchmarks/RESULTS.md.

    bazel run //benchmarks:compare                   everything; about half an hour
    bazel run //benchmarks:compare -- --models=lenet --modes=train --print

peers/setup.sh installs peers. For each case the script first tries each setting (variant) of a peer once. The rounds
use the fastest one.
"""

import argparse
import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
import textwrap

PEERS = ["pytorch", "tensorflow", "jax", "mxnet", "onnxruntime"]
NAMES = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX", "mxnet": "MXNet", "onnxruntime": "ONNX Runtime"}
PACKAGES = {"pytorch": "torch", "tensorflow": "tensorflow-cpu", "jax": "jax", "mxnet": "mxnet", "onnxruntime": "onnxruntime"}
MODELS = ["lenet", "mlp", "vgg", "resnet", "transformer"]
BATCH_SIZES = {"lenet": [1, 256], "transformer": [32]}  # By model; 256 for others. Training leaves 1 out.
LENET_FLOPS = 2.264e6  # Multiplications and additions of one training example in convolutions and dense layers.
SWEEP = [1, 7, 32, 96, 256, 4096]
HAND_WRITTEN = re.compile(r"<!-- by hand -->.*<!-- end -->", re.DOTALL)


def parse_flags():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: text.split(",")
    parser.add_argument("--models", type=names, default=MODELS)
    parser.add_argument("--modes", type=names, default=["train", "infer"])
    parser.add_argument("--peers", type=names, default=PEERS)
    parser.add_argument("--peers_directory", default=os.path.expanduser("~/.cache/gradweave/peers"),
                        help="folder that peers/setup.sh installed them in")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1, help="length of each measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--print", action="store_true", help="print the tables instead of writing the file")
    return parser.parse_args()


class Runner:
    """Runs one program of the comparison at a time."""

    def __init__(self, flags):
        self.flags = flags
        # Bazel puts the script beside the binary, and names the folder of the sources in the environment.
        self.here = os.path.dirname(os.path.abspath(__file__))
        self.scripts = os.path.join(os.environ.get("BUILD_WORKSPACE_DIRECTORY", "."), "benchmarks", "peers")
        self.peers = [name for name in flags.peers if os.path.exists(self.python(name))]

    def python(self, peer):
        return os.path.join(self.flags.peers_directory, peer, "bin", "python")

    def output(self, command):
        """Returns what the command printed, or None if it failed."""
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        if done.returncode == 0:
            return done.stdout.strip()
        if done.returncode != 3:  # A peer exits with 3 if it cannot do the work.
            print("failed: %s\n%s" % (" ".join(command), done.stderr[-2000:]), file=sys.stderr)
        return None

    def common(self, case, seconds):
        model, mode, batch_size = case
        return ["--model=" + model, "--mode=" + mode, "--batch_size=%d" % batch_size, "--seconds=%g" % seconds,
                "--threads=%d" % self.flags.threads]

    def gradweave(self, case):
        done = self.output([os.path.join(self.here, "throughput")] + self.common(case, self.flags.seconds))
        if done is None:
            sys.exit(1)
        return float(done)

    def peer_script(self, peer, arguments):
        return self.output([self.python(peer), "-B", os.path.join(self.scripts, peer + "_peer.py")] + arguments)

    def peer(self, peer, case, variant, seconds=None):
        done = self.peer_script(peer, self.common(case, seconds or self.flags.seconds) + ["--variant=" + variant])
        return None if done is None else float(done)

    def best_variant(self, peer, case):
        """Returns a peer's fastest setting, or None if it has none for the case."""
        variants = self.peer_script(peer, ["--variants"])
        rates = {variant: self.peer(peer, case, variant, seconds=0.5) for variant in (variants or "").split()}
        rates = {variant: rate for variant, rate in rates.items() if rate is not None}
        return max(rates, key=rates.get) if rates else None

    def version(self, peer):
        return self.output([self.python(peer), "-c", "import importlib.metadata as m; print(m.version('%s'))" % PACKAGES[peer]])


def median_and_range(values):
    return "%s (%s to %s)" % tuple(number(f(values)) for f in (statistics.median, min, max))


def number(value):
    return "{:,.0f}".format(value) if value >= 1000 else "%.3g" % value


def measure(runner, cases):
    """Returns for each case the rates of each system ("gradweave" and peers) by round, and the peers' variants."""
    results = []
    for case in cases:
        variants = {peer: runner.best_variant(peer, case) for peer in runner.peers}
        variants = {peer: variant for peer, variant in variants.items() if variant}
        rates = {name: [] for name in ["gradweave"] + list(variants)}
        limits = {"sgemm": [], "fma": []} if case[:2] == ("lenet", "train") else {}
        for _ in range(runner.flags.rounds):
            for limit in limits:
                limits[limit].append(runner.gradweave((limit, "train", 1)))
            rates["gradweave"].append(runner.gradweave(case))
            for peer, variant in variants.items():
                rates[peer].append(runner.peer(peer, case, variant))
        results.append((case, rates, variants, limits))
        print("%s %s %d: %s" % (*case, ", ".join("%s %s" % (name, number(statistics.median(r))) for name, r in rates.items())),
              file=sys.stderr, flush=True)
    return results


def comparison_table(runner, results):
    lines = ["| model, mode, batch size | Gradweave | " + " | ".join(NAMES[peer] for peer in runner.peers) +
             " | Gradweave to the fastest peer |", "| --- " * (len(runner.peers) + 3) + "|"]
    for case, rates, variants, _ in results:
        cells = [median_and_range(rates["gradweave"])]
        cells += ["%s, %s" % (median_and_range(rates[peer]), variants[peer]) if peer in rates else "cannot"
                  for peer in runner.peers]
        peers = {peer: statistics.median(values) for peer, values in rates.items() if peer != "gradweave"}
        if peers:
            fastest = max(peers, key=peers.get)
            ratios = [a / b for a, b in zip(rates["gradweave"], rates[fastest])]
            cells.append("%.2f (%.2f to %.2f), %s" % (statistics.median(ratios), min(ratios), max(ratios), NAMES[fastest]))
        else:
            cells.append("")
        lines.append("| %s, %s, %d | %s |" % (*case, " | ".join(cells)))
    return lines


def limit_lines(results):
    lines = []
    for case, rates, _, limits in results:
        for limit, values in limits.items():
            shares = [rate * LENET_FLOPS / (value * 1e9) for rate, value in zip(rates["gradweave"], values)]
            lines.append("| %s | %s | %s | %.0f %% (%.0f to %.0f) |" %
                         ({"sgemm": "sgemm, 2048 x 2048 x 2048, OpenBLAS", "fma": "multiply-adds in registers"}[limit],
                          median_and_range(values), number(statistics.median(values) * 1e9 / LENET_FLOPS),
                          100 * statistics.median(shares), 100 * min(shares), 100 * max(shares)))
    if not lines:
        return []
    return ["", "## LeNet training, batch 256, compared with the limits of the machine", "",
            "Convolutions and dense layers of one training example take 2.264 MFLOP.", "",
            "| limit | GFLOP/s | examples/s at that rate | Gradweave's share |", "| --- | --- | --- | --- |"] + lines


def sweep_lines(runner):
    if "lenet" not in runner.flags.models:
        return []
    lines = ["", "## LeNet at other batch sizes, Gradweave only, examples/s", "",
             "| batch size | " + " | ".join(runner.flags.modes) + " |", "| --- " * (len(runner.flags.modes) + 1) + "|"]
    for batch_size in SWEEP:
        cells = [median_and_range([runner.gradweave(("lenet", mode, batch_size)) for _ in range(runner.flags.rounds)])
                 for mode in runner.flags.modes]
        lines.append("| %d | %s |" % (batch_size, " | ".join(cells)))
    return lines


def paragraph(text):
    return textwrap.fill(text, 100, break_on_hyphens=False)


def processor():
    with open("/proc/cpuinfo") as cpuinfo:
        match = re.search(r"model name\s*: (.*)", cpuinfo.read())
    return match.group(1) if match else platform.processor()


def main():
    flags = parse_flags()
    runner = Runner(flags)
    for peer in sorted(set(flags.peers) - set(runner.peers)):
        print("%s is not installed in %s; benchmarks/peers/setup.sh installs it" % (peer, flags.peers_directory),
              file=sys.stderr)
    cases = [(model, mode, batch_size) for model in flags.models for mode in flags.modes
             for batch_size in BATCH_SIZES.get(model, [256]) if mode == "infer" or batch_size > 1]
    results = measure(runner, cases)
    lines = ["# Measurements", "",
             paragraph("Written by `bazel run //benchmarks:compare` on %s: %s, %d threads, Linux %s. %s." %
                       (datetime.date.today(), processor(), flags.threads, platform.release(),
                        ", ".join("%s %s" % (NAMES[peer], runner.version(peer)) for peer in runner.peers) or "No peers")),
             "",
             paragraph("The table shows examples per second: the median of %d rounds, and their range. In a round the "
                       "systems run one after the other. A ratio compares rates of the same round. The setting after a "
                       "peer's rate is its fastest one. `cannot` means that the system cannot do the work." %
                       flags.rounds), ""]
    lines += comparison_table(runner, results) + limit_lines(results) + sweep_lines(runner)
    if flags.print:
        print("\n".join(lines))
        return
    path = os.path.join(os.environ.get("BUILD_WORKSPACE_DIRECTORY", "."), "benchmarks", "RESULTS.md")
    kept = None
    if os.path.exists(path):
        with open(path) as file:
            kept = HAND_WRITTEN.search(file.read())
    if kept:
        lines += ["", kept.group(0)]
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    print("wrote " + path)


main()
