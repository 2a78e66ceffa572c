"""The shared libraries that an installation needs beside glibc, for an archive that needs glibc alone.

They go to lib/gradweave/. The command and libgradweave.so search there first: they are linked with a DT_RPATH, which
holds for the libraries of libraries too.
"""

import os
import re
import subprocess
import tarfile
import tempfile

FOLDER = "lib/gradweave"

# Libraries of glibc, and of the kernel.
_SYSTEM = re.compile(r"(ld-linux[\w.-]*|ld64|linux-vdso|lib(anl|c|dl|m|mvec|pthread|resolv|rt|util))\.so")

# Beginnings of names -> the licence in share/doc/gradweave/licenses/.
_LICENSES = {
    "libabsl_": "abseil",
    "libatomic.": "gcc",
    "libgcc_s.": "gcc",
    "libgfortran.": "gcc",
    "libgomp.": "gcc",
    "libhwy.": "highway",
    "libminizip.": "minizip",
    "libopenblas.": "openblas",
    "libpng16.": "libpng",
    "libprotobuf.": "protobuf",
    "libquadmath.": "gcc",
    "libstdc++.": "gcc",
    "libz.": "zlib",
}


class Error(Exception):
    """Why the libraries cannot be packed."""


def _check_license(library, licenses):
    if not any(library.startswith(start) and name in licenses for start, name in _LICENSES.items()):
        raise Error("no licence is known for %s, so it cannot be packed" % library)


def find(installation):
    """Returns the libraries that the tar file of an installation needs: name -> path on this machine."""
    libraries = {}
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(installation) as files:
            entries = [entry for entry in files if entry.name.startswith(("bin/", "lib/libgradweave.so."))]
            files.extractall(folder, entries)
            licenses = {os.path.basename(name) for name in files.getnames() if "/licenses/" in name}
        for entry in entries:
            output = subprocess.run(["ldd", os.path.join(folder, entry.name)], stdout=subprocess.PIPE, check=True,
                                    text=True).stdout
            for name, path in re.findall(r"^\s*(\S+) => (/\S+|not found)", output, re.MULTILINE):
                if _SYSTEM.match(name):
                    continue
                if path == "not found":
                    raise Error("%s needs %s, which is not here" % (entry.name, name))
                _check_license(name, licenses)
                libraries[name] = os.path.realpath(path)
    return libraries
