#!/usr/bin/python3
"""Packs what `bazel run //:install` installs, as a .tar.xz and, with dpkg, as a .deb.

The .tar.xz may be unpacked anywhere. It has the libraries that the command and the C interface need, except glibc.

  bazel run //:package [-- --output_dir=DIR]

Files go to the folder that it is called from, or to DIR.
"""

import argparse
import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import bundled_libraries  # noqa: E402, pylint: disable=wrong-import-position
import debian_package  # noqa: E402, pylint: disable=wrong-import-position


@contextlib.contextmanager
def complete_file(path):
    """Gives a name for a file that gets the name `path` when it is complete. It is removed if that fails."""
    part = path + ".part"
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


def write_tar(source, output, folder):
    """Writes the files of an installation with the libraries that it needs beside glibc."""
    libraries = bundled_libraries.find(source)
    with tarfile.open(source) as files, tarfile.open(output, "w:xz", format=tarfile.PAX_FORMAT) as tar:
        for entry in files:
            data = files.extractfile(entry) if entry.isfile() else None
            entry.name = folder + "/" + entry.name
            tar.addfile(entry, data)
        for name, path in sorted(libraries.items()):
            entry = tarfile.TarInfo("%s/%s/%s" % (folder, bundled_libraries.FOLDER, name))
            entry.size, entry.mode = os.path.getsize(path), 0o644
            with open(path, "rb") as data:
                tar.addfile(entry, data)


def main():
    parser = argparse.ArgumentParser(prog="package", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output_dir", default=".", help="folder for the files")
    output_dir = parser.parse_args().output_dir
    # Bazel starts the program in the folder of its files.
    source = os.path.abspath("installation.tar")
    overrides = os.path.abspath("tools/lintian-overrides")
    with open("VERSION") as file:
        version = file.read().strip()
    os.chdir(os.environ.get("BUILD_WORKING_DIRECTORY", "."))
    if not os.path.isdir(output_dir):
        sys.exit("package: there is no folder %s" % output_dir)

    folder = "gradweave-%s-%s" % (version, platform.machine())
    archive = os.path.join(output_dir, folder + ".tar.xz")
    with complete_file(archive) as part:
        write_tar(source, part, folder)
    print(archive)
    if not shutil.which("dpkg-deb") or not shutil.which("dpkg-shlibdeps"):
        sys.exit("package: no .deb: dpkg-deb and dpkg-shlibdeps are not here (Debian: dpkg-dev)")
    architecture = subprocess.run(["dpkg", "--print-architecture"], check=True, stdout=subprocess.PIPE,
                                  text=True).stdout.strip()
    package = os.path.join(output_dir, "gradweave_%s_%s.deb" % (version, architecture))
    with complete_file(package) as part:
        debian_package.write(source, part, version, architecture, overrides)
    print(package)


try:
    main()
except OSError as error:
    sys.exit("package: %s: %s" % (error.filename or "the output", error.strerror))
except bundled_libraries.Error as error:
    sys.exit("package: %s" % error)
except subprocess.CalledProcessError as error:
    sys.exit("package: %s has failed" % error.cmd[0])
