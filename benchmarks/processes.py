#!/usr/bin/python3
"""Measures training in two processes of one thread each beside one process of two threads, in turn.

    bazel run //benchmarks:processes
    bazel run //benchmarks:processes -- --models=lenet,vgg --batch_size=256 --rounds=7 --torch_python=<venv>/bin/python

It prints the medians of the rates in examples per second, and their ratios. With --torch_python, PyTorch's
DistributedDataParallel over gloo runs in turn with them, in as many processes.
"""

import argparse
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
# For processes that share one machine; as root, as in CI, Open MPI wants to be told twice.
ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               "OMPI_MCA_rmaps_base_oversubscribe": "1"}


def rate_of(command):
    """The last line of the command's output, a number."""
    done = subprocess.run(command, env=dict(os.environ, **ENVIRONMENT), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit("%s\n%s%s" % (" ".join(command), done.stdout, done.stderr))
    return float(done.stdout.split()[-1])


def commands_of(model, flags):
    """The systems' names and commands."""
    common = ["--model=" + model, "--seconds=%g" % flags.seconds]
    whole = "--batch_size=%d" % flags.batch_size
    part = "--batch_size=%d" % (flags.batch_size // flags.processes)
    one, several = "one process", "%d processes" % flags.processes
    commands = {
        one: [os.path.join(HERE, "throughput"), *common, whole, "--threads=%d" % flags.processes],
        several: ["mpirun", "-np", str(flags.processes), "--bind-to", "core", os.path.join(HERE, "scaling"), *common,
                  part, "--threads=1", "--rate_only"],
    }
    if flags.torch_python:
        commands["PyTorch DDP"] = [flags.torch_python, "-m", "torch.distributed.run", "--standalone",
                                   "--nproc_per_node=%d" % flags.processes,
                                   os.path.join(HERE, "peers", "pytorch_ddp_peer.py"), *common, part, "--threads=1"]
    return commands


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="lenet,vgg")
    parser.add_argument("--batch_size", type=int, default=256, help="examples per step of all processes together")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="duration of one measurement")
    parser.add_argument("--torch_python", help="a Python that has PyTorch")
    flags = parser.parse_args()
    if flags.processes < 1 or flags.rounds < 1 or flags.batch_size < flags.processes:
        parser.error("processes and rounds have to be at least 1, and batch_size at least processes")
    for model in flags.models.split(","):
        commands = commands_of(model, flags)
        rates = {name: [] for name in commands}
        for _ in range(flags.rounds):
            for name, command in commands.items():
                rates[name].append(rate_of(command))
        medians = {name: statistics.median(values) for name, values in rates.items()}
        first = next(iter(medians.values()))
        for name, median in medians.items():
            print("%-12s %-14s %10.1f examples/s, %5.2f of one process; from %.1f to %.1f" %
                  (model, name, median, median / first, min(rates[name]), max(rates[name])), flush=True)


main()
