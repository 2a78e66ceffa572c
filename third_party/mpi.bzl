"""A repository for the installed MPI: Open MPI, MPICH or another one with a pkg-config file.

It is empty if there is none: the build goes on, and its programs run on one process.
"""

_MODULES = ["ompi-c", "mpich", "mpi-c", "mpi"]

_BUILD = """\
package(default_visibility = ["//visibility:public"])

# Programs that call nothing of MPI are not linked with it.
cc_library(
    name = "mpi",
    hdrs = glob(["include/**"]),
    includes = {includes},
    linkopts = ["-Wl,--push-state,--as-needed"] + {linkopts} + ["-Wl,--pop-state"],
)
"""

def _mpi_impl(ctx):
    pkg_config = ctx.which("pkg-config")
    found = ctx.which("mpirun") and pkg_config and ctx.os.environ.get("GRADWEAVE_MPI", "") != "0"
    for module in _MODULES if found else []:
        answer = ctx.execute([pkg_config, "--cflags", "--libs", module])
        if answer.return_code:
            continue
        words = [word for word in answer.stdout.replace("\n", " ").split(" ") if word]
        includes = []
        for word in words:
            if word.startswith("-I"):
                include = "include/%d" % len(includes)
                ctx.symlink(word[2:], include)
                includes.append(include)
        ctx.file("defs.bzl", "MPI_FOUND = True\n", executable = False)
        ctx.file("BUILD", _BUILD.format(
            includes = repr(includes),
            linkopts = repr([word for word in words if not word.startswith("-I")]),
        ), executable = False)
        return
    ctx.file("defs.bzl", "MPI_FOUND = False\n", executable = False)
    ctx.file("BUILD", "", executable = False)

mpi = repository_rule(
    implementation = _mpi_impl,
    environ = ["GRADWEAVE_MPI", "PATH", "PKG_CONFIG_LIBDIR", "PKG_CONFIG_PATH"],
    # Checks again whenever the Bazel server starts, because Bazel does not notice new or removed
    # packages.
    local = True,
    doc = "The MPI that pkg-config finds, if mpirun is there too. $GRADWEAVE_MPI=0 builds without it.",
)
