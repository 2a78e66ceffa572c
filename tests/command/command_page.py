#!/usr/bin/python3
"""Runs the commands of docs/command.md, and compares what they print with the page, or writes it: --write.

A block ```console has lines "$ command", each with its output below. A command goes on in the next line after a
backslash, and long lines of output are folded. Numbers with a point and units of time differ
between processors, so they are not compared; in blocks whose command trains or measures, no number is.
"""

import difflib
import gzip
import os
import re
import struct
import subprocess
import sys
import tempfile
import textwrap
import zlib

DATA = "/usr/share/datasets/fashion-mnist"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ (?:.*\\\n)*.*$", re.MULTILINE)
WIDTH = 110
MEASURES = re.compile(r"gradweave (bench|train)")


def write_png(path, width, height, pixels):
    """A gray image of 8 bits."""
    rows = b"".join(b"\0" + pixels[y * width:(y + 1) * width] for y in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) +
                   chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def prepare(folder, lenet):
    """Makes the files that the page begins with: lenet.gw, trained a little, and the first test image."""
    with gzip.open(DATA + "/t10k-images-idx3-ubyte.gz") as file:
        write_png(folder + "/boot.png", 28, 28, file.read(16 + 784)[16:])
    subprocess.run([lenet, "--epochs=1", "--limit_train=2560", "--threads=1"], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)


def run_block(block, folder, environment):
    """The block with the output of its commands."""
    lines = []
    for command in COMMAND.findall(block):
        result = subprocess.run(["bash", "-c", command[2:]], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        lines.append(command)
        for line in result.stdout.decode().splitlines():
            lines += [line] if len(line) <= WIDTH else textwrap.wrap(line, WIDTH, subsequent_indent="    ")
    return "".join(line + "\n" for line in lines)


def comparable(block):
    """The lines without what differs between machines."""
    number = r"[\d,]*\.?\d+(e-?\d+)?" if MEASURES.search(block) else r"\d+\.\d+(e-?\d+)?"
    block = re.sub(r"-?\b" + number, "#", block.replace("\n    ", " "))  # Lines are folded elsewhere, too.
    block = re.sub(r"# [mu]?s\b", "# s", block)
    return [" ".join(line.split()) for line in block.splitlines()]


def main():
    writes = "--write" in sys.argv
    command, lenet, page = [os.path.abspath(path) for path in sys.argv[1:4]]
    with open(page) as file:
        text = file.read()
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder, lenet)
        environment = dict(os.environ, PATH=os.path.dirname(command) + ":" + os.environ["PATH"])
        environment.pop("BUILD_WORKING_DIRECTORY", None)

        def check(match):
            block = run_block(match.group(1), folder, environment)
            if comparable(block) != comparable(match.group(1)):
                errors.extend(difflib.unified_diff(comparable(match.group(1)), comparable(block), "the page", "the command",
                                                   lineterm=""))
            return "```console\n" + block + "```"

        new_text = BLOCK.sub(check, text)
    if writes:
        with open(os.path.realpath(page), "w") as file:
            file.write(new_text)
        return
    if BLOCK.search(text) is None:
        errors.append("the page has no block of commands")
    print("\n".join(errors))
    sys.exit(1 if errors else 0)


main()
