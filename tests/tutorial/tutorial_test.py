#!/usr/bin/python3
"""Runs the programs and commands of the tutorial's pages one after the other in one folder, and compares what the
programs print with the pages.

  tutorial_test GRADWEAVE PAGE PROGRAM [PAGE PROGRAM ...]

A block ```csv NAME is a file. A block ```text is the output of the page's program; numbers with a point and numbers
of characters are not compared. An indented line that begins with gradweave is a command.
"""

import os
import re
import subprocess
import sys
import tempfile

BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^    (gradweave .*)$", re.MULTILINE)
MEASURED = re.compile(r"\d+\.?\d*(e-?\d+)?(?= us| characters)")


def check_page(text, program, folder, environment):
    """Returns what is wrong."""
    errors = []
    blocks = BLOCK.findall(text)
    for kind, name, content in blocks:
        if kind == "csv":
            with open(os.path.join(folder, name), "w") as file:
                file.write(content)
    expected = "".join(content for kind, _, content in blocks if kind == "text")
    result = subprocess.run([program], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                            text=True)
    if not expected or result.returncode != 0 or MEASURED.sub("#", result.stdout) != MEASURED.sub("#", expected):
        errors.append("exit code %d; expected:\n%s\nprinted:\n%s" % (result.returncode, expected, result.stdout))
    for command in COMMAND.findall(text):
        result = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, check=False, text=True)
        if result.returncode != 0:
            errors.append("%s: %s" % (command, result.stdout))
    return errors


def main():
    command, *pages = [os.path.abspath(path) for path in sys.argv[1:]]
    environment = dict(os.environ, PATH=os.path.dirname(command) + ":" + os.environ["PATH"])
    environment.pop("BUILD_WORKING_DIRECTORY", None)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for page, program in zip(pages[::2], pages[1::2]):
            with open(page) as file:
                errors = check_page(file.read(), program, folder, environment)
            for error in errors:
                print("%s: %s" % (os.path.basename(page), error))
            failed = failed or bool(errors)
    sys.exit(1 if failed or len(pages) < 12 else 0)


main()
