#!/usr/bin/env python3
"""Writes the node cases of the onnx package as folders that //tests/onnx:conformance reads.

  python3 -m venv ~/onnx && ~/onnx/bin/pip install onnx
  ~/onnx/bin/python tests/onnx/newest_suite.py /tmp/onnx_cases
  bazel run //tests/onnx:conformance -- --suite=/tmp/onnx_cases
"""
import pathlib
import sys

from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases


def main():
    folder = pathlib.Path(sys.argv[1])
    written = 0
    for case in collect_testcases(None):
        path = folder / case.name
        path.mkdir(parents=True, exist_ok=True)
        (path / "model.onnx").write_bytes(case.model.SerializeToString())
        for number, (inputs, outputs) in enumerate(case.data_sets):
            data = path / f"test_data_set_{number}"
            data.mkdir(exist_ok=True)
            for kind, arrays in (("input", inputs), ("output", outputs)):
                for i, array in enumerate(arrays):
                    # Sequences and optional values are out of scope, and their cases need no data.
                    if isinstance(array, TensorProto):
                        message = array
                    elif hasattr(array, "dtype"):
                        message = numpy_helper.from_array(array)
                    else:
                        continue
                    (data / f"{kind}_{i}.pb").write_bytes(message.SerializeToString())
        written += 1
    print(f"{written} cases in {folder}")


if __name__ == "__main__":
    main()
