#!/usr/bin/python3
"""The pages of the public headers are made without a warning, and have the comments of the headers."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TOOLS = os.path.abspath("tools")
sys.path.insert(0, TOOLS)
import doxygen_filter  # noqa: E402, pylint: disable=wrong-import-position


class Filter(unittest.TestCase):

    def filtered(self, text):
        return "\n".join(doxygen_filter.filtered(text.split("\n")))

    def test_comments_document_what_follows_and_what_is_before_them(self):
        self.assertEqual(self.filtered("// The size.\nint size = 1;  // Above 0.\nint f(int x,  // The first.\n"),
                         "/// The size.\nint size = 1; ///< Above 0.\nint f(int x, ///< The first.\n")

    def test_nothing_is_a_command(self):
        self.assertEqual(self.filtered("// a < b, @c, #d, 100% of \\e and gw::Graph."),
                         "/// a \\< b, \\@c, \\#d, 100\\% of \\\\e and gw\\::Graph.")
        self.assertEqual(self.filtered("Sgd();  // NOLINT"), "Sgd();  // NOLINT")

    def test_indented_lines_are_code(self):
        self.assertEqual(self.filtered("// As in\n//   int x = a < b;\n//\n//   f(x);\n// And so on."),
                         "/// As in\n/// @code{.cpp}   int x = a < b;\n/// \n///   f(x); @endcode\n/// And so on.")


class Pages(unittest.TestCase):

    def setUp(self):
        if not shutil.which("doxygen"):
            self.skipTest("doxygen is missing; tools/install doxygen installs it")
        self.folder = tempfile.TemporaryDirectory()

    def tearDown(self):
        self.folder.cleanup()

    def make(self, folder):
        environment = {**os.environ, "BUILD_WORKING_DIRECTORY": self.folder.name}
        return subprocess.run([os.path.join(TOOLS, "html_pages.py"), "--output_dir=" + folder], env=environment,
                              check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def test_pages_have_the_comments(self):
        for _ in range(2):  # The second time they replace those of the first.
            result = self.make("pages")
            self.assertEqual((result.returncode, result.stdout), (0, "pages/index.html\n"))
        with open(os.path.join(self.folder.name, "pages/namespacegradweave.html")) as file:
            text = " ".join(re.sub(r"<[^>]*>", "", file.read()).split())
        self.assertIn("Returns the shape to which the two shapes broadcast", text)

    def test_other_folders_are_left_alone(self):
        os.mkdir(os.path.join(self.folder.name, "mine"))
        result = self.make("mine")
        self.assertEqual((result.returncode, result.stdout), (1, "html: mine exists, and has no such pages\n"))
        self.assertEqual(os.listdir(os.path.join(self.folder.name, "mine")), [])


unittest.main()
