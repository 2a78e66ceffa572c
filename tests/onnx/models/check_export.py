"""Runs files that Gradweave exported with ONNX Runtime, and compares their outputs with Gradweave's.

    python3 -m venv /tmp/venv; /tmp/venv/bin/pip install onnxruntime onnx numpy
    /tmp/venv/bin/python tests/onnx/models/check_export.py [--tolerance=1e-4] FOLDER

Beside each FILE.onnx of the folder, FILE.npz has inputs and outputs by their names in the model. The tests of export
leave such pairs in their temporary folders: TEST_TMPDIR=FOLDER bazel-bin/tests/onnx/export_ops_test. The difference is
relative to 1 or, if that is larger, to the largest element of the output.
"""

import argparse
import pathlib

import numpy as np
import onnx
import onnxruntime


def difference(path, arrays):
    onnx.checker.check_model(onnx.load(str(path)), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {value.name: arrays[value.name] for value in session.get_inputs()}
    worst = 0.0
    for value, got in zip(session.get_outputs(), session.run(None, feeds)):
        expected = arrays[value.name]
        if got.shape != expected.shape or got.dtype != expected.dtype:
            raise ValueError(f"{value.name} is {got.dtype}{got.shape}, not {expected.dtype}{expected.shape}")
        if got.size == 0 or not np.issubdtype(got.dtype, np.floating):
            worst = max(worst, float(not np.array_equal(got, expected)))
            continue
        scale = max(1.0, float(np.nanmax(np.abs(np.where(np.isfinite(expected), expected, 0)))))
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        with np.errstate(invalid="ignore"):
            worst = max(worst, float(np.max(np.where(same, 0, np.abs(got - expected)))) / scale)
    return worst


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()
    checked, wrong, largest = 0, 0, 0.0
    for path in sorted(arguments.folder.glob("*.onnx")):
        if not path.with_suffix(".npz").exists():
            continue
        checked += 1
        try:
            worst = difference(path, np.load(path.with_suffix(".npz")))
        except Exception as error:  # A file that is not valid or does not run.
            wrong += 1
            print(f"{path.name}: {str(error).splitlines()[0][:200]}")
            continue
        largest = max(largest, worst)
        if not worst <= arguments.tolerance:
            wrong += 1
            print(f"{path.name}: difference {worst:.2e}")
    print(f"{checked} files, {wrong} wrong, largest difference {largest:.2e}")
    raise SystemExit(wrong > 0 or checked == 0)


main()
