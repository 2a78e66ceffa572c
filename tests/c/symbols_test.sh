#!/bin/bash
# The shared library shows the functions of the C interface and nothing else, each with a version,
# and has a soname.
set -u
library=frontend/c/libgradweave.so header=frontend/c/gradweave.h
version=$(cat VERSION)
if [[ $version == 0.* ]]; then stable=${version%.*}; else stable=${version%%.*}; fi
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

declared=$(grep -vE '^ *//' "$header" | grep -oE '\bgw_[a-z_]+\(' | tr -d '(' | sort -u)
# A version has a symbol of its own, of kind A.
shown=$(nm --dynamic --defined-only "$library" | awk '$2 != "A" {print $3}' | sort)
[[ $(wc -w <<< "$declared") -gt 25 ]] || fail "the header declares only: $declared"
difference=$(diff <(while read -r name; do echo "$name@@GRADWEAVE_$stable"; done <<< "$declared") - <<< "$shown")
[[ -z $difference ]] || fail "declared (<) and shown (>) functions differ: $difference"
readelf --dynamic --wide "$library" | grep -qF "soname: [libgradweave.so.$stable]" || fail "the soname is another"
[[ $failures == 0 ]]
