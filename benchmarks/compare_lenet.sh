#!/bin/bash
# LeNet's training step here and in PyTorch, alternately, and the ratio: bazel run //benchmarks:compare_lenet [-- <rounds>]
set -euo pipefail
rounds=${1:-5}
here=benchmarks/lenet_throughput
peer=benchmarks/peers/lenet_pytorch.py
python=${PYTHON:-python3}
if ! "$python" -c 'import torch' 2>/dev/null; then
  echo "compare_lenet: PyTorch is missing; on Debian: apt-get install python3-torch (PYTHON names another interpreter)" >&2
  exit 1
fi
ours=() theirs=()
for ((i = 1; i <= rounds; ++i)); do
  ours+=("$("$here" --rounds=1)")
  theirs+=("$("$python" "$peer" --rounds=1)")
  echo "round $i: gradweave ${ours[-1]}, pytorch ${theirs[-1]} examples/sec"
done
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }
a=$(median "${ours[@]}")
b=$(median "${theirs[@]}")
echo "median: gradweave $a, pytorch $b examples/sec, ratio $(awk "BEGIN {printf \"%.2f\", $a / $b}") (batch 256, 2 threads)"
