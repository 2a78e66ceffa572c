#!/usr/bin/python3
"""The manual pages of the command say what its --help says, and groff formats them without a warning.

  man_pages_test COMMAND
"""

import os
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.abspath("tools"))
import man_pages  # noqa: E402, pylint: disable=wrong-import-position

COMMAND = os.path.abspath(sys.argv[1])


def formatted(page):
    """Returns the page as plain text, in long lines without hyphenation, and what groff complains about."""
    result = subprocess.run(["groff", "-man", "-Tascii", "-P-cbou", "-rHY=0", "-rLL=400n", "-wall"], input=page,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True, text=True)
    return result.stdout, result.stderr


def words(text):
    return [word.lower() for word in text.split()]


class ManPages(unittest.TestCase):

    def setUp(self):
        if not shutil.which("groff"):
            self.skipTest("groff is missing")

    def help_text(self, *arguments):
        return subprocess.run([COMMAND, *arguments, "--help"], stdout=subprocess.PIPE, check=True, text=True).stdout

    def test_each_subcommand_has_a_page_with_the_words_of_its_help(self):
        pages = man_pages.pages(COMMAND)
        subcommands = [line.split()[0] for line in self.help_text().split("\n\n")[1].splitlines()]
        self.assertGreater(len(subcommands), 8)
        self.assertEqual(sorted(pages), sorted(["gradweave.1"] + ["gradweave-%s.1" % name for name in subcommands]))
        for name in subcommands:
            page, complaints = formatted(pages["gradweave-%s.1" % name])
            self.assertEqual(complaints, "")
            usage, summary, *rest = self.help_text(name).splitlines()
            # The summary ends with a point, as the sentences after it do.
            expected = words(usage) + words(summary + ".") + words("\n".join(rest).replace("\nflags\n", "\noptions\n"))
            start = page.index("gradweave " + name)
            self.assertEqual([word for word in words(page[start:page.index("SEE ALSO")]) if word != "description"],
                             expected)

    def test_the_page_of_the_command_lists_subcommands(self):
        page, complaints = formatted(man_pages.pages(COMMAND)["gradweave.1"])
        self.assertEqual(complaints, "")
        for line in self.help_text().splitlines():
            for word in words(line):
                self.assertIn(word.strip(":"), page.lower())
        self.assertIn("gradweave-inspect(1)", page)

    def test_what_groff_would_read_as_a_request_is_text(self):
        text = ("gradweave odd FILE [flags]\n  Shows \\n and -x\n\n.TH is no request,\n'so is this.\n\n"
                "flags\n  -o FILE  It's.\n")
        page, complaints = formatted(man_pages.page_of_subcommand(text, "1.2.3"))
        self.assertEqual(complaints, "")
        self.assertIn("gradweave-odd - shows \\n and -x", page)
        self.assertIn(".TH is no request, 'so is this.", page)
        self.assertIn("It's.", page)
        self.assertIn("Gradweave 1.2.3", page)


unittest.main(argv=sys.argv[:1])
