#!/bin/bash
# Runs the programs of examples/ on a few hundred images, as a user would, and checks their error
# messages.
set -u
programs=$PWD/examples
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
cd "$(mktemp -d)" || exit 1

# Writes a data set: $1 folder, $2 training images, $3 test images.
make_data() {
  python3 - "$@" <<'PYTHON'
import gzip, os, random, struct, sys
folder, train, test = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.makedirs(folder, exist_ok=True)
random.seed(1)
for name, count in (("train", train), ("t10k", test)):
    labels = bytes(i % 10 for i in range(count))
    images = bytearray()
    for label in labels:  # A bright bar in the row of the class.
        for y in range(28):
            bright = 200 if label * 2 + 4 <= y < label * 2 + 6 else 0
            images += bytes(min(255, bright + random.randrange(30)) for _ in range(28))
    with gzip.open(f"{folder}/{name}-images-idx3-ubyte.gz", "wb") as f:
        f.write(struct.pack(">IIII", 0x803, count, 28, 28) + bytes(images))
    with open(f"{folder}/{name}-labels-idx1-ubyte", "wb") as f:
        f.write(struct.pack(">II", 0x801, count) + labels)
PYTHON
}
make_data data 600 100
for i in {1..120}; do echo "Line $i is one of many lines."; done > text.txt

# --help lists every flag that a program has, and nothing of the libraries.
for name in lenet mlp softmax_regression; do
  "$programs/$name" --help > help.txt 2>&1
  for flag in epochs batch_size lr seed threads device precision data_dir save limit_train plot_dir; do
    grep -q -- "--$flag " help.txt || fail "$name --help does not list --$flag: $(head -5 help.txt)"
  done
done
for name in lenet mlp softmax_regression autoencoder finetune gan gpt quantize regression text; do
  "$programs/$name" --help > help.txt 2>&1
  for flag in checkpoint_dir checkpoint_every checkpoint_keep resume check_numerics tensorboard report; do
    grep -q -- "--$flag " help.txt || fail "$name --help does not list --$flag: $(head -5 help.txt)"
  done
done
for flag in text layers heads width context sample; do
  "$programs/gpt" --help 2>&1 | grep -q -- "--$flag " || fail "gpt --help does not list --$flag"
done
"$programs/lenet" --help 2>&1 | grep -q -- '--book ' || fail "lenet --help does not list --book"
for name in autoencoder finetune gan gpt quantize regression sprint text; do
  "$programs/$name" --help > help.txt 2>&1
  for flag in epochs batch_size lr seed threads device precision plot_dir; do
    grep -q -- "--$flag " help.txt || fail "$name --help does not list --$flag: $(head -5 help.txt)"
  done
done
"$programs/finetune" --help > help.txt 2>&1
for flag in model save new_head head_only data_dir limit_train; do
  grep -q -- "--$flag " help.txt || fail "finetune --help does not list --$flag: $(head -5 help.txt)"
done
"$programs/predict" --help > help.txt 2>&1
for flag in model index image data_dir; do
  grep -q -- "--$flag " help.txt || fail "predict --help does not list --$flag: $(head -5 help.txt)"
done

for name in lenet mlp softmax_regression; do
  "$programs/$name" --data_dir=data --epochs=2 --batch_size=64 --limit_train=500 --threads=2 --seed=3 \
    --tensorboard="${name}_events" --report="$name.html" > out.txt 2> err.txt || fail "$name: $(cat err.txt)"
  grep -qE '^loss [0-9.]+, train acc [01]\.[0-9]{3}, test acc [01]\.[0-9]{3}$' out.txt || fail "$name: no line with the loss"
  tail -n 3 out.txt | head -n 1 | grep -qE '^first steps done after [0-9.]+ s, an epoch with its data takes [0-9.]+ ms$' || fail "$name: no line with times"
  tail -n 1 out.txt | grep -qE '^[0-9.]+ examples/sec on cpu\(0\)$' || fail "$name: no line with the rate"
  [[ $(grep -c '^epoch ' out.txt) == 2 ]] || fail "$name: not a line for each epoch"
  grep -q $'\r' out.txt && fail "$name: redraws though this is no terminal"
  head -c 8 "${name}_samples.png" | grep -q PNG || fail "$name: no picture of samples"
  grep -q '<polyline' "${name}_training.svg" || fail "$name: no curves"
  compgen -G "${name}_events/events.out.tfevents.*" > none.txt || fail "$name: no events"
  grep -q '<h2>Confusion matrix</h2>' "$name.html" || fail "$name: no report"
done
grep -qE '^conv2d_1 +\[64,6,28,28\] +156 +15,052,800$' <("$programs/lenet" --data_dir=data --epochs=1 --batch_size=64 --limit_train=64) || fail "lenet: the table of layers"

# The mlp learns the easy data set; it does not just run.
"$programs/mlp" --data_dir=data --epochs=8 --batch_size=20 --seed=1 > out.txt 2> err.txt
grep -qE 'test acc (0\.9|1\.0)' out.txt || fail "mlp does not learn: $(tail -n 2 out.txt)"

# A training that is asked to end saves, and goes on to the same model.
train=("$programs/mlp" --data_dir=data --epochs=150 --batch_size=20 --threads=2 --seed=4)
"${train[@]}" --save=straight.gw > straight.txt 2> err.txt || fail "mlp: $(cat err.txt)"
"${train[@]}" --checkpoint_dir=checkpoints --checkpoint_every=7steps > out.txt 2> err.txt &
pid=$!
until compgen -G 'checkpoints/checkpoint_*.gw' > none.txt || ! kill -0 $pid 2> none.txt; do sleep 0.01; done
kill -TERM $pid
wait $pid
code=$?
[[ $code == 143 ]] || fail "mlp ends with $code after SIGTERM: $(cat err.txt)"
grep -qE '^mlp: SIGTERM ended the training after step [0-9]+; checkpoints/checkpoint_[0-9]+.gw has its state; --resume continues from there$' err.txt || fail "mlp: $(cat err.txt)"
"${train[@]}" --checkpoint_dir=checkpoints --resume --save=resumed.gw > out.txt 2> err.txt || fail "mlp --resume: $(cat err.txt)"
grep -qE '^gradweave: the training continues from checkpoints/checkpoint_[0-9]+.gw$' err.txt || fail "mlp --resume: $(cat err.txt)"
cmp straight.gw resumed.gw || fail "the training that went on has another model"
[[ $(grep '^loss ' out.txt) == "$(grep '^loss ' straight.txt)" ]] || fail "the training that went on has other results"
"$programs/predict" --model=checkpoints/best.gw --data_dir=data --index=3 > out.txt 2>&1 || fail "best.gw is no model: $(cat out.txt)"
# Four shards give the same model in one process and in two, also if the training goes on in another number of them.
train=("$programs/lenet" --data_dir=data --epochs=3 --batch_size=64 --threads=1 --seed=3 --limit_train=300
       --distributed --shards=4)
"${train[@]}" --save=one.gw > one.txt 2> err.txt || fail "lenet --distributed: $(cat err.txt)"
if ! command -v mpirun > none.txt || ! ldd "$programs/lenet" | grep -q libmpi; then
  echo "SKIPPED: several processes; install libopenmpi-dev and openmpi-bin, and build again"
else
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
  export OMPI_MCA_plm_rsh_agent=false OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none
  run_two() { TMPDIR=/tmp mpirun -np 2 "${train[@]}" "$@" > out.txt 2> err.txt || fail "mpirun lenet $*: $(cat err.txt)"; }
  run_two --save=two.gw --tensorboard=two_events --report=two.html
  [[ $(compgen -G 'two_events/*' | wc -l) == 1 && -s two.html ]] || fail "not one process watches: $(ls two_events)"
  cmp one.gw two.gw || fail "two processes make another model than one"
  [[ $(grep '^loss ' out.txt) == "$(grep '^loss ' one.txt)" ]] || fail "two processes: $(cat out.txt)"
  [[ $(grep -c 'validation:' out.txt) == 3 ]] || fail "not one process prints: $(cat out.txt)"
  run_two --save=half.gw --checkpoint_dir=shared --epochs=2
  "${train[@]}" --checkpoint_dir=shared --resume --save=resumed.gw > out.txt 2> err.txt || fail "lenet: $(cat err.txt)"
  cmp one.gw resumed.gw || fail "one process goes on to another model after two"
fi
# Each of two models has a folder.
for resume in false true; do
  "$programs/regression" --epochs=3 --checkpoint_dir=two --resume=$resume > "out_$resume.txt" 2> err.txt || fail "regression: $(cat err.txt)"
done
[[ $(ls two) == $'linear_model\nnet' ]] || fail "regression: $(ls two)"
cmp out_false.txt out_true.txt || fail "regression has other results when it only reads them"

# expect_shown <program> <pattern of the output> <flags...>: expects this output and curves.
expect_shown() {
  local program=$1 pattern=$2
  shift 2
  "$programs/$program" --threads=2 "$@" > out.txt 2> err.txt || fail "$program: $(cat err.txt)"
  grep -qE -- "$pattern" out.txt || fail "$program does not print $pattern: $(tail -n 5 out.txt)"
  grep -q '<polyline' "${program}_training.svg" || fail "$program: no curves"
}
expect_shown regression '^net: test rmse [0-9.]+, mae [0-9.]+, r2 0\.[5-9][0-9]*$' --epochs=20 --report=regression.html --tensorboard=regression_events
expect_shown text '^transformer writes: ' --epochs=1 --text=text.txt --report=text.html
# The text repeats itself, so a small model writes its words.
expect_shown gpt '^writes: .*many' --epochs=12 --text=text.txt --layers=1 --heads=2 --width=32 --context=24 --sample=100 --seed=1 --report=gpt.html
expect_shown autoencoder '^epoch 2/2 ' --data_dir=data --epochs=2 --limit_train=256 --report=autoencoder.html --tensorboard=autoencoder_events
head -c 8 autoencoder_images.png | grep -q PNG || fail "autoencoder: no pictures"
expect_shown gan '^epoch 2/2 .*loss [0-9.]+ .*generator loss [0-9.]+' --data_dir=data --epochs=2 --limit_train=256 --report=gan.html --tensorboard=gan_events
head -c 8 gan_samples.png | grep -q PNG || fail "gan: no pictures"
# The model that it exports is one that it imports: training goes on where it was, or with a new head alone.
run_finetune() { "$programs/finetune" --data_dir=data --threads=2 --seed=1 "$@" > out.txt 2> err.txt || fail "finetune $*: $(cat err.txt)"; }
run_finetune --epochs=20 --batch_size=64 --report=finetune.html
grep -qE '^epoch 20/20 .*validation.*accuracy (0\.9|1)' out.txt || fail "finetune does not learn: $(tail -n 2 out.txt)"
run_finetune --epochs=1 --batch_size=64 --model=finetune.onnx --save=second.onnx
grep -qE '^epoch 1/1 .*validation.*accuracy (0\.9|1)' out.txt || fail "finetune begins anew: $(tail -n 2 out.txt)"
run_finetune --epochs=1 --lr=1e-7 --batch_size=64 --model=finetune.onnx --new_head --head_only
grep -qE '^epoch 1/1 .*validation.*accuracy 0\.[0-6]' out.txt || fail "the head is not new: $(tail -n 2 out.txt)"
# A net of integers is about as right as its net of floats, and predict runs it.
run_quantize() { "$programs/quantize" --data_dir=data --threads=2 --seed=1 "$@" > out.txt 2> err.txt || fail "quantize $*: $(cat err.txt)"; }
accuracy() { sed -nE "s/^$1 +accuracy ([0-9.]+),.*/\1/p" out.txt; }
run_quantize --epochs=10 --batch_size=64 --samples=100 --report=quantize.html
[[ $(grep -c ' int8$' out.txt) == 4 ]] || fail "quantize: not all layers: $(cat out.txt)"
[[ $(accuracy float32) > 0.9 && $(accuracy int8) > 0.88 ]] || fail "quantize: $(cat out.txt)"
run_quantize --epochs=2 --batch_size=64 --fine_tune --model=lenet.gw --save=fine.gw
[[ $(grep -c ' int8$' out.txt) == 5 ]] || fail "quantize: not all layers of LeNet: $(cat out.txt)"
"$programs/predict" --data_dir=data --model=fine.gw --index=1 > out.txt 2>&1 || fail "predict of integers: $(cat out.txt)"
for page in regression_linear_model regression_net text_LSTM text_transformer gpt autoencoder finetune gan quantize; do
  grep -q 'planned peak' $page.html || fail "$page.html has no plan: $(grep 'not measured' $page.html)"
done
for folder in regression_events/linear_model regression_events/net autoencoder_events gan_events; do
  compgen -G "$folder/events.out.tfevents.*" > none.txt || fail "no events in $folder"
done
# The bars are easy to tell apart, for the averaged weights too, and the seeds give different runs.
expect_shown sprint '^median: [0-9.]+ s, test accuracy (0\.9[0-9]*|1\.0*); 2 of 2 runs reached 0\.8$' --data_dir=data --epochs=40 --batch_size=32 --width=4 --runs=2 --seed=5 --target=0.8
[[ $(grep -cE '^seed [56]: [0-9.]+ s, test accuracy [01]\.[0-9]+$' out.txt) == 2 ]] || fail "sprint: $(cat out.txt)"

# Another process makes the same predictions from the file, twice.
"$programs/predict" --model=mlp.gw --data_dir=data --index=7 > first.txt 2> err.txt || fail "predict: $(cat err.txt)"
"$programs/predict" --model=mlp.gw --data_dir=data --index=7 > second.txt
cmp -s first.txt second.txt || fail "predict gives different numbers"
grep -qE 'sneaker +0\.[5-9]' first.txt || fail "predict: class 7 is not found"
[[ $(grep -cE '0\.[0-9]{9}$|1\.0{9}$' first.txt) == 10 ]] || fail "predict: not ten probabilities"
"$programs/predict" --model=lenet.gw --image=lenet_samples.png | grep -q 'lenet_samples.png, resized from [0-9]* x [0-9]*' || fail "predict: an image of another size"

# expect_error <part of the message> <program> <flags...>: expects exit code 1 and one line of
# output.
expect_error() {
  local part=$1 program=$2
  shift 2
  "$programs/$program" "$@" > out.txt 2> err.txt
  local code=$?
  [[ $code == 1 ]] || fail "$program $*: exit code $code"
  [[ $(wc -l < err.txt) == 1 ]] || fail "$program $*: $(wc -l < err.txt) lines of error"
  grep -qF -- "$part" err.txt || fail "$program $*: $(cat err.txt)"
}
expect_error 'there is no folder none' lenet --data_dir=none
for copy in truncated magic label missing count; do cp -r data "$copy"; done
head -c 3000 data/train-images-idx3-ubyte.gz > truncated/train-images-idx3-ubyte.gz
expect_error 'truncated' lenet --data_dir=truncated
echo 'no idx file' > magic/train-labels-idx1-ubyte
expect_error 'magic number' lenet --data_dir=magic
printf '\x0b' | dd of=label/train-labels-idx1-ubyte bs=1 seek=20 conv=notrunc 2> /dev/null
expect_error 'label 11 at position 12 is outside [0, 10)' lenet --data_dir=label
rm missing/t10k-labels-idx1-ubyte
expect_error 'there is no file missing/t10k-labels-idx1-ubyte' lenet --data_dir=missing
cp data/t10k-labels-idx1-ubyte count/train-labels-idx1-ubyte
expect_error 'a label for each image' lenet --data_dir=count
expect_error '[1, 1000000]' lenet --epochs=0
expect_error '[1, 1000000]' lenet --batch_size=0
expect_error '(0, 1000]' lenet --lr=-1
expect_error '[1, 1024]' lenet --threads=-1
expect_error '[1, 2^62]' lenet --limit_train=-1
expect_error '--shards needs --distributed' lenet --shards=2
expect_error '--shard_optimizer needs --distributed' lenet --shard_optimizer
expect_error '[1, 10000]' lenet --distributed --shards=-1
expect_error '--collective_timeout needs --distributed' mlp --collective_timeout=5
expect_error '--book repeats a step' lenet --book --distributed
expect_error '[1, 784]' autoencoder --code=0
expect_error '[1, 1000000]' gan --epochs=0
expect_error 'there is no folder none' gan --data_dir=none
expect_error '--head_only needs --new_head' finetune --head_only
expect_error 'none.onnx' finetune --model=none.onnx
expect_error '[1, 256]' sprint --width=0
expect_error '[0, 1]' sprint --target=90
expect_error '[1, 1000]' sprint --runs=0
expect_error 'none.csv' regression --data=none.csv
expect_error '"mass"' regression --target=mass
expect_error 'none.txt' text --text=none.txt
expect_error 'none.txt' gpt --text=none.txt
expect_error '[1, 100]' gpt --layers=0
expect_error 'heads is 3 and has to divide the 128 features' gpt --text=text.txt --heads=3
head -c 300 text.txt > short.txt
expect_error 'at least 65 are needed' text --text=short.txt
# No machine has this device, not even one with GPUs.
expect_error 'is not available' lenet --device=cuda:999
expect_error 'is not a device' lenet --device=gpu
expect_error "'fp16' is not a precision of products" lenet --precision=fp16
expect_error 'no folder none' lenet --plot_dir=none
expect_error 'no folder none/' lenet --save=none/lenet.gw
expect_error 'seed' lenet --seed=-1
expect_error 'nonsense' lenet --nonsense
expect_error "--checkpoint_every: '5mins' is not an interval of checkpoints" mlp --checkpoint_dir=new --checkpoint_every=5mins
expect_error '--checkpoint_every needs --checkpoint_dir' mlp --checkpoint_every=5min
expect_error '--resume needs --checkpoint_dir' text --resume
expect_error '--checkpoint_keep=-1 is outside its range, [1, 1000000], or 0 for 3' mlp --checkpoint_dir=new --checkpoint_keep=-1
expect_error 'checkpoints has checkpoints of an earlier training' mlp --data_dir=data --checkpoint_dir=checkpoints
expect_error 'batch_size was 20 and is 21 now' mlp --data_dir=data --batch_size=21 --seed=4 --checkpoint_dir=checkpoints --resume
head -c 1000 lenet.gw > short.gw
expect_error 'short.gw: the file is damaged or truncated' predict --model=short.gw
expect_error 'none.gw: the file cannot be opened' predict --model=none.gw
expect_error '[0, 100)' predict --model=lenet.gw --data_dir=data --index=100
expect_error 'this is not a readable PNG file' predict --model=lenet.gw --image=lenet.gw
head -c 300 lenet_samples.png > short.png
expect_error 'damaged or truncated' predict --model=lenet.gw --image=short.png

[[ $failures == 0 ]]
