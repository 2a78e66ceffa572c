#!/bin/bash
# Runs the tests of the Python module, and packs and unpacks its wheel: python_test.sh PYTHON MODULE...
set -euo pipefail
python=$1
if [[ $python == none ]]; then
  echo "SKIPPED: the build has found no headers of Python and pybind11 (Debian: python3-dev, pybind11-dev)"
  exit 0
fi
for module in numpy pytest; do
  if ! "$python" -c "import $module" 2>/dev/null; then
    echo "SKIPPED: $python has no module $module (Debian: python3-$module)"
    exit 0
  fi
done
root=$PWD
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tests/python/write_models "$folder"

# Users get the wheel. Its record has the checksums of all its files.
wheel=$(frontend/python/wheel "$python" VERSION LICENSE frontend/python/licenses.txt frontend/python/gradweave.so --dir="$folder/wheels")
[[ $wheel == "$folder/wheels/gradweave-$(cat VERSION)-cp3"*.whl ]] || { echo "FAILED: the wheel is $wheel"; exit 1; }
mkdir "$folder/site"
"$python" - "$wheel" "$folder/site" <<'PYTHON'
import base64, csv, hashlib, io, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    archive.extractall(sys.argv[2])
    record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
    rows = list(csv.reader(io.StringIO(archive.read(record).decode())))
    assert sorted(row[0] for row in rows) == sorted(archive.namelist()), rows
    for name, digest, size in rows:
        if name == record: continue
        content = archive.read(name)
        assert len(content) == int(size), name
        assert digest == "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode(), name
PYTHON
# It has the licences of the libraries whose code is in it.
while read -r library notice; do
  [[ ! -e $notice ]] || cmp "$notice" "$folder"/site/gradweave-*.dist-info/licenses/"$library"
done < frontend/python/licenses.txt
grep -qx 'License-File: licenses/abseil' "$folder"/site/gradweave-*.dist-info/METADATA
# The same files make the same wheel.
again=$(frontend/python/wheel "$python" VERSION LICENSE frontend/python/licenses.txt frontend/python/gradweave.so --dir="$folder/again")
cmp "$wheel" "$again"

# The shared library shows its one entry alone.
symbols=$(nm -D --defined-only frontend/python/gradweave.so | awk '{ print $3 }')
[[ $symbols == PyInit_gradweave ]] || { echo "FAILED: the module shows $symbols"; exit 1; }

cd "$folder"
GRADWEAVE_TEST_MODELS=$folder PYTHONPATH=$folder/site PYTHONDONTWRITEBYTECODE=1 \
  "$python" -m pytest -q -p no:cacheprovider "$root/tests/python/test_gradweave.py"
