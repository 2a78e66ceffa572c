"""A library that `bazel run` runs as well."""

def _runnable_library_impl(ctx):
    program = ctx.executable.program
    start = ctx.actions.declare_file(ctx.label.name + "_command")

    # Whatever depends on an executable target gets the executable with it. So the executable is a
    # short script, and the program is an output that only a build of this target makes. The program
    # lies in the target's folder or below it.
    ctx.actions.write(
        start,
        '#!/bin/sh\nexec "$(dirname "$(readlink -f "$0")")/{}" "$@"\n'.format(program.path[len(start.dirname) + 1:]),
        is_executable = True,
    )
    return [
        ctx.attr.library[CcInfo],
        DefaultInfo(executable = start, files = depset([start, program])),
    ]

# Targets that depend on this one get the library, and do not build the program.
runnable_library = rule(
    implementation = _runnable_library_impl,
    attrs = {
        "library": attr.label(mandatory = True, providers = [CcInfo]),
        "program": attr.label(mandatory = True, executable = True, cfg = "target"),
    },
    executable = True,
)
