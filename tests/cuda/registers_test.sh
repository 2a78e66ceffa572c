#!/bin/bash
# Checks what ptxas reports of each kernel. An array that an index selects at run time, or more values
# than registers, lies in a stack frame in local memory, which is slow. Arguments: reports of ptxas.
set -u

# Kernels that may have a stack frame: parts of their mangled names, the most bytes of the frame, and
# the reason.
allowed=(
  "FilterGradParts 48"               # The oldest GPUs spill a few values of two instantiations.
  "UnaryElementsIddNS_8formulas3 48" # Sin, Cos and Tan of large float64 arguments keep digits of 2/pi in an array.
  "FusedElements 640"                # The interpreter of chains selects its values by index.
)

kernels=$(awk '
  /Compiling entry function/ { split($0, part, "\047"); name = part[2] }
  /bytes stack frame/ { print $1, name }' "$@")
count=$(grep -c . <<<"$kernels")
echo "$count kernels"
# All op families together have hundreds of kernels. Fewer means that the reports were not read.
if ((count < 300)); then
  echo "FAILED: the reports tell of $count kernels only"
  exit 1
fi
failures=0
while read -r bytes name; do
  ((bytes > 0)) || continue
  for row in "${allowed[@]}"; do
    [[ $name != *"${row% *}"* ]] || ((bytes > ${row#* })) || continue 2
  done
  echo "FAILED: $name has a stack frame of $bytes bytes; index its arrays by constants (GRADWEAVE_UNROLL)"
  failures=$((failures + 1))
done <<<"$kernels"
exit "$((failures > 0))"
