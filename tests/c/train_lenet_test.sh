#!/bin/bash
# The C program trains LeNet from a saved training graph to the bits of the C++ program, and the C
# program that predicts reads the result, and an ONNX file. Prints both rates.
set -u
examples=$PWD/examples/c train_in_cpp=$PWD/tests/c/train_in_cpp lenet_onnx=$PWD/examples/lenet.onnx
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
cd "$(mktemp -d)" || exit 1

# A data set of 600 and 10 images: a bright bar in the row of the class.
python3 - <<'PYTHON'
import gzip, os, random, struct
os.makedirs("data")
random.seed(1)
for name, count in (("train", 600), ("t10k", 10)):
    images = bytearray()
    for i in range(count):
        for y in range(28):
            bright = 200 if i % 10 * 2 + 4 <= y < i % 10 * 2 + 6 else 0
            images += bytes(min(255, bright + random.randrange(30)) for _ in range(28))
    with gzip.open(f"data/{name}-images-idx3-ubyte.gz", "wb") as f:
        f.write(struct.pack(">IIII", 0x803, count, 28, 28) + bytes(images))
    with open(f"data/{name}-labels-idx1-ubyte", "wb") as f:
        f.write(struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count)))
PYTHON

# The last batch of an epoch has 24 images.
"$train_in_cpp" data 3 64 step.gw cpp.gw > cpp.txt || fail "the C++ program"
"$examples/train_lenet" step.gw c.gw 3 64 2 data > c.txt || fail "the C program"
cat cpp.txt c.txt
cmp cpp.gw c.gw || fail "the C program has trained another model"
cmp -s step.gw c.gw && fail "the C program has trained nothing"

"$examples/predict" c.gw 3 data > predict.txt || fail "predict"
grep -qxF 'input  image: float32[batch,1,28,28]' predict.txt || fail "predict does not describe the input"
grep -qxF 'output train_step: changes variables' predict.txt || fail "predict does not describe the update"
[[ $(grep -cE '^[a-z-]+( boot)? +0\.[0-9]{9}$' predict.txt) == 10 ]] || fail "not ten probabilities: $(cat predict.txt)"

# The same program runs a model that PyTorch has exported.
"$examples/predict" "$lenet_onnx" 3 data > predict.txt || fail "predict of an ONNX file"
grep -qxF 'input  image: float32[batch,1,28,28]' predict.txt && grep -qxF 'output logits: float32[batch,10]' predict.txt ||
  fail "predict does not describe the ONNX file: $(cat predict.txt)"
[[ $(grep -cE '^[a-z-]+( boot)? +-?0\.[0-9]{9}$' predict.txt) == 10 ]] || fail "not ten logits: $(cat predict.txt)"

# expect_error <part of the message> <program> <arguments...>: expects exit code 1 and one line of
# output.
expect_error() {
  local part=$1 program=$2
  shift 2
  "$examples/$program" "$@" > out.txt 2> err.txt
  local code=$?
  [[ $code == 1 ]] || fail "$program $*: exit code $code"
  [[ $(wc -l < err.txt) == 1 ]] || fail "$program $*: $(wc -l < err.txt) lines of error"
  grep -qF -- "$part" err.txt || fail "$program $*: $(cat err.txt)"
}
expect_error 'predict: gw_model_load: none.gw: the file cannot be opened' predict none.gw 3 data
expect_error 'INDEX is outside [0, 10)' predict c.gw 10 data
expect_error 'none/t10k-images-idx3-ubyte.gz: the file cannot be opened' predict c.gw 3 none
expect_error 'none/c.gw' train_lenet step.gw none/c.gw 1 64 2 data
expect_error 'BATCH in [1, 1000000]' train_lenet step.gw c.gw 1 0 2 data

[[ $failures == 0 ]]
