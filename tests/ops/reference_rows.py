"""Operands of the scripts that make reference numbers, and the form in which they print results."""

import numpy as np


def waves(*sizes, phase=1, scale=2, shift=0):
    """The operands of the test: float32 numbers, with which both compute in float64."""
    count = int(np.prod(sizes))
    numbers = scale * np.sin(phase + 1.7 * np.arange(count)) + shift
    return numbers.astype(np.float32).astype(np.float64).reshape(sizes)


def text(number):
    shown = f"{number:.17g}"
    return shown if float(repr(number)) != float(f"{number:.15g}") else f"{number:.15g}"


def print_rows(rows):
    """Prints a line of C++ for each result: its name, its sizes and its numbers."""
    for name, row in rows.items():
        numbers = np.asarray(row, np.float64)
        sizes = ", ".join(str(size) for size in numbers.shape)
        lines, line = [], f'{{"{name}", {{{{{sizes}}}, {{'
        for i, number in enumerate(numbers.ravel()):
            piece = text(float(number)) + ("" if i + 1 == numbers.size else ",")
            if len(line) + len(piece) > 116:
                lines.append(line.rstrip())
                line = " "
            line += piece + " "
        lines.append(line.rstrip() + "}}},")
        print("\n".join(lines))
