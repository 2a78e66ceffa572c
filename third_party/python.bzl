"""A repository for the installed Python and pybind11, from which //frontend/python is built.

It is empty if there are no headers of both (Debian: python3-dev, pybind11-dev): the build goes on without the module.
"""

# Prints the folders of both headers, a line each, or fails.
_SCRIPT = """\
import os, sys, sysconfig
python = sysconfig.get_paths()["include"]
try:
    import pybind11
    pybind = pybind11.get_include()
except ImportError:
    pybind = "/usr/include"
for header in (python + "/Python.h", pybind + "/pybind11/pybind11.h"):
    if not os.path.exists(header): sys.exit(header)
print(python)
print(pybind + "/pybind11")
"""

_BUILD = """\
package(default_visibility = ["//visibility:public"])

cc_library(
    name = "python_headers",
    hdrs = glob(["include/**"]),
    includes = ["include/python", "include"],
)
"""

def _python_impl(ctx):
    chosen = ctx.os.environ.get("GRADWEAVE_PYTHON", "")
    candidates = ["/usr/bin/python3", ctx.which("python3")] if not chosen else [chosen] if chosen != "0" else []
    for candidate in candidates:
        if not candidate:
            continue
        answer = ctx.execute([candidate, "-c", _SCRIPT])
        if answer.return_code:
            continue
        python, pybind = answer.stdout.strip().split("\n")
        ctx.symlink(python, "include/python")
        ctx.symlink(pybind, "include/pybind11")
        ctx.file("defs.bzl", "PYTHON = %s\n" % repr(str(candidate)), executable = False)
        ctx.file("BUILD", _BUILD, executable = False)
        return
    if chosen not in ["", "0"]:
        fail("$GRADWEAVE_PYTHON is %s, which has no headers of Python and pybind11" % chosen)
    ctx.file("defs.bzl", "PYTHON = \"\"\n", executable = False)
    ctx.file("BUILD", "", executable = False)

python = repository_rule(
    implementation = _python_impl,
    environ = ["GRADWEAVE_PYTHON", "PATH"],
    # Checks again whenever the Bazel server starts, because Bazel does not notice new or removed
    # packages.
    local = True,
    doc = "The system's Python, or that of $GRADWEAVE_PYTHON. $GRADWEAVE_PYTHON=0 builds without it.",
)
