#!/usr/bin/python3
"""Writes numpy's files that npy_test.cc reads. Run in this folder; the repository's files are by numpy 2.4.6
and ml_dtypes 0.6."""

import ml_dtypes
import numpy

ARRAYS = {
    "float32": numpy.array([[0.1, -0.0, numpy.inf], [-numpy.inf, 3.4028235e38, 1e-45]], numpy.float32),
    "float64": numpy.array([[0.1, -0.0, numpy.inf], [-numpy.inf, 1.7976931348623157e308, 5e-324]]),
    "int32": numpy.array([[0, 1, -1], [7, -(2**31), 2**31 - 1]], numpy.int32),
    "int64": numpy.array([[0, 1, -1], [7, -(2**63), 2**63 - 1]], numpy.int64),
    "uint8": numpy.array([[0, 1, 2], [127, 128, 255]], numpy.uint8),
    "bool": numpy.array([[True, False, False], [True, True, False]]),
    "scalar": numpy.float64(2.5),
    "vector": numpy.arange(5, dtype=numpy.int32),
    "empty": numpy.zeros((0, 3), numpy.float32),
    "long_header": numpy.zeros((123, 0) + 12 * (1,), numpy.uint8),
    "fortran": numpy.asfortranarray(numpy.arange(24, dtype=numpy.int32).reshape(2, 3, 4)),
    "big_endian": numpy.arange(6, dtype=">i4").reshape(2, 3),
    "big_endian_fortran": numpy.asfortranarray((numpy.arange(6) / 4).astype(">f8").reshape(2, 3)),
    "float16": numpy.array([[1, -0.0, numpy.inf], [-numpy.inf, 65504, 6e-8]], numpy.float16),
    "big_endian_float16": numpy.array([1, 0.1], ">f2"),
    "int8": numpy.array([0, -128, 127], numpy.int8),
    "int16": numpy.array([0, -(2**15), 2**15 - 1], numpy.int16),
    "uint16": numpy.array([0, 1, 2**16 - 1], numpy.uint16),
    "uint32": numpy.array([0, 1, 2**32 - 1], numpy.uint32),
    "uint64": numpy.array([0, 1, 2**64 - 1], numpy.uint64),
    "bfloat16": numpy.array([1, 2], ml_dtypes.bfloat16),
    "complex128": numpy.zeros(2, numpy.complex128),
    "text": numpy.array(["a", "b"]),
    "structure": numpy.zeros(2, [("a", "f4"), ("b", "i4")]),
    "object": numpy.array([None, {}], object),
}
READABLE = [name for name in ARRAYS if name not in ("bfloat16", "complex128", "text", "structure", "object")]

for name, array in ARRAYS.items():
    numpy.save(name + ".npy", array)
for version in (2, 0), (3, 0):
    with open("version%d.npy" % version[0], "wb") as file:
        numpy.lib.format.write_array(file, ARRAYS["float32"], version)
numpy.savez("stored.npz", **{name: ARRAYS[name] for name in READABLE})
weights = numpy.arange(4000).reshape(40, 100) % 7
numpy.savez_compressed("compressed.npz", **{"layer/weights": weights, "bias": ARRAYS["float32"]})
numpy.savez("object.npz", good=ARRAYS["float32"], bad=ARRAYS["object"])
numpy.savez("none.npz")
