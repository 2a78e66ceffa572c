#!/usr/bin/python3
"""Checks the pages: links and paths lead to files, names in code style occur in the sources, prose wraps at 100 columns."""

import os
import re
import sys

ROOT = os.path.dirname(os.path.realpath("WORKSPACE"))  # The sources: Bazel gives a test a link to WORKSPACE.
SOURCES = (".h", ".cc", ".cu", ".py", ".sh", ".bzl", ".proto", ".bazel", ".bazelrc")
PAGE = re.compile(r"((docs(/tutorial)?|benchmarks)/)?\w+\.md")
MOST_COLUMNS = 100


def find_files():
    files = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(("bazel-", ".git"))]
        files += [os.path.relpath(os.path.join(folder, name), ROOT) for name in names]
    return sorted(files)


def read(path):
    with open(os.path.join(ROOT, path), errors="replace") as file:
        return file.read()


def words_of(text):
    return set(re.findall(r"\w+", text))


class Checker:
    def __init__(self, files):
        self.files = files
        self.words = set()
        for path in files:
            if path.endswith(SOURCES) or path.startswith("tools/"):
                self.words |= words_of(read(path))
        self.errors = []

    def check_page(self, page):
        text = read(page)
        blocks = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
        known = self.words | words_of("".join(block.group() for block in blocks.finditer(text)))
        # Blocks of code become empty lines, so that later lines keep their numbers.
        text = blocks.sub(lambda block: "\n" * block.group().count("\n"), text)
        text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)

        def report(position, message):
            self.errors.append("%s:%d: %s" % (page, text.count("\n", 0, position) + 1, message))

        for line in re.finditer(r"^.*$", text, re.MULTILINE):
            if len(line.group()) > MOST_COLUMNS and not line.group().startswith(("|", "![")):
                report(line.start(), "%d columns" % len(line.group()))
        for link in re.finditer(r"\]\(([^)#]+)", text):
            target = os.path.normpath(os.path.join(os.path.dirname(page), link.group(1)))
            if "://" not in link.group(1) and not os.path.exists(os.path.join(ROOT, target)):
                report(link.start(), "a link to %s, which does not exist" % target)
        for code in re.finditer(r"`([^`]+)`", text):
            message = self.check_code(code.group(1).replace("\n", " "), known)
            if message:
                report(code.start(), message)

    def check_code(self, code, known):
        """Returns what is wrong with text in code style, if it is a path, a file, a label or names of the sources."""
        if re.fullmatch(r"[\w.]+(/[\w.]+)*/?", code) and "/" in code:
            return "" if os.path.exists(os.path.join(ROOT, code)) else "there is no %s" % code
        if re.fullmatch(r"\w+\.(h|cc|cu|py|sh|md|proto)", code):
            found = any(path == code or path.endswith("/" + code) for path in self.files)
            return "" if found else "no file has the name %s" % code
        if re.fullmatch(r"//[\w/]*:\w+", code):
            package, name = code[2:].split(":")
            build = os.path.join(package, "BUILD.bazel")
            found = build in self.files and '"%s"' % name in read(build)
            return "" if found else "there is no target %s" % code
        if re.fullmatch(r"([A-Z]\w*|k[A-Z]\w+|cuda_\w+)(::\w+)*(\(\))?", code):
            missing = words_of(code) - known
            return "the sources have no %s" % ", ".join(sorted(missing)) if missing else ""
        return ""


def main():
    files = find_files()
    # Another test checks docs/ops.md against the definitions that it is made from.
    pages = [path for path in files if PAGE.fullmatch(path) and path != "docs/ops.md"]
    if len(pages) < 8:
        sys.exit("found only these pages: %s" % pages)
    checker = Checker(files)
    for page in pages:
        checker.check_page(page)
    print("\n".join(checker.errors))
    sys.exit(1 if checker.errors else 0)


main()
