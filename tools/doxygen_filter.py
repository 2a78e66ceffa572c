"""Turns the comments of a header into those that Doxygen reads. Lines keep their numbers.

A comment before a declaration documents it, and so does one behind it in its line. Lines that are indented by three
spaces or more are code. Nothing in a comment is a command of Doxygen.
"""

import re
import sys

COMMENT = re.compile(r"^(\s*)// ?(.*)$")
TRAILING = re.compile(r"^(\s*[^\s/].*?[;,{})]) +// (.*)$")
NO_DOCUMENTATION = re.compile(r"NOLINT|clang-format")


def escaped(text):
    """Returns the text without commands and lists of Doxygen."""
    text = re.sub(r"([\\@<>#%&$])", r"\\\1", text).replace("::", "\\::")
    return re.sub(r"^(\s*)-(?=\s)", r"\1&minus;", text)


def filtered(lines):
    """Returns the lines with Doxygen's comments."""
    output, in_comment, in_code = [], False, False
    for number, line in enumerate(lines):
        match = COMMENT.match(line)
        if match and not NO_DOCUMENTATION.search(line):
            indent, text = match.groups()
            is_code = text.startswith("  ") or (in_code and not text.strip())
            following = COMMENT.match(lines[number + 1]) if number + 1 < len(lines) else None
            begins, ends = is_code and not in_code, is_code and not (following and (
                following.group(2).startswith("  ") or not following.group(2).strip()))
            if is_code:
                text = ("@code{.cpp} " if begins else "") + text + (" @endcode" if ends else "")
                in_code = not ends
            else:
                text = escaped(text)
                in_code = False
            output.append("%s/// %s" % (indent, text))
            in_comment = True
            continue
        in_comment = in_code = False
        match = TRAILING.match(line)
        if match and not NO_DOCUMENTATION.search(line):
            line = "%s ///< %s" % (match.group(1), escaped(match.group(2)))
        output.append(line)
    return output
