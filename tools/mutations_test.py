#!/usr/bin/python3
"""Which faults tools/mutate finds in given lines, and what it does to them."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__))))
import mutations  # noqa: E402, pylint: disable=wrong-import-position


def faults(text, kind=None):
    """The lines that the faults of this kind make of the text."""
    found = mutations.find_mutations(text)
    return [mutations.apply(text, mutation) for mutation in found if kind in (None, mutation.kind)]


def faults_in_function(line, kind=None):
    start = "void f() { "
    return [text[len(start):-2] for text in faults(start + line + " }", kind)]


class Operators(unittest.TestCase):

    def test_each_becomes_another(self):
        for old, new in [("<", "<="), (">=", ">"), ("==", "!="), ("+", "-"), ("*", "+"), ("%", "+"), ("&&", "||"),
                         ("<<", ">>"), ("|", "&")]:
            self.assertEqual(faults("bool y = a %s b;" % old), ["bool y = a %s b;" % new])
        self.assertEqual(faults_in_function("x += y;", "operator"), ["x -= y;"])
        self.assertEqual(faults_in_function("++x;", "operator"), ["--x;"])

    def test_brackets_references_and_signs_are_none(self):
        for text in ["std::vector<std::pair<int, A*>> f(const T& x, T&& y, T* z);", "template <typename T, typename = void> struct A;",
                     "x = -y;", "x = *y;", "x = &y;", "p->q;", "void operator=(A);"]:
            self.assertEqual(faults(text, "operator"), [], text)

    def test_every_one_of_a_line_is_a_fault_of_its_own(self):
        self.assertEqual(faults("int y = a + b * c;"), ["int y = a - b * c;", "int y = a + b + c;"])


class Constants(unittest.TestCase):

    def test_become_others(self):
        for old, new in [("0", "1"), ("41", "42"), ("0x1F", "(0x1F + 1)"), ("1'000", "(1'000 + 1)"), ("7u", "(7u + 1)"),
                         ("0.5", "(0.5 * 2)"), ("0.0f", "(0.0f + 1)"), ("1e-6", "(1e-6 * 2)"), ("0x1p-24f", "(0x1p-24f * 2)"),
                         (".5", "(.5 * 2)"), ("0xe5", "(0xe5 + 1)"), ("true", "false"), ("false", "true")]:
            self.assertEqual(faults("auto y = %s;" % old), ["auto y = %s;" % new])

    def test_digits_of_names_are_none(self):
        self.assertEqual(faults("int32_t x2 = kFloat32;"), [])


class Conditions(unittest.TestCase):

    def test_are_negated(self):
        self.assertEqual(faults("if (x.ok()) y;", "condition"), ["if (!(x.ok())) y;"])
        self.assertEqual(faults("while (a(b)) y;", "condition"), ["while (!(a(b))) y;"])
        self.assertEqual(faults("if constexpr (kIs<T>) y;", "condition"), ["if constexpr (!(kIs<T>)) y;"])
        self.assertEqual(faults("if (auto s = f(a, b); !s.ok()) y;", "condition"),
                         ["if (auto s = f(a, b); !(!s.ok())) y;"])


class Statements(unittest.TestCase):

    def test_calls_assignments_and_jumps_are_removed(self):
        for line in ["f(x, y);", "a.b().c = d;", "x[i] += f(y);", "++x;", "x++;", "*p = 3;", "ns::g();", "continue;",
                     "p->q(r);", "(*f)(x);"]:
            self.assertEqual(faults_in_function("a(); " + line, "statement"), ["; " + line, "a(); ;"], line)

    def test_the_statement_of_a_condition_leaves_an_empty_one(self):
        self.assertEqual(faults_in_function("if (x) f();", "statement"), ["if (x) ;"])
        self.assertEqual(faults_in_function("if (x) return; else f();", "statement"), ["if (x) return; else ;"])

    def test_a_whole_call_with_a_lambda_is_one(self):
        self.assertEqual(faults_in_function("each(x, [&](int i) { return i; });", "statement"), [";"])

    def test_declarations_and_returns_stay(self):
        for line in ["int x;", "int x = f();", "const auto& x = y;", "std::vector<int> v(x);", "return f(x);",
                     "using ns::name;", "Foo x(y);", "Foo* x = y;"]:
            self.assertEqual(faults_in_function(line, "statement"), [], line)

    def test_members_and_globals_stay(self):
        for text in ["struct A { A(int); void f(); };", "namespace n { DEFINE(x); }", "REGISTER(y);"]:
            self.assertEqual(faults(text, "statement"), [], text)


class WhatIsLeftOut(unittest.TestCase):

    def test_comments_strings_and_directives(self):
        for text in ["// if (a < b) 3\n", "/* x = 1;\n y = 2; */", '#include <a-b/1.h>\n', "#define A(x) \\\n  (x + 1)\n",
                     'auto s = "a < 1 \\" + 2";', "auto s = R\"x(1 + 2)\" + 3)x\";", "char c = '1';", "char c = '\\'';"]:
            self.assertEqual(faults(text), [], text)

    def test_messages_and_checks(self):
        for text in ['auto e = absl::InvalidArgumentError(absl::StrCat("is ", a + 1));', 'auto s = StrCat(a ? 1 : 2);',
                     "static_assert(sizeof(T) == 4);", "GW_CHECK(a < b);", "[[gnu::aligned(8)]] int x;"]:
            self.assertEqual(faults(text), [], text)

    def test_a_removed_error_is_a_fault_all_the_same(self):
        self.assertEqual(faults_in_function("graph.RecordError(absl::InvalidArgumentError(1));"), [";"])


class Places(unittest.TestCase):

    def test_are_described(self):
        text = "int x = 1;\nint y = a\n    + b;\n"
        one, plus = mutations.find_mutations(text)
        self.assertEqual((mutations.line_of(text, one), mutations.describe(text, one)), (1, "'1' becomes '2'"))
        self.assertEqual((mutations.line_of(text, plus), mutations.describe(text, plus)), (3, "'+' becomes '-'"))
        text = "void f() {\n  g(1,\n    2);\n}"
        self.assertEqual(mutations.describe(text, mutations.find_mutations(text)[0]), "'g(1, 2);' removed")

    def test_text_that_is_not_complete_is_no_error(self):
        for text in ["", "if", "if (", "f(", "}", "x = (1", "template <", '"', "a[["]:
            mutations.find_mutations(text)


unittest.main(argv=sys.argv[:1])
