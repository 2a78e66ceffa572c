#!/usr/bin/python3
"""Writes the tar file of an installation. tools/install_rules.bzl calls it.

  lay_out MANIFEST OUTPUT
"""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import man_pages  # noqa: E402, pylint: disable=wrong-import-position

INCLUDE = re.compile(r'^\s*#include "(gradweave/[^"]+)"', re.MULTILINE)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def needed_headers(roots, headers):
    """Returns the headers that programs include and those that they include in turn."""
    found, left = {}, list(roots)
    while left:
        path = left.pop()
        if path in found:
            continue
        if path not in headers:
            sys.exit("lay_out: no library has the header %s" % path)
        found[path] = read(headers[path])
        left += INCLUDE.findall(found[path].decode())
    return found


def stable_part(version):
    """Returns the part of the version up to which the interface stays as it is: 0.1 of 0.1.0, and 1 of 1.2.3."""
    parts = version.split(".")
    return ".".join(parts[:2]) if parts[0] == "0" else parts[0]


def stripped(path, strip):
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "stripped")
        subprocess.run([strip, "--strip-unneeded", "-o", output, path], check=True)
        return read(output)


def main():
    with open(sys.argv[1]) as file:
        manifest = json.load(file)
    version = read(manifest["version"]).decode().strip()
    values = {
        "VERSION": version,
        "STABLE_VERSION": stable_part(version),
        "LINK_FLAGS": " ".join(manifest["link_flags"]),
        "LINK_LIST": ";".join(manifest["link_flags"]),
        "DISTRIBUTED_LINK_FLAGS": " ".join(manifest["distributed_link_flags"]),
        "DISTRIBUTED_LINK_LIST": ";".join(manifest["distributed_link_flags"]),
    }

    files = {}  # Path -> (bytes, mode).
    for path, text in needed_headers(manifest["public_headers"], manifest["headers"]).items():
        files["include/" + path] = (text, 0o644)
    files["lib/libgradweave.a"] = (read(manifest["archive"]), 0o644)
    files["lib/libgradweave.so." + version] = (stripped(manifest["shared_library"], manifest["strip"]), 0o644)
    for program in manifest["programs"]:
        files["bin/" + os.path.basename(program)] = (stripped(program, manifest["strip"]), 0o755)
        for page, text in man_pages.pages(os.path.abspath(program)).items():
            files["share/man/man1/" + page] = (text.encode(), 0o644)
    for template, path in manifest["templates"].items():
        text = read(template).decode()
        files[path] = (re.sub("@([A-Z_]+)@", lambda name: values[name.group(1)], text).encode(), 0o644)
    files["share/doc/gradweave/copyright"] = (read(manifest["license"]), 0o644)
    for library, path in manifest["licenses"].items():
        if os.path.exists(path):  # Other systems keep it elsewhere.
            files["share/doc/gradweave/licenses/" + library] = (read(path), 0o644)
    links = {
        "lib/libgradweave.so": "libgradweave.so." + values["STABLE_VERSION"],
        "lib/libgradweave.so." + values["STABLE_VERSION"]: "libgradweave.so." + version,
    }

    # The same files give the same bytes: no times, no names of users.
    with tarfile.open(sys.argv[2], "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted([*files, *links]):
            entry = tarfile.TarInfo(path)
            if path in links:
                entry.type, entry.linkname = tarfile.SYMTYPE, links[path]
                tar.addfile(entry)
                continue
            data, entry.mode = files[path]
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


main()
