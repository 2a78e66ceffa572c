#!/usr/bin/python3
"""MODULE.bazel, which this machine's Bazel does not read, uses the repositories that WORKSPACE declares."""

import os
import re
import sys

ROOT = os.path.dirname(os.path.realpath("WORKSPACE"))  # The sources: Bazel gives a test a link to WORKSPACE.


def read(path):
    with open(os.path.join(ROOT, path)) as file:
        return file.read()


def main():
    declared = read("third_party/repositories.bzl").split("def system_repositories():")[1].split("\ndef ")[0]
    declared = re.findall(r'\bname = "(\w+)"', declared)
    used = re.search(r"use_repo\(\s*system_libraries,(.*?)\)", read("MODULE.bazel"), re.DOTALL).group(1)
    used = re.findall(r'"(\w+)"', used)
    if len(declared) < 10 or sorted(declared) != sorted(used):
        sys.exit("repositories.bzl declares %s\nMODULE.bazel uses %s" % (sorted(declared), sorted(used)))


main()
