#!/bin/bash
# Checks how tools/gpu_check interprets the output of programs. Fake programs print the answers of a
# test.
set -u
script=$PWD/tools/gpu_check
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
folder=$(mktemp -d)
cd "$folder" || exit 1
mkdir check commands fashion-mnist
cp "$script" "${script}_results.sh" check/

# A fake program looks up its name and flags in the file `answers`: pattern|exit code|output. If the
# output is a list of numbers, each call prints the next one, and fails if it is a minus sign. The
# exit code `hang` prints the output and does not end; `notice` prints a notice on stderr, too.
cat > fake <<'PROGRAM'
#!/bin/bash
call="$(basename "$0") $*"
number=0
while IFS='|' read -r pattern code output; do
  number=$((number + 1))
  # shellcheck disable=SC2053
  [[ $call == $pattern ]] || continue
  echo "$call" >> calls
  if [[ $output =~ ^[0-9.\ -]+$ ]]; then
    read -r -a words <<< "$output"
    times=$(cat "times.$number" 2> /dev/null || echo 0)
    echo $((times + 1)) > "times.$number"
    output=${words[times % ${#words[@]}]}
    [[ $output != - ]] || code=1
  fi
  if [[ $code == hang ]]; then printf '%b\n' "$output"; exec sleep 60; fi
  if [[ $code == notice ]]; then echo 'gradweave: the capture failed' >&2; code=0; fi
  if [[ $code == 0 || $call == gpu_test* ]]; then printf '%b\n' "$output"; else printf '%b\n' "$output" >&2; fi
  if [[ $call =~ --gtest_output=xml:([^ ]*) ]]; then cp tests.xml "${BASH_REMATCH[1]}"; fi
  exit "$code"
done < answers
echo "no answer to: $call" >&2
exit 1
PROGRAM
chmod +x fake
for name in throughput gpu_test lenet; do ln -s ../fake "check/$name"; done
for name in python3 compute-sanitizer nvidia-smi; do ln -s ../fake "commands/$name"; done
echo '<property name="largest_relative_difference" value="3.1e-06"/>' > tests.xml

# All checks pass. The rate is 1.6 times that of PyTorch's best variant (in the median of three
# rounds) and 5.2 times that of eager.
well='throughput*--seconds=0 *|0|1000
throughput*--mode=train --model=lenet*|0|2600000
throughput*--mode=infer --model=lenet --batch_size=256*|0|7000000
throughput*--mode=infer --model=lenet --batch_size=1 *|0|50000
throughput*--precision=bf16*|0|900000
throughput*|0|500000
python3 -c import glob*|0|
python3 -c import torch*|0|2.15.0
python3*--variant=eager*--mode=train --model=lenet*|0|500000
python3*--variant=eager*|0|100000
python3*--variant=graph*--mode=train --model=lenet*|0|1600000 1300000 2600000 1625000
python3*--variant=graph*|0|400000
python3*--variant=compile*|1|Traceback\nRuntimeError: no C++ compiler
gpu_test*|0|[ RUN      ] A.a\n[       OK ] A.a (3 ms)\n[ RUN      ] A.b/1\n[       OK ] A.b/1 (0 ms)\n[  PASSED  ] 2 tests.
lenet*--epochs=1 *|0|first steps done after 0.812 s, an epoch with its data takes 60.5 ms\nloss 0.5, train acc 0.8, test acc 0.8\n1000000.0 examples/sec on cuda(0)
lenet*|0|first steps done after 0.412 s, an epoch with its data takes 31.5 ms\nloss 0.3, train acc 0.8, test acc 0.8\n1000000.0 examples/sec on cuda(0)
nvidia-smi*|0|NVIDIA H200, 570.1
compute-sanitizer*|0|'

# check <exit code> <answers> <flags...>: runs the script. The answers precede those in `well`.
check() {
  local want=$1
  { [[ -z $2 ]] || echo "$2"; echo "$well"; } > answers
  shift 2
  rm -rf times.* calls logs
  case_name="$*"
  PATH=$folder/commands:$PATH check/gpu_check --logs="$folder/logs" "$@" > out.txt 2> err.txt
  local code=$?
  [[ $code == "$want" ]] || fail "$case_name: exit code $code, not $want: $(tail -n 5 out.txt err.txt)"
}
# expect <beginning> <parts...>: expects that the last line with this beginning contains all parts.
expect() {
  local line part
  line=$(tac out.txt | awk -v part="$1" 'index($0, part) == 1 { print; exit }')
  [[ -n $line ]] || { fail "$case_name: no line '$1'"; return; }
  shift
  for part in "$@"; do [[ $line == *"$part"* ]] || fail "$case_name: no '$part' in: $line"; done
}
verdicts() { sed -n '/^target /,$p' out.txt | grep -cE "  $1(,|$)"; }

check 0 '' --only=tests,epoch,targets
expect 'LeNet training, batch 256 ' '2.600 million examples/s' 'at least 2 million examples/s' holds
expect 'LeNet training, batch 256: the aim' missed
# The ratios of the rounds are 2, 1 and 1.6. The first answer belongs to the trial.
expect "LeNet training, batch 256, to PyTorch's best" '1.600 times PyTorch' 'at least 1.5' 'holds, beside graph, which beats eager'
expect 'LeNet training, batch 256, to PyTorch eager' '5.200 times PyTorch' holds
expect 'LeNet inference, batch 256' '7.000 million' 'at least 6' holds
expect 'LeNet inference, batch 1 ' '20.0 us' 'at most 30 us' holds
for case in vgg resnet; do
  expect "train $case, batch 256, to PyTorch's best" '1.250 times' holds
  expect "infer $case, batch 256, to PyTorch's best" '1.250 times' holds
done
expect "infer transformer, batch 32, to PyTorch's best" '1.250 times' holds
expect 'an epoch of Fashion-MNIST' '31.5 ms' 'at most 40 ms' holds
expect 'start to first steps, cache of kernels empty' '0.812 s' 'at most 1 s' holds
expect 'start to first steps, cache of kernels filled' '0.412 s' holds
expect 'GPU and CPU: difference of 50 losses' '3.1e-06' 'at most 1e-4' holds
expect 'train vgg, batch 256, PyTorch compile' 'not run' 'RuntimeError: no C++ compiler'
expect 'tests ' passed '2 passed, 0 skipped, 0 failed'
for case in 'lenet, batch 256' 'mlp, batch 256' 'vgg, batch 256' 'resnet, batch 256' 'transformer, batch 32'; do
  expect "plan of train $case" kept 'plan.train_'
  expect "plan of infer $case" kept 'plan.infer_'
done
expect 'plan of infer lenet, batch 1 ' kept 'plan.infer_lenet_1_ieee'
grep -q '^device cuda:0' logs/rows || fail 'the rows are not kept'
cmp -s <(tail -n 3 out.txt) <(tail -n 3 logs/tables) || fail 'the tables are not kept'
expect 'device cuda:0' found H200
[[ $(verdicts holds) == 15 && $(verdicts missed) == 1 ]] || fail "verdicts: $(cat out.txt)"
# Gradweave alternates with the fastest variant, and with eager if it has a target.
rounds=$(grep -- '--seconds=1' calls | grep -e '--mode=train --model=lenet' | grep -oE '^throughput|variant=[a-z]*' | tr '\n' ' ')
[[ $(grep -o throughput <<< "$rounds" | wc -l) == 3 && $rounds == throughput*variant*variant*throughput* ]] || fail "rounds: $rounds"
grep -e '--seconds=1' calls | grep -e '--model=vgg' | grep -q eager && fail 'eager has rounds of vgg'

# Without PyTorch, only the targets without a comparison are measured.
check 0 'python3*|1|ModuleNotFoundError: torch' --only=targets
expect 'LeNet training, batch 256 ' holds
expect "LeNet training, batch 256, to PyTorch's best" 'not measured, python3 has no PyTorch for CUDA'
expect 'an epoch of Fashion-MNIST' 'not measured, not asked for'
expect 'PyTorch ' 'not found'

# Missed targets are reported but are not failures.
check 0 'throughput*--mode=infer --model=resnet*|0|300000
throughput*--batch_size=1 *|0|20000
lenet*--epochs=1 *|0|first steps done after 1.500 s, an epoch with its data takes 60.5 ms\nloss 0.5, train acc 0.8' --only=targets,epoch
expect "infer resnet, batch 256, to PyTorch's best" '0.750 times' missed
expect "train resnet, batch 256, to PyTorch's best" holds
expect 'LeNet inference, batch 1 ' '50.0 us' missed
expect 'start to first steps, cache of kernels empty' '1.5 s' missed

# Failing programs are failures, and their targets are not measured.
check 1 'throughput*--model=vgg*|1|a broken kernel\nmore
lenet*|1|lenet: the data set is broken
gpu_test*|1|gpu_test: error while loading shared libraries' --only=tests,targets,epoch
expect 'train vgg, batch 256, gradweave' FAILED 'more'
expect "train vgg, batch 256, to PyTorch's best" 'not measured, more'
expect "train resnet, batch 256, to PyTorch's best" holds
expect 'LeNet on Fashion-MNIST' FAILED 'on the CPU: lenet: the data set is broken'
expect 'an epoch of Fashion-MNIST' 'not measured, on the CPU: lenet: the data set is broken'
expect 'tests ' FAILED '0 passed' 'error while loading shared libraries'
# If a round fails after a successful one, the report shows both.
check 1 'throughput*--mode=train --model=resnet*|0|500000 -' --only=targets --models=resnet
expect 'train resnet, batch 256, gradweave' FAILED
expect "train resnet, batch 256, to PyTorch's best" '1.250 times'
# A program that skips all its tests does not pass.
check 1 'gpu_test*|0|tests/test_device.cc:19: Skipped\n[  PASSED  ] 0 tests.' --only=tests
expect 'tests ' FAILED '0 passed'

# After a failure, which may leave an error that sticks to the process, the tests that are left run
# in a new process. The failed one is named, and runs once more alone.
first='[ RUN      ] A.a\n[       OK ] A.a (3 ms)\n[ RUN      ] A.b/1\n'
broken='[  FAILED  ] A.b/1, where GetParam() = 3 (9 ms)\n[ RUN      ] A.c\n[  SKIPPED ] A.c (0 ms)'
left='[ RUN      ] A.c\n[       OK ] A.c (1 ms)\n[  PASSED  ] 1 test.'
check 1 "gpu_test*--gtest_filter=\*-|1|$first$broken
gpu_test*--gtest_filter=A.b/1|1|[ RUN      ] A.b/1\n[  FAILED  ] A.b/1, where GetParam() = 3 (9 ms)
gpu_test*--gtest_filter=\*-A.a:A.b/1|0|$left" --only=tests
expect 'test A.b/1' FAILED 'an expectation failed'
expect 'tests ' FAILED '2 passed, 0 skipped, 1 failed'
grep -q 'alone it passes' out.txt && fail 'a test that fails alone is said to pass'
# An abort, and a test that fails only in company.
check 1 "gpu_test*--gtest_filter=\*-|134|${first}terminate called
gpu_test*--gtest_filter=A.b/1|0|[ RUN      ] A.b/1\n[       OK ] A.b/1 (9 ms)
gpu_test*--gtest_filter=\*-A.a:A.b/1|0|$left" --only=tests
expect 'test A.b/1' FAILED 'the program ended: terminate called; alone it passes'
expect 'tests ' FAILED '2 passed, 0 skipped, 1 failed'
# A test that hangs.
check 1 "gpu_test*--gtest_filter=\*-|hang|$first
gpu_test*--gtest_filter=\*-A.a:A.b/1|0|$left" --only=tests --test_seconds=1
expect 'test A.b/1' FAILED 'it took longer than 1 s'
expect 'tests ' FAILED '2 passed, 0 skipped, 1 failed'

# Programs that only inform may hang, and so may a model. The rest runs.
limits='s/query_limit=20/query_limit=1/; s/ rate_limit=60/ rate_limit=2/'
sed -i "$limits" check/gpu_check
grep -q 'query_limit=1 .* rate_limit=2 ' check/gpu_check || fail 'the time limits are not those of gpu_check'
start=$SECONDS
check 1 'nvidia-smi*|hang|
python3 -c import glob*|hang|
python3 -c import torch*|hang|
throughput*--model=vgg*|hang|' --only=targets --models=vgg
expect 'device cuda:0' found
expect 'PyTorch ' 'not found'
expect 'train vgg, batch 256, gradweave' FAILED 'took longer than 2 s'
expect 'LeNet training, batch 256 ' '2.600 million' holds
((SECONDS - start < 50)) || fail 'a program that hangs has no time limit'  # Each would take 60 s.
cp "$script" check/

# A model that fails on the device is one failure. The rest runs.
check 1 'throughput*--model=mlp --seconds=0*|1|mlp: an illegal memory access' --only=targets
expect 'the first run of mlp' FAILED 'an illegal memory access'
expect 'device cuda:0' found
expect 'LeNet training, batch 256 ' holds

# The loss is the CPU's. It is no number, it is another, or it does not fall.
check 1 'lenet --device=cuda*|0|first steps done after 0.5 s, an epoch with its data takes 31.5 ms\nloss nan, train acc 0.1' --only=epoch
expect 'LeNet on Fashion-MNIST' FAILED "after 1 epochs the loss is nan, expected the CPU's 0.5"
expect 'an epoch of Fashion-MNIST' 'not measured, after 1 epochs the loss is nan'
check 1 'lenet --device=cuda*|0|first steps done after 0.5 s, an epoch with its data takes 31.5 ms\nloss 0.6, train acc 0.1' --only=epoch
expect 'LeNet on Fashion-MNIST' FAILED "after 1 epochs the loss is 0.6, expected the CPU's 0.5"
check 1 'lenet --device=cuda*--epochs=20 *|0|first steps done after 0.5 s, an epoch with its data takes 31.5 ms\nloss inf, train acc 0.1' --only=epoch
expect 'LeNet on Fashion-MNIST' FAILED 'after 20 epochs the loss is inf, expected less than 0.5'

# A notice says that the runtime fell back to a slower way. It is a failure, and its targets fail.
check 1 'throughput*--mode=train --model=vgg*|notice|500000' --only=targets
expect 'notice of train vgg 256 ieee' FAILED 'the capture failed'
expect "train vgg, batch 256, to PyTorch's best" 'failed, the capture failed'
expect "train resnet, batch 256, to PyTorch's best" holds
times='first steps done after 0.412 s, an epoch with its data takes 31.5 ms'
check 1 "lenet --device=cuda*--epochs=20 *|notice|$times\nloss 0.3, train acc 0.8" --only=epoch
expect 'notice of lenet' FAILED 'the capture failed'
expect 'an epoch of Fashion-MNIST' '31.5 ms' 'failed, the capture failed'

# TF32 and bfloat16 are compared with IEEE, which is measured only once. Generated kernels run both
# ways.
check 0 'throughput*--generated_kernels=always*|1|NVRTC is not found' --only=targets,precision,generated --models=vgg
expect 'train vgg, batch 256, gradweave' 500000.0
expect 'train vgg, batch 256, bf16, gradweave' 900000.0
expect 'infer vgg, batch 256, tf32, PyTorch graph' 400000.0
expect 'train vgg, batch 256, generated kernels: always' 'not run' 'NVRTC is not found'
expect "train resnet, batch 256, to PyTorch's best" 'not measured, not asked for'
expect 'train vgg, batch 256, bf16, gradweave' '1.80 times ieee'
[[ $(grep -c 'throughput.*--mode=train --model=vgg .*--precision=ieee --seconds=1$' calls) == 3 ]] || fail "ieee is measured again"

# compute-sanitizer runs the models and a part of the tests.
check 1 'compute-sanitizer --tool racecheck*--model=mlp*|9|========= Error: Race reported' --only=sanitizer --models=lenet,mlp
expect 'memcheck, lenet' passed
expect 'racecheck, mlp' FAILED
expect 'memcheck, a part of gpu_test' passed
grep -q 'compute-sanitizer --tool memcheck.*--gtest_filter=.*Conv2D' calls || fail "no tests under compute-sanitizer"

# A machine that refuses the sanitizers.
check 0 'compute-sanitizer*|1|========= Error: Device not supported. Please refer to the documentation' --only=sanitizer --models=lenet,mlp
expect 'memcheck, lenet' 'not available' 'Device not supported'
grep -q 'FAILED' out.txt && fail 'a refused sanitizer is a failure'

# Another program ends the script early. The script prints the tables of its results so far.
check_early() {
  { echo 'throughput*--mode=train --model=lenet*|hang|'; echo "$well"; } > answers
  rm -rf times.* calls logs
  case_name='an early end'
  PATH=$folder/commands:$PATH timeout 3 check/gpu_check --logs="$folder/logs" --only=targets > out.txt 2> err.txt
  expect 'LeNet inference, batch 256' '7.000 million' holds
  grep -q '^device cuda:0' logs/rows || fail 'the rows are not kept'
}
check_early

# A machine without a GPU.
check 1 'throughput*|1|--device: cuda(0) is not available: no driver'
expect 'device cuda:0' MISSING 'no driver'
expect 'LeNet training, batch 256 ' 'not measured, there is no device'

# Flags.
check 1 '' --only=everything
grep -q "'everything' is not a part; the parts are tests, epoch" err.txt || fail "$(cat err.txt)"
check 1 '' --rounds=0
grep -q 'rounds=0: expected a whole number from 1' err.txt || fail "$(cat err.txt)"
check 1 '' --bogus
grep -q "'--bogus' is not a flag" err.txt || fail "$(cat err.txt)"

rm -rf "$folder"
[[ $failures == 0 ]]
