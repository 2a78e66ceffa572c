"""A library that `bazel run` runs as well."""

def _runnable_library_impl(ctx):
    link = ctx.actions.declare_file(ctx.label.name + "_command")
    ctx.actions.symlink(output = link, target_file = ctx.executable.program, is_executable = True)
    return [
        ctx.attr.library[CcInfo],
        DefaultInfo(executable = link, runfiles = ctx.attr.program[DefaultInfo].default_runfiles),
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
