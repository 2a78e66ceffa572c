#!/usr/bin/python3
"""What the installed headers declare is in the installed libraries, and a program that uses them is linked.

  headers_test INSTALLATION.tar public_headers.bzl
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import unittest

sys.path.insert(0, os.path.abspath("tests/install"))
import declarations  # noqa: E402, pylint: disable=wrong-import-position

QUALIFIED_NAME = re.compile(r"((?:\w+::)*(?:operator(?:\(\)|\[\]|[^\s\w(]+)|~?\w+))(?:\(|$)")

# Takes one function of each header that is not in gradweave.h, and of the library itself.
PROGRAM = """
#include <iostream>

int main(int argc, char** argv) {
  const auto group = gw::distributed::Init(&argc, &argv);
  if (!group.ok()) return 2;
  std::cout << (*group)->processes() << " process, " << gw_version() << "\\n"
            << gw::onnx::Import("none.onnx").status().message() << "\\n"
            << gw::data::ReadImageFolder("none").status().message() << std::endl;
  gw::Graph graph;
  return gw::Session::Create(graph).ok() ? 0 : 1;
}
"""


def read(path):
    with open(path) as file:
        return file.read()


def public_headers():
    """Returns the lists of headers in public_headers.bzl."""
    lists = {}
    exec(read(sys.argv[2]).split("def ")[0], lists)  # pylint: disable=exec-used
    return lists["PUBLIC_HEADERS"], lists["SEPARATE_PUBLIC_HEADERS"]


def defined_functions(library, *flags):
    output = subprocess.run(["nm", "--demangle", "--defined-only", "--format=posix", *flags, library],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True).stdout
    names = [re.split(r" [TWV] |@@", line)[0] for line in output.replace("[abi:cxx11]", "").splitlines()]
    return {match.group(1) for match in map(QUALIFIED_NAME.match, names) if match}


class Headers(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.prefix = cls.folder.name
        with tarfile.open(sys.argv[1]) as files:
            files.extractall(cls.prefix)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_public_headers_are_installed(self):
        for header in ["gradweave.h"] + sum(public_headers(), []):
            self.assertTrue(os.path.exists(os.path.join(self.prefix, "include/gradweave", header)), header)

    def test_declared_functions_are_defined(self):
        archive = defined_functions(os.path.join(self.prefix, "lib/libgradweave.a"))
        shared = defined_functions(os.path.join(self.prefix, "lib/libgradweave.so"), "--dynamic")
        count = 0
        for folder, _, names in os.walk(os.path.join(self.prefix, "include")):
            for name in names:
                declared = declarations.declared_functions(read(os.path.join(folder, name)))
                count += len(declared)
                missing = [function for function in declared if function not in archive]
                if folder.endswith("/frontend/c"):
                    missing += [function for function in declared if function not in shared]
                self.assertEqual(missing, [], os.path.relpath(os.path.join(folder, name), self.prefix))
        self.assertGreater(count, 400)

    def test_a_program_with_all_headers_is_linked_and_runs(self):
        public, separate = public_headers()
        source = os.path.join(self.prefix, "all.cc")
        with open(source, "w") as file:
            headers = public + separate + ["gradweave.h"]
            file.write("".join('#include "gradweave/%s"\n' % header for header in headers) + PROGRAM)
        environment = {**os.environ, "PKG_CONFIG_PATH": os.path.join(self.prefix, "lib/pkgconfig")}
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "gradweave-distributed"], env=environment,
                               check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        program = os.path.join(self.prefix, "all")
        subprocess.run(["g++", "-std=c++20", source, *flags, "-o", program], check=True)
        output = subprocess.run([program], stdout=subprocess.PIPE, check=True, text=True, cwd=self.prefix).stdout
        self.assertRegex(output, r"1 process, \d+\.\d+\.\d+\nnone.onnx: .*\nnone: .*\n")


class Declarations(unittest.TestCase):

    def test_what_the_header_defines_is_no_declaration(self):
        text = """
            #define MACRO(x) void Macro(int);
            namespace a {
            // void Comment(int);
            struct Base { virtual int Pure() const = 0; virtual ~Base() = default; int Inline() { return f(1); } };
            template <typename T> T Template(T x);
            inline int Small(int x) { return x; }
            using Function = int(int);
            const int numbers[] = {1, 2};
            std::function<int(double)> member;
            int (*pointer)(int);
            }
        """
        self.assertEqual(declarations.declared_functions(text), [])

    def test_declarations_have_qualified_names(self):
        text = """
            namespace a::b {
            class C : public Base {
             public:
              explicit C(int x = 1, std::vector<int> y = {1, 2});
              ~C();
              [[nodiscard]] std::map<int, std::pair<int, int>> Find(const char* text = "a;b") const;
              C& operator=(C&& other) noexcept;
              int size() const { return size_; }
             private:
              int size_ = 0;
            };
            bool operator<(const C& x, const C& y);
            }
            extern "C" {
            int plain(void);
            }
        """
        self.assertEqual(declarations.declared_functions(text), [
            "a::b::C::C", "a::b::C::~C", "a::b::C::Find", "a::b::C::operator=", "a::b::operator<", "plain"])


unittest.main(argv=sys.argv[:1])
