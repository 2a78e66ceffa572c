"""Makes a Debian package of the tar file of an installation."""

import email.utils
import gzip
import hashlib
import os
import re
import subprocess
import tarfile
import tempfile

# The packages that C++ programs need beside the libraries' own dependencies.
DEVELOPMENT_PACKAGES = ("libabsl-dev, libhwy-dev, libminizip-dev, libopenblas-dev, libpng-dev, libprotobuf-dev, "
                        "zlib1g-dev")

MAINTAINER = "The Gradweave authors <gradweave@localhost>"

# The date of all files. The same files give the same package. 2026-01-01.
DATE = 1767225600

CONTROL = """\
Package: gradweave
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {kilobytes}
Depends: {depends}
Recommends: {recommends}
Suggests: libopenmpi-dev
Section: libdevel
Priority: optional
Description: computation graphs with symbolic differentiation
 The C++ library of Gradweave with its headers, the shared library of its C
 interface, which loads, runs and trains model files, and the command
 gradweave, which does the everyday jobs with them.
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Gradweave

Files: *
Copyright: 2026 The Gradweave authors
License: Apache-2.0
 On Debian systems, the text of the Apache License, Version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
Comment:
 The folder licenses has the licences of the libraries whose code is inside:
 {libraries}.
"""

CHANGELOG = """\
gradweave ({version}) unstable; urgency=medium

  * CHANGELOG.md of the sources has the changes.

 -- {maintainer}  {date}
"""


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


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write_file(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o644)


def add_debian_files(usr, version, overrides):
    """Gives the files of an installation the form that Debian's policy asks for, and adds those that it asks for."""
    doc = os.path.join(usr, "share", "doc", "gradweave")
    libraries = ", ".join(sorted(os.listdir(os.path.join(doc, "licenses"))))
    write_file(os.path.join(doc, "copyright"), COPYRIGHT.format(libraries=libraries).encode())
    date = email.utils.formatdate(DATE)
    changelog = CHANGELOG.format(version=version, maintainer=MAINTAINER, date=date)
    write_file(os.path.join(doc, "changelog.gz"), gzip.compress(changelog.encode(), mtime=0))
    write_file(os.path.join(usr, "share", "lintian", "overrides", "gradweave"), read(overrides))
    pages = os.path.join(usr, "share", "man", "man1")
    for name in os.listdir(pages):
        page = os.path.join(pages, name)
        write_file(page + ".gz", gzip.compress(read(page), mtime=0))
        os.remove(page)


def sums_and_size(root):
    """Returns the content of the file md5sums, and the number of bytes."""
    sums, size = "", 0
    for folder, folders, names in os.walk(os.path.join(root, "usr")):
        folders.sort()
        os.chmod(folder, 0o755)
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                continue
            data = read(path)
            size += len(data)
            sums += "%s  %s\n" % (hashlib.md5(data).hexdigest(), os.path.relpath(path, root))
    return sums, size


def shared_library_line(root, version):
    """Returns the line by which dpkg-shlibdeps knows the package of a program that needs the library."""
    names = os.listdir(os.path.join(root, "usr", "lib"))
    stable = min((name for name in names if re.match(r"libgradweave\.so\.", name)), key=len)
    return "libgradweave %s gradweave (>= %s)\n" % (stable.split(".so.")[1], version)


def write(source, output, version, architecture, overrides):
    """Writes the package `output` of the tar file `source`. `overrides` is the file of overrides for lintian."""
    with tempfile.TemporaryDirectory() as work:
        root = os.path.join(work, "debian", "gradweave")
        control = os.path.join(root, "DEBIAN")
        os.makedirs(control)
        usr = os.path.join(root, "usr")
        with tarfile.open(source) as files:
            files.extractall(usr)
        add_debian_files(usr, version, overrides)
        sums, size = sums_and_size(root)
        for name, text in (
                ("md5sums", sums),
                ("shlibs", shared_library_line(root, version)),
                ("triggers", "activate-noawait ldconfig\n"),
                ("control", CONTROL.format(version=version, architecture=architecture, maintainer=MAINTAINER,
                                           kilobytes=size // 1024 + 1, depends=needed_packages(root, work),
                                           recommends=DEVELOPMENT_PACKAGES)),
        ):
            write_file(os.path.join(control, name), text.encode())
        for folder, folders, names in os.walk(root):
            for name in folders + names:
                os.utime(os.path.join(folder, name), (DATE, DATE), follow_symlinks=False)
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, output], check=True,
                       stdout=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": str(DATE)})
