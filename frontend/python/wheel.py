#!/usr/bin/python3
"""Packs the Python module as a wheel: wheel.py PYTHON VERSION LICENSE LICENSES MODULE [--dir=DIR].

Bazel passes the first five. LICENSES has a line for each library whose code is in the module: its name, and the file of
this machine with its licence. The folder is by default the one in which the user runs bazel. The format is that of
https://packaging.python.org/en/latest/specifications/binary-distribution-format.
"""

import argparse
import base64
import hashlib
import os
import sys
import sysconfig
import tempfile
import zipfile

METADATA = """\
Metadata-Version: 2.1
Name: gradweave
Version: {version}
Summary: Computation graphs with symbolic differentiation: loads, runs, differentiates, trains and saves models
{license_files}
Requires-Python: =={python}.*
"""

WHEEL = """\
Wheel-Version: 1.0
Generator: gradweave
Root-Is-Purelib: false
Tag: {tag}
"""


def write_wheel(path, files):
    """Writes the files, a dict of name to bytes, and their record as the last one, which has the suffix RECORD."""
    record_name = next(name for name in files if name.endswith("/WHEEL"))[:-len("WHEEL")] + "RECORD"
    record = ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(content)}\n"
        files = dict(files, **{record_name: (record + f"{record_name},,\n").encode()})
        for name, content in files.items():
            # The same files make the same bytes at any time.
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o755 if name.endswith(".so") else 0o644) << 16
            archive.writestr(info, content)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def main():
    parser = argparse.ArgumentParser()
    for name in ("python", "version", "license", "licenses", "module"):
        parser.add_argument(name)
    parser.add_argument("--dir", default=".", help="folder for the wheel, made if it is missing")
    arguments = parser.parse_args()
    if arguments.python == "none":
        sys.exit("wheel: the build has found no headers of Python and pybind11; "
                 "on Debian, apt-get install python3-dev pybind11-dev")
    # The tags of a wheel are those of the Python whose headers the module was compiled with.
    # A script that starts a Python, as pyenv has, shows another path: it is started once.
    started = "GRADWEAVE_WHEEL_STARTED"
    if os.path.realpath(sys.executable) != os.path.realpath(arguments.python) and started not in os.environ:
        os.environ[started] = "1"
        os.execv(arguments.python, [arguments.python] + sys.argv)

    version = read(arguments.version).decode().strip()
    tag = sysconfig.get_config_var("py_version_nodot")
    tag = f"cp{tag}-cp{tag}-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
    info = f"gradweave-{version}.dist-info/"
    python = "{}.{}".format(*sys.version_info)
    licenses = {"LICENSE": read(arguments.license)}
    for line in read(arguments.licenses).decode().splitlines():
        library, path = line.split(" ", 1)
        if os.path.exists(path):  # Other systems keep it elsewhere.
            licenses["licenses/" + library] = read(path)
    license_files = "\n".join("License-File: " + name for name in licenses)
    files = {
        "gradweave" + sysconfig.get_config_var("EXT_SUFFIX"): read(arguments.module),
        **{info + name: text for name, text in licenses.items()},
        info + "METADATA": METADATA.format(version=version, python=python, license_files=license_files).encode(),
        info + "WHEEL": WHEEL.format(tag=tag).encode(),
    }
    folder = os.path.join(os.environ.get("BUILD_WORKING_DIRECTORY", "."), arguments.dir)
    path = os.path.join(folder, f"gradweave-{version}-{tag}.whl")
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".wheel", dir=folder) as temporary:
            made = os.path.join(temporary, "wheel")
            write_wheel(made, files)
            os.rename(made, path)
    except OSError as error:
        sys.exit(f"wheel: {path}: {error.strerror}")
    print(path)


main()
