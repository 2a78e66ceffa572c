#!/bin/bash
# Checks that the registers of generated convolutions leave room on a multiprocessor for as many
# blocks as the search for their tilings expected. Arguments: the list of expected blocks by
# print_conv_kernels, and one file with ptxas' report on each kernel behind a line "kernel NAME".
set -u

# A multiprocessor has 65,536 registers. A warp takes them in units of 256.
awk '
  NR == FNR { threads[$1] = $2; expected[$1] = $3; next }
  $1 == "kernel" { name = $2 }
  match($0, /Used [0-9]+ registers/) {
    registers = substr($0, RSTART + 5) + 0
    warps = threads[name] / 32
    blocks = int(65536 / (int((registers * 32 + 255) / 256) * 256 * warps))
    printf "%s: %d registers in %d threads, so %d blocks; %d were expected\n", name, registers, threads[name], blocks, expected[name]
    if (blocks < expected[name]) failures++
    count++
  }
  END {
    if (count < 10) { printf "FAILED: the report has %d kernels only\n", count; exit 1 }
    if (failures) printf "FAILED: %d kernels have more registers than their tilings allow\n", failures
    exit failures > 0
  }' "$1" "$2"
