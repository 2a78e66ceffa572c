#!/usr/bin/python3
"""Each example in a comment of a public header compiles.

An example is a block of indented lines with a name of the library in it. It becomes a function that sees the variables
below; a new example may need one more. "..." stands for code that the example leaves out.
"""

import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.realpath("WORKSPACE"))  # The sources: Bazel gives a test a link to WORKSPACE.
LINE = re.compile(r"^\s*//(?:   (.*)|\s*)$")
LIBRARY = re.compile(r"\bgw::|\bgw_|\bGW_")

CPP_CONTEXT = """
gw::Graph graph;
gw::Scope scope(graph);
gw::Value x, y, image, label, logits, loss, memory, mask, zero, source, target, source_lengths, lengths;
gw::optim::Values body, head, body_gradients, head_gradients;
gw::optim::Sgd sgd;
gw::optim::Adam adam;
gw::nn::RecurrentState first;
gw::Update step;
gw::Training training{loss, step};
gw::nn::Sequential model{gw::nn::Relu{}};
gw::data::Dataset train, test;
gw::Tensor features, targets, images, labels, text;
std::vector<uint8_t> pixels;
std::vector<gw::Feed> feeds;
gw::CheckpointOptions options;
int argc;
char** argv;
"""

# In some examples a session is an absl::StatusOr. Examples may have variables of the same names.
CPP_FUNCTION = """
absl::Status Example%d(%s& session) {
{
%s
}
return absl::OkStatus();
}
"""

C_CONTEXT = """
#include <stdio.h>
float pixels[784];
"""


def read(path):
    with open(os.path.join(ROOT, path)) as file:
        return file.read()


def examples(text):
    """Returns the blocks of code in the comments."""
    blocks, block = [], []
    for line in text.split("\n") + [""]:
        match = LINE.match(line)
        if match:
            block.append(match.group(1) or "")
            continue
        code = "\n".join(block).strip("\n")
        if LIBRARY.search(code):
            blocks.append(code)
        block = []
    return blocks


def without_gaps(code):
    """Returns the code without what it leaves out."""
    code = re.sub(r"^ *\.\.\.$", "", code, flags=re.MULTILINE)
    code = re.sub(r"\breturn \.\.\.[^;]*;", "return gw::NamedTensors();", code)
    code = re.sub(r"for \(\.\.\.\)", "for (;;)", code)
    code = re.sub(r"= \.\.\.;", "= 0;", code)
    code = re.sub(r"\{ \.\.\. \}", "{}", code)
    return re.sub(r" \.\.\.$", " {}", code, flags=re.MULTILINE)


def compiles(compiler, name, text, folder):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    # Examples leave out what is done with results.
    return subprocess.run([*compiler, "-w", "-fsyntax-only", "-I" + folder, path], check=False).returncode == 0


def main():
    lists = {}
    exec(read("public_headers.bzl").split("def ")[0], lists)  # pylint: disable=exec-used
    headers = lists["PUBLIC_HEADERS"] + lists["SEPARATE_PUBLIC_HEADERS"]
    c_header = "frontend/c/gradweave.h"
    cpp = "".join('#include "gradweave/%s"\n' % header for header in ["gradweave.h"] + headers) + CPP_CONTEXT
    count = 0
    for header in headers:
        for code in examples(read(header)) if header != c_header else []:
            count += 1
            session = "absl::StatusOr<gw::Session>" if re.search(r"session->|\*session", code) else "gw::Session"
            code = "#line 1 \"%s, example %d\"\n%s" % (header, count, without_gaps(code))
            cpp += CPP_FUNCTION % (count, session, code)
    c_examples = examples(read(c_header))
    c = '#include "gradweave/%s"\n%svoid example(void) {\n%s\n}\n' % (c_header, C_CONTEXT, "\n".join(c_examples))
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(ROOT, os.path.join(folder, "gradweave"))
        good = compiles(["g++", "-std=c++20"], "examples.cc", cpp, folder)
        good = compiles(["gcc", "-std=c11"], "examples.c", c, folder) and good
    if count < 15 or not c_examples:
        sys.exit("found only %d examples" % count)
    sys.exit(0 if good else 1)


main()
