#!/usr/bin/python3
"""Packs what `bazel run //:install` installs, as a .tar.xz that may be unpacked anywhere and, with dpkg, as a .deb.

  bazel run //:package [-- --output_dir=DIR]

Files go to the folder that it is called from, or to DIR.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile

# The packages that C++ programs need beside the libraries' own dependencies.
DEVELOPMENT_PACKAGES = ("libabsl-dev, libhwy-dev, libminizip-dev, libopenblas-dev, libpng-dev, libprotobuf-dev, "
                        "zlib1g-dev")

CONTROL = """\
Package: gradweave
Version: {version}
Architecture: {architecture}
Maintainer: The Gradweave authors <gradweave@localhost>
Installed-Size: {kilobytes}
Depends: {depends}
Recommends: {recommends}
Section: libdevel
Priority: optional
Description: computation graphs with symbolic differentiation
 The C++ library of Gradweave with its headers, and the shared library of its C
 interface, which loads, runs and trains model files.
"""


def write_tar(source, output, folder):
    with tarfile.open(source) as files, tarfile.open(output, "w:xz", format=tarfile.PAX_FORMAT) as tar:
        for entry in files:
            data = files.extractfile(entry) if entry.isfile() else None
            entry.name = folder + "/" + entry.name
            tar.addfile(entry, data)


def needed_packages(root, work):
    """Returns what dpkg-shlibdeps says that the programs and shared libraries need."""
    with open(os.path.join(work, "debian", "control"), "w") as file:
        file.write("Source: gradweave\n\nPackage: gradweave\nArchitecture: any\n")
    binaries = []
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = os.path.join(folder, name)
            is_binary = name.startswith("libgradweave.so") or os.path.basename(folder) == "bin"
            if is_binary and not os.path.islink(path):
                binaries.append("-e" + path)
    # Debian's pkg-config files name all libraries of Abseil; without warnings about those that are not used.
    answer = subprocess.run(["dpkg-shlibdeps", "-O", "--warnings=0", *binaries], cwd=work, check=True,
                            stdout=subprocess.PIPE, text=True)
    return answer.stdout.strip().split("shlibs:Depends=")[1]


def write_package(source, output, version, architecture):
    with tempfile.TemporaryDirectory() as work:
        root = os.path.join(work, "debian", "gradweave")
        control = os.path.join(root, "DEBIAN")
        os.makedirs(control)
        with tarfile.open(source) as files:
            files.extractall(os.path.join(root, "usr"))
        sums, size = [], 0
        for folder, _, names in sorted(os.walk(os.path.join(root, "usr"))):
            os.chmod(folder, 0o755)
            for name in sorted(names):
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    continue
                with open(path, "rb") as file:
                    data = file.read()
                size += len(data)
                sums.append("%s  %s\n" % (hashlib.md5(data).hexdigest(), os.path.relpath(path, root)))
        for name, text in (
                ("md5sums", "".join(sums)),
                ("triggers", "activate-noawait ldconfig\n"),
                ("control", CONTROL.format(version=version, architecture=architecture, kilobytes=size // 1024 + 1,
                                           depends=needed_packages(root, work), recommends=DEVELOPMENT_PACKAGES)),
        ):
            with open(os.path.join(control, name), "w") as file:
                file.write(text)
        # The same files give the same package.
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, output], check=True,
                       stdout=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": "0"})


def main():
    parser = argparse.ArgumentParser(prog="package", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output_dir", default=".", help="folder for the files")
    output_dir = parser.parse_args().output_dir
    # Bazel starts the program in the folder of its files.
    source = os.path.abspath("installation.tar")
    with open("VERSION") as file:
        version = file.read().strip()
    os.chdir(os.environ.get("BUILD_WORKING_DIRECTORY", "."))
    if not os.path.isdir(output_dir):
        sys.exit("package: there is no folder %s" % output_dir)

    folder = "gradweave-%s-%s" % (version, platform.machine())
    archive = os.path.join(output_dir, folder + ".tar.xz")
    write_tar(source, archive, folder)
    print(archive)
    if not shutil.which("dpkg-deb") or not shutil.which("dpkg-shlibdeps"):
        sys.exit("package: no .deb: dpkg-deb and dpkg-shlibdeps are not here (Debian: dpkg-dev)")
    architecture = subprocess.run(["dpkg", "--print-architecture"], check=True, stdout=subprocess.PIPE,
                                  text=True).stdout.strip()
    package = os.path.join(output_dir, "gradweave_%s_%s.deb" % (version, architecture))
    write_package(source, package, version, architecture)
    print(package)


main()
