#!/bin/bash
# The program scaling prints a row for each number of processes, alone and in a group, and its prediction for this group
# is near the measurement.
set -uo pipefail
scaling=benchmarks/scaling
fail() {
  echo "FAILED: $*" >&2
  exit 1
}
flags=(--model=mlp --batch_size=32 --seconds=0.3)

out=$("$scaling" "${flags[@]}") || fail "alone"
for row in 1 2 64 1024; do grep -q "^$row  *[0-9.]* ms" <<<"$out" || fail "no row for $row processes: $out"; done

# A network of 1 Gbit/s takes 2*(1023/1024)*235,146*4 bytes*8 bits/1e9 = 15 ms for the gradients of 1,024 processes.
out=$("$scaling" "${flags[@]}" --gigabits_per_second=1 --latency_us=1 --overhead_us=0) || fail "flags"
serial=$(awk '$1 == 1024 {print $2}' <<<"$out")
alone=$(awk '$1 == 1 {print $2}' <<<"$out")
awk -v serial="$serial" -v alone="$alone" 'BEGIN {exit !(serial - alone > 14.8 && serial - alone < 15.3)}' ||
  fail "1,024 processes: $out"
refuses() { # text, flags
  out=$("$scaling" "${@:2}" 2>&1) && fail "went well: ${*:2}"
  grep -q -- "$1" <<<"$out" || fail "${*:2}: $out"
}
refuses "there is no model 'none'" --model=none
refuses "--overhead_us has to be at least 0" --overhead_us=-1
refuses "--batch_size has to be at least 1" --batch_size=0

if ! command -v mpirun >/dev/null; then
  echo "SKIPPED: there is no MPI"
  exit 0
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_btl=self,vader OMPI_MCA_plm_rsh_agent=false OMPI_MCA_btl_vader_single_copy_mechanism=none
export TMPDIR=$(mktemp --directory --tmpdir=/tmp)
trap 'rm -rf "$TMPDIR"' EXIT
out=$(mpirun -np 2 "$scaling" "${flags[@]}" 2>&1) || grep -q "this build has no MPI" <<<"$out" ||
  fail "two processes: $out"
if grep -q "this build has no MPI" <<<"$out"; then
  echo "SKIPPED: the build has no MPI"
else
  # All gradients go to the other process, and little else.
  read -r sent bound < <(sed -n 's/.*sends \([0-9]*\) bytes .* ring is \([0-9]*\)$/\1 \2/p' <<<"$out")
  ((sent >= bound && sent < bound * 105 / 100)) || fail "$sent bytes, and the bound is $bound: $out"
  grep -q "^predicted for this group: .* measured" <<<"$out" || fail "no comparison: $out"
fi
echo "PASSED"
