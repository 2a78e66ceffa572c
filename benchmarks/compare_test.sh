#!/bin/bash
# The comparison without peers: each case that was asked for has a row in both tables, with positive
# numbers, and wrong names are errors.
set -euo pipefail
compare=$(cd "$(dirname "$0")" && pwd)/compare.py
run() { python3 -B "$compare" --throughput="${compare%/*}/throughput" --peers_directory="$TEST_TMPDIR" --print "$@" 2>"$TEST_TMPDIR/log"; }

run --models=tabular,embedding --modes=infer --batch_sizes=1,3 --threads=1 --rounds=2 --seconds=0.01 >"$TEST_TMPDIR/page"
for row in "tabular, infer, 1" "tabular, infer, 3" "embedding, infer, 1" "embedding, infer, 3"; do
  # In the first table: median and range, no peer, and the rounds. In the second: times and peaks.
  grep -Eq "^\| $row, one thread \| [1-9][0-9,]* \([0-9,]+ to [0-9,]+\) \|  \|( [^|]*\|)? [012] of 2 \|$" "$TEST_TMPDIR/page" ||
    { echo "no rates of $row"; cat "$TEST_TMPDIR/page"; exit 1; }
  grep -Eq "^\| $row, one thread( \| [0-9.]*[1-9][0-9.e-]*){4} \|( +\|){4}$" "$TEST_TMPDIR/page" ||
    { echo "no latency and memory of $row"; cat "$TEST_TMPDIR/page"; exit 1; }
done
grep -q "^Other load: in [0-8] of 8 rounds" <(tr '\n' ' ' <"$TEST_TMPDIR/page" | sed 's/Other load/\n&/') ||
  { echo "no line about other load"; cat "$TEST_TMPDIR/page"; exit 1; }

if run --models=lenet,lenett; then echo "an unknown model is no error"; exit 1; fi
grep -q "no model 'lenett'" "$TEST_TMPDIR/log"
if run --peers=torch; then echo "an unknown peer is no error"; exit 1; fi
grep -q "no peer 'torch'" "$TEST_TMPDIR/log"
