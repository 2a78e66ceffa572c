#!/bin/bash
# Trains the same models in 1, 2 and 4 processes of mpirun: the results have the same bits. Processes that die or hang end
# the others.
set -uo pipefail

. tests/distributed/mpi.sh

# 51 steps.
train=("$program" --epochs=17)
"${train[@]}" >"$TMPDIR/alone" || fail "one process"
[[ $(wc -l <"$TMPDIR/alone") == 4 ]] || fail "one process printed: $(cat "$TMPDIR/alone")"
check() { # processes, flags
  mpirun -np "$1" "${train[@]}" "${@:2}" >"$TMPDIR/group" || fail "processes, flags: $*"
  cmp "$TMPDIR/alone" "$TMPDIR/group" || fail "processes, flags: $*: other bits: $(cat "$TMPDIR/group")"
}
check 1
check 2
check 4
check 2 --shard_optimizer
check 4 --shard_optimizer

mpirun -np 3 "$program" >"$TMPDIR/out" 2>&1 && fail "3 processes for 4 shards"
grep -q "4 shards and 3 processes" "$TMPDIR/out" || fail "3 processes: $(cat "$TMPDIR/out")"

for fault in kill stop; do
  start=$SECONDS
  timeout -k 5 40 mpirun -np 2 "$program" --fault="$fault" --timeout=2 >"$TMPDIR/out" 2>&1 && fail "$fault: the group ended well"
  ((SECONDS - start < 30)) || fail "$fault: the others took $((SECONDS - start)) seconds to end"
  if [[ $fault == stop ]]; then
    grep -q "process 0: DEADLINE_EXCEEDED: .* for shard 2 of 4, process 1 on host" "$TMPDIR/out" ||
      fail "$fault: $(cat "$TMPDIR/out")"
  fi
done
echo "PASSED"
