#!/usr/bin/python3
"""Checks SECURITY.md: the tests that it names exist, and its limits are the constants of the sources."""

import os
import re
import sys

ROOT = os.path.dirname(os.path.realpath("WORKSPACE"))  # The sources: Bazel gives a test a link to WORKSPACE.
UNITS = {"KiB": 10, "MiB": 20, "GiB": 30}


def read(path):
    with open(os.path.join(ROOT, path), errors="replace") as file:
        return file.read()


def tests_in_sources():
    names = set()
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(("bazel-", ".git"))]
        for name in files:
            if name.endswith("_test.cc"):
                text = read(os.path.join(folder, name))
                names |= {"%s.%s" % test for test in re.findall(r"^TEST(?:_F|_P)?\((\w+), (\w+)\)", text, re.MULTILINE)}
    return {name for name in names if "DISABLED_" not in name}


def rows(page, heading):
    """The cells of the table of a section, without its head."""
    section = re.search(r"^## %s$(.*?)(?=^## |\Z)" % heading, page, re.MULTILINE | re.DOTALL).group(1)
    lines = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def number_of(text):
    """What a person wrote: "8 GiB", "2^48" or "1,024"."""
    power = re.fullmatch(r"2\^(\d+)", text)
    if power:
        return 2**int(power.group(1))
    count, _, unit = text.partition(" ")
    return int(count.replace(",", "")) << (UNITS[unit] if unit else 0)


def value_of(expression):
    """The value of a C++ expression of integers, such as "int64_t{8} << 30"."""
    plain = re.sub(r"int64_t\{(\d+)\}", r"\1", expression).replace("'", "").strip()
    if not re.fullmatch(r"[\d\s<*+-]+", plain):
        raise ValueError("'%s' is no expression of integers" % expression)
    return eval(plain)  # pylint: disable=eval-used


def check_promises(page):
    known = tests_in_sources()
    table = rows(page, "The promise")
    for promise, tests in table:
        names = re.findall(r"`([^`]+)`", tests)
        if not names:
            yield "no test holds this promise: %s" % promise
        for name in names:
            if name not in known:
                yield "there is no test %s" % name
    if len(table) < 10:
        yield "there are only %d promises" % len(table)


def check_limits(page):
    table = rows(page, "Limits")
    for what, default, place in table:
        name, path = re.fullmatch(r"`(\w+)` in `([^`]+)`", place).groups()
        values = re.findall(r"\b%s\s*=\s*([^;,)]+)" % name, read(path))
        if not values:
            yield "%s has no %s" % (path, name)
        for value in values:
            if value_of(value) != number_of(default):
                yield "%s: %s is %s, and the page says %s" % (what, name, value, default)
    if len(table) < 10:
        yield "there are only %d limits" % len(table)


def main():
    page = read("SECURITY.md")
    errors = [*check_promises(page), *check_limits(page)]
    print("\n".join("SECURITY.md: " + error for error in errors))
    sys.exit(1 if errors else 0)


main()
