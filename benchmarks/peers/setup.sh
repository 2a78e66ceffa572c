#!/bin/bash
# Installs the frameworks that //benchmarks:compare measures, each in its own virtual environment:
#   benchmarks/peers/setup.sh [peer...]        default: pytorch tensorflow jax mxnet onnxruntime openvino
# The environments go to PEERS_DIRECTORY, by default ~/.cache/gradweave/peers. Needs Python 3.11
# with its venv module. ONNX Runtime and OpenVINO run models that PyTorch exports, so they need its
# environment too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
directory=${PEERS_DIRECTORY:-$HOME/.cache/gradweave/peers}
python=${PYTHON:-/usr/bin/python3}
if [[ $# == 0 ]]; then set -- pytorch tensorflow jax mxnet onnxruntime openvino; fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  echo "$python has no venv module: apt-get install python3-venv, or name another Python 3.11 in PYTHON" >&2
  exit 1
fi
for peer in "$@"; do
  requirements=$here/requirements-$peer.txt
  if [[ ! -f $requirements ]]; then
    echo "no such peer: $peer; there are: $(cd "$here" && ls requirements-*.txt | sed 's/requirements-//; s/\.txt//' | xargs)" >&2
    exit 1
  fi
  "$python" -m venv "$directory/$peer"
  # PyTorch's package depends on a gigabyte of CUDA libraries that its CPU code never loads, so pip
  # installs only the listed dependencies.
  "$directory/$peer/bin/python" -m pip install --quiet --no-deps --requirement "$requirements"
done
