# shellcheck shell=bash disable=SC2034,SC2154
# The rows and targets of tools/gpu_check, their tables, and time limits of programs. gpu_check
# sources this file after it has read its flags, and defines list_targets, which adds the targets.

rows=() failed=0
row() { # what, result, detail
  rows+=("$1"$'\t'"$2"$'\t'"${3:-}")
  echo "$1: $2 ${3:-}"
  # A machine that is taken away leaves the rows that exist.
  [[ -z $logs ]] || echo "${rows[-1]}" >>"$logs/rows"
  [[ $2 != FAILED && $2 != MISSING ]] || failed=1
}

# Lists of numbers. awk functions receive each as one text with spaces.
calculate() { # awk expression, texts a and b
  awk -v a="${2:-}" -v b="${3:-}" '
    function sort_numbers(v, n,   i, j, t) {
      for (i = 2; i <= n; ++i) for (j = i; j > 1 && v[j - 1] > v[j]; --j) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    }
    function median(v, n) { sort_numbers(v, n); return (v[int((n + 1) / 2)] + v[int(n / 2) + 1]) / 2 }
    function least(v, n) { sort_numbers(v, n); return v[1] }
    function most(v, n) { sort_numbers(v, n); return v[n] }
    BEGIN {
      n = split(a, x); m = split(b, y)
      for (i = 1; i <= n; ++i) { x[i] += 0; if (i <= m) ratio[i] = x[i] / y[i] }
      '"$1"'
    }'
}
median() { calculate 'if (n > 0) printf "%.6g", median(x, n)' "$1"; }
# The median of the ratios over the rounds that both systems completed.
median_ratio() { calculate 'if (n < m) m = n; if (m > 0) printf "%.6g", median(ratio, m)' "$1" "$2"; }

# The runtime reports on stderr that it fell back to a slower way. A rate with such a notice is not
# the rate that a target means.
declare -A notices=()
read_notices() { # what ran, file with its errors
  local text
  text=$(sed -n 's/^gradweave: //p' "$2" 2>/dev/null | head -1)
  if [[ -n $text && -z ${notices[$1]:-} ]]; then
    notices[$1]=$text
    row "notice of $1" FAILED "$text"
  fi
}

targets=() unmeasured="not asked for"  # Default reason why a target was not measured.
# what, the number that was measured or nothing, "at least" or "at most", number, unit, what else to
# say, what ran
target() {
  local verdict="not measured, ${6:-$unmeasured}" notice=${notices[${7:-none}]:-}
  if [[ -n $2 && -n $notice ]]; then
    targets+=("$1"$'\t'"$2 $5"$'\t'"$3 $4 $5"$'\t'"failed, $notice")
    return
  fi
  if [[ -n $2 ]]; then
    verdict=missed
    if awk -v a="$2" -v b="$4" -v how="$3" 'BEGIN { exit how == "at least" ? a < b : a > b }'; then verdict=holds; fi
    verdict+=${6:+, $6}
  fi
  targets+=("$1"$'\t'"${2:+$2 $5}"$'\t'"$3 $4 $5"$'\t'"$verdict")
}

print_table() { # widths, rows of columns that tabs separate
  local format=$1 line cells
  shift
  echo
  for line in "$@"; do
    # `read` merges adjacent tabs, so tabs become a separator that it keeps apart.
    IFS=$'\x1f' read -r -a cells <<<"${line//$'\t'/$'\x1f'}"
    # shellcheck disable=SC2059
    printf "$format\n" "${cells[@]}" | sed 's/ *$//'
  done
}

print_tables() {
  list_targets
  print_table '%-50s %-12s %s' $'check\tresult\tdetail' "${rows[@]}"
  print_table '%-54s %-28s %-32s %s' $'target\tmeasured\twanted\tverdict' "${targets[@]}"
}
finish() {
  trap - TERM INT
  if [[ -n $logs ]]; then print_tables | tee "$logs/tables"; else print_tables; fi
  exit "$failed"
}

# Runs a program with a time limit in seconds, or until the deadline. Returns 124 if it took longer.
deadline=$((SECONDS + minutes * 60)) foreground=1
limited() { # seconds, program, arguments
  local limit=$1 left=$((deadline - SECONDS))
  shift
  ((left >= limit)) || limit=$left
  ((limit > 0)) || return 124
  # In the foreground, whoever ends this script with its group of processes ends the program, too.
  timeout ${foreground:+--foreground} -k 5 "$limit" "$@"
}

no_time="no time was left"
# Explains why a program failed.
why_not() { # exit code, seconds that it had, file with its errors
  local last
  last=$(grep -v '^ *$' "$3" 2>/dev/null | tail -1)
  if [[ $1 != 124 ]]; then echo "${last:-exit code $1}"
  elif ((SECONDS >= deadline)); then echo "$no_time"
  else echo "took longer than $2 s"; fi
}
