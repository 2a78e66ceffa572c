#!/bin/bash
# Lets PyPI's tensorboard read what write_events writes. $PYTHON is another Python than python3.
set -euo pipefail
python=${PYTHON:-python3}
if ! "$python" -c 'import tensorboard' 2>/dev/null; then
  echo "SKIPPED: $python has no module tensorboard (pip install tensorboard)"
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tests/watch/write_events "$folder"
"$python" tests/watch/tensorboard_reads_events.py "$folder"
