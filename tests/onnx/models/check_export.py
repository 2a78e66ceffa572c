"""Runs files that Gradweave exported with ONNX Runtime, and compares their outputs with Gradweave's.

    python3 -m venv /tmp/venv; /tmp/venv/bin/pip install onnxruntime onnx numpy
    /tmp/venv/bin/python tests/onnx/models/check_export.py FILE.onnx FILE.npz

The archive has the inputs and outputs by their names in the model. //tests/onnx:export_test leaves such a pair in its
temporary folder.
"""

import sys

import numpy as np
import onnx
import onnxruntime


def main():
    model, data = sys.argv[1], np.load(sys.argv[2])
    onnx.checker.check_model(onnx.load(model), full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feeds = {value.name: data[value.name] for value in session.get_inputs()}
    worst = 0.0
    for value, got in zip(session.get_outputs(), session.run(None, feeds)):
        worst = max(worst, float(np.abs(got - data[value.name]).max()))
    print(f"{model}: largest difference {worst:.2e}")
    sys.exit(worst > 1e-5)


main()
