#!/usr/bin/python3
"""Makes pages of the public headers with Doxygen. A warning of Doxygen is an error.

  bazel run //docs:html [-- --output_dir=DIR]

DIR is made, or replaced if it has such pages. It is html in the folder that the program is called from by default.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import doxygen_filter  # noqa: E402, pylint: disable=wrong-import-position

SETTINGS = """
PROJECT_NAME = Gradweave
PROJECT_NUMBER = {version}
PROJECT_BRIEF = "Computation graphs with symbolic differentiation"
INPUT = {work}/gradweave
RECURSIVE = YES
FILE_PATTERNS = *.h *.md
INCLUDE_FILE_PATTERNS = *.h *.inc
INCLUDE_PATH = {work}
STRIP_FROM_PATH = {work}
STRIP_FROM_INC_PATH = {work}
USE_MDFILE_AS_MAINPAGE = {work}/gradweave/main_page.md
OUTPUT_DIRECTORY = {work}/output
GENERATE_LATEX = NO
EXTRACT_ALL = YES
JAVADOC_AUTOBRIEF = YES
MACRO_EXPANSION = YES
HAVE_DOT = NO
CLASS_GRAPH = NO
MARKDOWN_SUPPORT = YES
QUIET = YES
HTML_TIMESTAMP = NO
WARN_LOGFILE = {work}/warnings.txt
"""

MAIN_PAGE = """# Gradweave

Programs include `gradweave/gradweave.h`, and the headers of {separate} where they need them. In programs the
namespace `gradweave` is `gw`.
"""


def read(path):
    with open(path) as file:
        return file.read()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def copy_headers(root, target):
    """Writes the public headers with Doxygen's comments, and what they include of elementwise ops."""
    lists = {}
    exec(read(os.path.join(root, "public_headers.bzl")).split("def ")[0], lists)  # pylint: disable=exec-used
    separate = lists["SEPARATE_PUBLIC_HEADERS"]
    for header in lists["PUBLIC_HEADERS"] + separate + ["gradweave.h"]:
        lines = read(os.path.join(root, header)).split("\n")
        write(os.path.join(target, header), "\n".join(doxygen_filter.filtered(lines)))
    shutil.copy(os.path.join(root, "ops/elementwise_ops.inc"), os.path.join(target, "ops"))
    names = ", ".join("`%s`" % header for header in separate)
    write(os.path.join(target, "main_page.md"), MAIN_PAGE.format(separate=names))


def main():
    parser = argparse.ArgumentParser(prog="html", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output_dir", default="html", help="folder for the pages")
    output_dir = parser.parse_args().output_dir
    if not shutil.which("doxygen"):
        sys.exit("html: doxygen is missing; tools/install doxygen installs it")
    root = os.path.dirname(os.path.realpath("WORKSPACE"))  # The sources: Bazel gives a program a link to WORKSPACE.
    os.chdir(os.environ.get("BUILD_WORKING_DIRECTORY", "."))
    if os.path.exists(output_dir) and not os.path.exists(os.path.join(output_dir, "doxygen.css")):
        sys.exit("html: %s exists, and has no such pages" % output_dir)
    with tempfile.TemporaryDirectory() as work:
        copy_headers(root, os.path.join(work, "gradweave"))
        version = read(os.path.join(root, "VERSION")).strip()
        write(os.path.join(work, "Doxyfile"), SETTINGS.format(work=work, version=version))
        subprocess.run(["doxygen", os.path.join(work, "Doxyfile")], check=True)
        warnings = read(os.path.join(work, "warnings.txt")).replace(work + "/gradweave/", "")
        if warnings:
            sys.exit("html: Doxygen warns:\n" + warnings)
        try:
            shutil.copytree(os.path.join(work, "output/html"), output_dir + ".part")
            shutil.rmtree(output_dir, ignore_errors=True)
            os.replace(output_dir + ".part", output_dir)
        except OSError as error:
            shutil.rmtree(output_dir + ".part", ignore_errors=True)
            sys.exit("html: %s: %s" % (output_dir, error.strerror))
    print(os.path.join(output_dir, "index.html"))


main()
