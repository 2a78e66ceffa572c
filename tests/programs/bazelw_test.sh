#!/bin/bash
# Checks when bazelw installs packages and when it asks. Fake programs take the places of Bazel, apt,
# dpkg and sudo, and write down how they are called.
set -u
bazelw=$PWD/bazelw install=$PWD/tools/install
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
mkdir tools fakes
cp "$bazelw" bazelw
# The test may run as root, who needs no sudo.
# shellcheck disable=SC2016
sed 's/\$EUID/1000/g' "$install" > tools/install
chmod +x bazelw tools/install

for program in bazel apt-get sudo; do
  # shellcheck disable=SC2016
  printf '#!/bin/bash\necho "%s $*" >> "%s/calls"\n' "$program" "$folder" > "fakes/$program"
done
# No package is installed.
printf '#!/bin/bash\nexit 1\n' > fakes/dpkg-query
chmod +x fakes/*
export PATH=$folder/fakes:$PATH

# The calls of the fake programs that begin with a word.
calls() { grep -c "^$1 " calls 2> /dev/null || true; }

# Runs bazelw without a terminal.
run() { rm -f calls; ./bazelw "$@" > output 2>&1 < /dev/null; }
# Runs bazelw in a terminal, where the first argument is typed.
run_in_terminal() {
  local typed=$1
  shift
  rm -f calls
  python3 - "$typed" ./bazelw "$@" > output 2>&1 << 'PROGRAM'
import os, pty, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[2], sys.argv[2:])
os.write(terminal, sys.argv[1].encode() + b"\n")
while True:
    try:
        text = os.read(terminal, 1024)
    except OSError:
        break
    if not text:
        break
    sys.stdout.write(text.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
PROGRAM
}

for arguments in "" version help info --version "help build" "--output_base=/x info" "--yes version"; do
  # shellcheck disable=SC2086
  run $arguments || fail "bazelw $arguments: $(cat output)"
  [[ $(calls sudo) == 0 ]] || fail "bazelw $arguments installs packages"
  expected="bazel ${arguments#--yes }"
  [[ $(cat calls) == "$expected" ]] || fail "bazelw $arguments calls: $(cat calls)"
done

for arguments in "build //..." "--output_base=/x test //..." "run version"; do
  # shellcheck disable=SC2086
  run $arguments || fail "bazelw $arguments: $(cat output)"
  [[ $(calls sudo) == 2 ]] || fail "without a terminal, bazelw $arguments installs nothing"
  [[ $(tail -1 calls) == "bazel $arguments" ]] || fail "bazelw $arguments calls: $(cat calls)"
done

run_in_terminal y build //... || fail "y: $(cat output)"
grep -q 'with sudo? \[y/N\]' output || fail "bazelw does not ask: $(cat output)"
[[ $(calls sudo) == 2 && $(calls bazel) == 1 ]] || fail "y: $(cat calls)"
for answer in n "" other; do
  run_in_terminal "$answer" build //... && fail "'$answer' is no failure"
  grep -q 'nothing was installed; --yes installs without this question' output || fail "'$answer': $(cat output)"
  [[ ! -e calls ]] || fail "'$answer': $(cat calls)"
done
run_in_terminal n --yes build //... || fail "--yes: $(cat output)"
[[ $(calls sudo) == 2 && $(tail -1 calls) == "bazel build //..." ]] || fail "--yes: $(cat calls)"

# Without Bazel it says how to get it.
rm fakes/bazel
mkdir few
for program in bash dirname readlink grep cat rm; do ln -s "$(command -v "$program")" "few/$program"; done
PATH=$folder/few run version && fail "version without Bazel succeeds"
grep -q 'Bazel is not installed; ./bazelw build installs it' output || fail "without Bazel: $(cat output)"

((failures == 0)) && echo passed
exit $((failures > 0))
