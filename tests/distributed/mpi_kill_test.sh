#!/bin/bash
# Kills one of four processes at 20 moments: all end soon, none is left, and the training continues from
# its newest checkpoint in another number of processes to the same bits.
set -uo pipefail

. tests/distributed/mpi.sh

# The bits of the variables; a training that goes on has other losses to tell.
variables() { sed 's/: losses[^;]*;/:/' "$1"; }

train=("$program" --model=gan --epochs=100)
"${train[@]}" >"$TMPDIR/alone" || fail "one process"
variables "$TMPDIR/alone" >"$TMPDIR/expected"
grep -q ";" "$TMPDIR/expected" || fail "the program printed: $(cat "$TMPDIR/alone")"

killed=0
RANDOM=7
for ((i = 0; i < 20; ++i)); do
  dir="$TMPDIR/killed_$i"
  # The training has 300 steps.
  victim=$((RANDOM % 4)) step=$((1 + RANDOM % 200)) after=$((RANDOM % 8)) sharded=$((i % 2))
  flags=(--checkpoints="$dir" --shard_optimizer="$sharded")
  start=$SECONDS
  timeout -k 5 90 mpirun -np 4 "${train[@]}" "${flags[@]}" --fault=kill --fault_process=$victim \
    --fault_after_step=$step --fault_after_ms=$after >"$TMPDIR/out" 2>&1 && continue # It was through before.
  ((SECONDS - start < 60)) || fail "$i: the others took $((SECONDS - start)) seconds to end"
  ((++killed))
  # mpirun returns shortly after its processes have ended.
  for ((wait = 0; wait < 50; ++wait)); do
    pgrep -f "$dir" >/dev/null || break
    sleep 0.1
  done
  pgrep -f "$dir" >/dev/null && fail "$i: processes are left: $(pgrep -af "$dir")"
  resume=("${train[@]}" "${flags[@]}" --resume)
  if ((i % 2 == 0)); then "${resume[@]}" >"$TMPDIR/out"; else mpirun -np 2 "${resume[@]}" >"$TMPDIR/out"; fi ||
    fail "$i: process $victim was killed $after ms after step $step, and the training did not go on"
  variables "$TMPDIR/out" | cmp - "$TMPDIR/expected" ||
    fail "$i: process $victim was killed $after ms after step $step, and the bits differ: $(cat "$TMPDIR/out")"
done
((killed >= 10)) || fail "only $killed of 20 were killed in time"
echo "PASSED: $killed of 20 were killed before their end"
