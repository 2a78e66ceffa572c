#!/usr/bin/python3
"""Measures Gradweave and the installed peers on the same work, in turn, and writes benchmarks/RESULTS.md.

    bazel run //benchmarks:compare                   everything, in about an hour; longer the first time (torch.compile)
    bazel run //benchmarks:compare -- --quick        some cases, in about ten minutes; prints the tables
    bazel run //benchmarks:compare -- --models=unet,gpt --modes=infer --batch_sizes=1,8 --threads=1 --print

peers/setup.sh installs peers. For each case the script first tries each setting (variant) of a peer. The rounds use the
fastest one. OpenVINO's default counts as a separate system, because it computes in bfloat16 if the processor can.
"""

import argparse
import datetime
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import textwrap
import time

from servers import Server

# The systems by name: title, package, program in peers/, and variants, or None for all that the program has.
SYSTEMS = {
    "pytorch": ("PyTorch", "torch", "pytorch", None),
    "tensorflow": ("TensorFlow", "tensorflow-cpu", "tensorflow", None),
    "jax": ("JAX", "jax", "jax", None),
    "mxnet": ("MXNet", "mxnet", "mxnet", None),
    "onnxruntime": ("ONNX Runtime", "onnxruntime", "onnxruntime", None),
    "openvino": ("OpenVINO, float32", "openvino", "openvino", ["float32"]),
    "openvino_default": ("OpenVINO, default", "openvino", "openvino", ["default"]),
}
FLOAT32 = [name for name in SYSTEMS if name != "openvino_default"]  # Gradweave is compared with the fastest of these.

COMMON = ["lenet", "mlp", "vgg", "resnet", "transformer"]  # Models that each peer has.
# Batch sizes of training and of inference by model.
CASES = {
    "lenet": ([256], [1, 256]),
    "mlp": ([256], [256]),
    "vgg": ([256], [256]),
    "resnet": ([256], [256]),
    "transformer": ([32], [32]),
    "resnet18": ([8], [1, 8]),
    "resnet50": ([8], [1]),
    "mobilenet": ([8], [1]),
    "mobilenet64": ([32], [1, 32]),
    "unet": ([8], [1, 8]),
    "autoencoder": ([256], [256]),
    "lstm": ([32], [1, 32]),
    "gpt": ([8], [1, 8]),
    "vit": ([8], [1]),
    "embedding": ([256], [256]),
    "tabular": ([32], [1, 256]),
    "deep_mlp": ([256], [256]),
    "audio": ([32], [1, 32]),
}
QUICK = [("lenet", "train", 256), ("mlp", "infer", 256), ("resnet18", "infer", 1), ("resnet18", "train", 8),
         ("mobilenet64", "infer", 32), ("mobilenet64", "train", 32), ("unet", "infer", 1), ("unet", "train", 8),
         ("lstm", "train", 32), ("gpt", "infer", 1), ("gpt", "train", 8), ("vit", "infer", 1),
         ("embedding", "train", 256), ("tabular", "train", 32), ("audio", "infer", 1)]
QUICK_DEFAULTS = {"rounds": 3, "seconds": 0.5, "peers": ["pytorch", "onnxruntime", "openvino", "openvino_default"],
                  "skip_variants": ["compile", "compile_channels_last"], "print": True}

LENET_FLOPS = 2.264e6  # Multiplications and additions of one training example in convolutions and dense layers.
SWEEP = [1, 7, 32, 96, 256, 4096]
HAND_WRITTEN = re.compile(r"<!-- by hand -->.*<!-- end -->", re.DOTALL)
# A round has other load if other programs took more than this part of a processor, or if the host withheld it.
OTHER_LOAD = 0.1


def parse_flags():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: text.split(",")
    sizes = lambda text: [int(size) for size in text.split(",")]
    parser.add_argument("--quick", action="store_true",
                        help="some cases, without torch.compile, in few short rounds, with --print")
    parser.add_argument("--models", type=names, default=list(CASES))
    parser.add_argument("--modes", type=names, default=["train", "infer"])
    parser.add_argument("--batch_sizes", type=sizes, help="default: those of the table in the script")
    parser.add_argument("--threads", type=sizes, default=[2], help="numbers of threads; each case runs with each")
    parser.add_argument("--peers", type=names, default=list(SYSTEMS))
    parser.add_argument("--skip_variants", type=names, default=[], help="settings of peers that are not tried")
    parser.add_argument("--peers_directory", default=os.path.expanduser("~/.cache/gradweave/peers"),
                        help="folder that peers/setup.sh installed them in")
    parser.add_argument("--throughput", help="the program to measure; default: that of this build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.75, help="length of each measurement")
    parser.add_argument("--print", action="store_true", help="print the tables instead of writing the file")
    if "--quick" in sys.argv:
        parser.set_defaults(**QUICK_DEFAULTS)
    flags = parser.parse_args()
    for model in flags.models:
        if model not in CASES:
            parser.error("no model '%s'; models are %s" % (model, ", ".join(CASES)))
    for peer in flags.peers:
        if peer not in SYSTEMS:
            parser.error("no peer '%s'; peers are %s" % (peer, ", ".join(SYSTEMS)))
    return flags


def cases_of(flags):
    """Returns (model, mode, batch size, threads) for each case."""
    if flags.quick:
        cases = [case for case in QUICK if case[0] in flags.models and case[1] in flags.modes]
    else:
        cases = [(model, mode, batch_size) for model in flags.models for mode in flags.modes
                 for batch_size in flags.batch_sizes or CASES[model][mode == "infer"]]
    return [case + (threads,) for case in cases for threads in flags.threads]


class Runner:
    """Starts the programs of the comparison."""

    def __init__(self, flags):
        self.flags = flags
        # Bazel puts the script beside the binary, and names the folder of the sources in the environment.
        here = os.path.dirname(os.path.abspath(__file__))
        workspace = os.environ.get("BUILD_WORKSPACE_DIRECTORY", os.path.dirname(here))
        beside = os.path.join(here, "throughput")
        built = os.path.join(workspace, "bazel-bin", "benchmarks", "throughput")
        self.throughput = flags.throughput or (beside if os.path.exists(beside) else built)
        self.scripts = os.path.join(workspace, "benchmarks", "peers")
        self.results_file = os.path.join(workspace, "benchmarks", "RESULTS.md")
        self.peers = [name for name in flags.peers if os.path.exists(self.python(name))]
        self.variants = {}

    def python(self, peer):
        return os.path.join(self.flags.peers_directory, SYSTEMS[peer][2], "bin", "python")

    def output(self, command):
        return subprocess.run(command, stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout.strip()

    def script(self, peer):
        return [self.python(peer), "-B", os.path.join(self.scripts, SYSTEMS[peer][2] + "_peer.py")]

    def variants_of(self, peer):
        if peer not in self.variants:
            variants = SYSTEMS[peer][3] or self.output(self.script(peer) + ["--variants"]).split()
            self.variants[peer] = [variant for variant in variants if variant not in self.flags.skip_variants]
        return self.variants[peer]

    def gradweave(self, case):
        return Server([self.throughput] + arguments(case))

    def limit(self, name, threads):
        return float(self.output([self.throughput, "--model=" + name, "--threads=%d" % threads,
                                  "--seconds=%g" % self.flags.seconds]))

    def fastest(self, peer, case):
        """Returns the server with a peer's fastest setting, and the setting; None if no setting can run the case."""
        best, best_rate, best_variant = None, 0, None
        for variant in self.variants_of(peer):
            try:
                server = Server(self.script(peer) + arguments(case) + ["--variant=" + variant])
                rate, _ = server.measure(0.5)
            except (Server.Cannot, Server.Failed):
                continue
            if rate > best_rate:
                best, server, best_rate, best_variant = server, best, rate, variant
            if server is not None:
                server.close()
        return best, best_variant

    def version(self, peer):
        program = "import importlib.metadata as m; print(m.version('%s'))" % SYSTEMS[peer][1]
        return self.output([self.python(peer), "-c", program])


def arguments(case):
    return ["--model=%s" % case[0], "--mode=%s" % case[1], "--batch_size=%d" % case[2], "--threads=%d" % case[3]]


class Result:
    """The measurements of a case. The systems are "gradweave" and peers."""

    def __init__(self, case):
        self.case = case
        self.rates = {}  # The rates of each system, one for each round.
        self.details = {}  # The details of each system; throughput.cc says what they are.
        self.variants = {}  # The fastest variant of each peer.
        self.limits = {}  # Rates of sgemm and multiply-adds, in the rounds of LeNet's training.
        self.loads = []  # The result of Load.shares for each measurement.

    def fastest(self):
        peers = {peer: statistics.median(rates) for peer, rates in self.rates.items() if peer in FLOAT32}
        return max(peers, key=peers.get) if peers else None

    def ratios(self, peer):
        return [a / b for a, b in zip(self.rates["gradweave"], self.rates[peer])]

    def rounds_with_other_load(self):
        systems = len(self.rates)
        rounds = [self.loads[i:i + systems] for i in range(0, len(self.loads), systems)]
        return sum(any(max(load) > OTHER_LOAD for load in loads) for loads in rounds), len(rounds)


def measure(runner, case):
    """Measures a case on each system in turn."""
    result = Result(case)
    servers = {"gradweave": runner.gradweave(case)}
    try:
        for peer in runner.peers:
            server, variant = runner.fastest(peer, case)
            if server is not None:
                servers[peer], result.variants[peer] = server, variant
        result.rates = {system: [] for system in servers}
        if case[:2] == ("lenet", "train"):
            result.limits = {"sgemm": [], "fma": []}
        for _ in range(runner.flags.rounds):
            for limit, values in result.limits.items():
                values.append(runner.limit(limit, case[3]))
            for system, server in servers.items():
                rate, load = server.measure(runner.flags.seconds)
                result.rates[system].append(rate)
                result.loads.append(load)
        result.details = {system: server.details for system, server in servers.items()}
    finally:
        for server in servers.values():
            server.close()
    return result


def number(value):
    return "{:,.0f}".format(value) if value >= 1000 else "%.3g" % value


def median_and_range(values):
    return "%s (%s to %s)" % tuple(number(f(values)) for f in (statistics.median, min, max))


def title(case):
    threads = "" if case[3] == 2 else ", one thread" if case[3] == 1 else ", %d threads" % case[3]
    return "%s, %s, %d" % case[:3] + threads


def table(head, rows):
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return [line(head), "| --- " * len(head) + "|"] + [line(row) for row in rows]


def ratio_text(result, peer, name=""):
    ratios = result.ratios(peer)
    return "%.2f (%.2f to %.2f)" % (statistics.median(ratios), min(ratios), max(ratios)) + name


def rate_table(peers, results):
    """Returns a table with the rates of the systems and the ratios between Gradweave and peers."""
    rows = []
    for result in results:
        row = [title(result.case), median_and_range(result.rates["gradweave"])]
        row += ["%s, %s" % (median_and_range(result.rates[peer]), result.variants[peer]) if peer in result.rates
                else "cannot" for peer in peers]
        fastest = result.fastest()
        row.append(ratio_text(result, fastest, ", " + SYSTEMS[fastest][0]) if fastest else "")
        if "openvino_default" in peers:
            row.append(ratio_text(result, "openvino_default") if "openvino_default" in result.rates else "")
        rows.append(row + ["%d of %d" % result.rounds_with_other_load()])
    head = ["model, mode, batch size", "Gradweave"] + [SYSTEMS[peer][0] for peer in peers]
    head.append("Gradweave to the fastest peer in float32")
    if "openvino_default" in peers:
        head.append("Gradweave to OpenVINO's default")
    return table(head + ["rounds with other load"], rows)


def detail_table(results):
    """Returns a table with the times of a step and of the first step, and memory."""
    rows = []
    for result in results:
        own, fastest = result.details["gradweave"], result.fastest()
        row = [title(result.case)] + [number(own[key] * 1e3) for key in ("step_seconds", "first_step_seconds")]
        row += [number(own[key] / 1e6) for key in ("planned_peak_bytes", "resident_peak_bytes")]
        if fastest:
            peer = result.details[fastest]
            row += [number(peer[key] * 1e3) for key in ("step_seconds", "first_step_seconds")]
            row.append(number(peer["resident_peak_bytes"] / 1e6))
            row.append("%s, %s" % (SYSTEMS[fastest][0], result.variants[fastest]))
        rows.append(row + [""] * (9 - len(row)))
    head = ["model, mode, batch size", "step, ms", "first step, ms", "planned peak, MB", "resident peak, MB",
            "peer's step, ms", "peer's first step, ms", "peer's resident peak, MB", "fastest peer in float32"]
    return table(head, rows)


def noise_lines(results):
    """Lines about the load by other programs and by the host."""
    loads = [load for result in results for load in result.loads]
    counts = [result.rounds_with_other_load() for result in results]
    noisy, rounds = sum(count for count, _ in counts), sum(total for _, total in counts)
    if not rounds:
        return []
    return ["", paragraph("Other load: in %d of %d rounds (%.0f %%) other programs, or the host of the virtual "
                          "machine, took more than %.0f %% of a processor during a measurement. On average other programs took "
                          "%.1f %% of a processor and the host %.1f %%, by /proc/stat. The maxima are %.0f %% and "
                          "%.0f %%." %
                          (noisy, rounds, 100 * noisy / rounds, 100 * OTHER_LOAD,
                           *(100 * statistics.mean(load[i] for load in loads) for i in (0, 1)),
                           *(100 * max(load[i] for load in loads) for i in (0, 1))))]


def limit_lines(results):
    rows = []
    for result in results:
        for limit, values in result.limits.items():
            shares = [rate * LENET_FLOPS / (value * 1e9) for rate, value in zip(result.rates["gradweave"], values)]
            name = {"sgemm": "sgemm, 2048 x 2048 x 2048, OpenBLAS", "fma": "multiply-adds in registers"}[limit]
            rows.append([name, median_and_range(values), number(statistics.median(values) * 1e9 / LENET_FLOPS),
                         "%.0f %% (%.0f to %.0f)" % tuple(100 * f(shares) for f in (statistics.median, min, max))])
    if not rows:
        return []
    return ["", "## LeNet training, batch 256, compared with the limits of the machine", "",
            "Convolutions and dense layers of one training example take 2.264 MFLOP.", ""] + table(
                ["limit", "GFLOP/s", "examples/s at that rate", "Gradweave's share"], rows)


def sweep_lines(runner):
    flags = runner.flags
    if "lenet" not in flags.models or flags.quick or flags.batch_sizes:
        return []
    rows = []
    for batch_size in SWEEP:
        row = ["%d" % batch_size]
        for mode in flags.modes:
            server = runner.gradweave(("lenet", mode, batch_size, flags.threads[0]))
            row.append(median_and_range([server.measure(flags.seconds)[0] for _ in range(flags.rounds)]))
            server.close()
        rows.append(row)
    head = ["", "## LeNet at other batch sizes, Gradweave only, examples/s", ""]
    return head + table(["batch size"] + flags.modes, rows)


def paragraph(text):
    return textwrap.fill(text, 100, break_on_hyphens=False)


def processor():
    with open("/proc/cpuinfo") as cpuinfo:
        match = re.search(r"model name\s*: (.*)", cpuinfo.read())
    return match.group(1) if match else platform.processor()


def results_page(runner, results):
    flags = runner.flags
    versions = {SYSTEMS[peer][0].split(",")[0]: runner.version(peer) for peer in runner.peers}
    lines = ["# Measurements", "",
             paragraph("Written by `bazel run //benchmarks:compare` on %s: %s, %s threads, Linux %s. %s." %
                       (datetime.date.today(), processor(), " and ".join(map(str, flags.threads)), platform.release(),
                        ", ".join("%s %s" % item for item in versions.items()) or "No peers")), "",
             paragraph("The tables show examples per second: the median of %d rounds, and their range. In a round the "
                       "systems run one after the other, and all but one are stopped. A ratio compares rates of the "
                       "same round. A peer's fastest setting stands after its rate. `cannot` means that the system "
                       "cannot do the work." % flags.rounds)]
    common = [result for result in results if result.case[0] in COMMON]
    others = [result for result in results if result.case[0] not in COMMON]
    if common:
        lines += [""] + rate_table(runner.peers, common)
    if others:
        columns = [peer for peer in runner.peers if peer not in ("tensorflow", "jax", "mxnet")]
        lines += ["", "## Other models", "",
                  paragraph("`benchmarks/models.h` describes the models. Peers without these models in "
                            "`benchmarks/peers/` are left out. ONNX Runtime and OpenVINO run the models that PyTorch "
                            "exports."),
                  ""] + rate_table(columns, others)
    lines += noise_lines(results)
    lines += ["", "## Latency and memory", "",
              paragraph("The time of the first step goes from the built model to its first result. It has planning, or "
                        "compilation, and one step in it. The planned peak is Gradweave's memory for values and scratch "
                        "in a step. The resident peak is that of the whole process, with the libraries that it "
                        "loads."), ""] + detail_table(results)
    return lines + limit_lines(results) + sweep_lines(runner)


def main():
    flags = parse_flags()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Ends the stopped programs too.
    runner = Runner(flags)
    for peer in sorted(set(flags.peers) - set(runner.peers)):
        print("%s is not installed in %s; benchmarks/peers/setup.sh installs it" % (peer, flags.peers_directory),
              file=sys.stderr)
    begin = time.monotonic()
    results = []
    for case in cases_of(flags):
        try:
            results.append(measure(runner, case))
        except Server.Failed:
            sys.exit(1)
        rates = ", ".join("%s %s" % (name, number(statistics.median(r))) for name, r in results[-1].rates.items())
        print("%4.0f s  %s: %s" % (time.monotonic() - begin, title(case), rates), file=sys.stderr, flush=True)
    lines = results_page(runner, results)
    if flags.print:
        print("\n".join(lines))
        return
    kept = None
    if os.path.exists(runner.results_file):
        with open(runner.results_file) as file:
            kept = HAND_WRITTEN.search(file.read())
    if kept:
        lines += ["", kept.group(0)]
    with open(runner.results_file, "w") as file:
        file.write("\n".join(lines) + "\n")
    print("wrote " + runner.results_file)


main()
