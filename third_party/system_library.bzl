"""A repository for a library that the system has installed, found with pkg-config."""

_BUILD = """\
cc_library(
    name = "headers",
    defines = {defines},
    hdrs = glob(["include/**"]),
    includes = {includes},
    visibility = ["//visibility:public"],
)

cc_library(
    name = "{name}",
    deps = [":headers"],
    linkopts = select({{
        "@gradweave//third_party:portable": {static_linkopts},
        "//conditions:default": {linkopts},
    }}),
    visibility = ["//visibility:public"],
)

exports_files({programs})
"""

# Part of the C library, which a portable binary takes from the machine it runs on.
_C_LIBRARY = ["c", "dl", "m", "pthread", "rt"]

def _pkg_config(ctx, *args):
    program = ctx.which("pkg-config")
    if not program:
        fail("pkg-config is needed to find the system's libraries: install pkg-config")
    result = ctx.execute([program] + list(args) + ctx.attr.modules)
    if result.return_code:
        fail("%s was not found: install %s\n%s" % (ctx.name, ctx.attr.debian_package, result.stderr))
    return [word for word in result.stdout.replace("\n", " ").split(" ") if word]

def _find_archive(ctx, library, folders):
    """Whether lib<library>.a is where the linker would look."""
    file_name = "lib%s.a" % library
    for folder in folders:
        if ctx.path(folder).get_child(file_name).exists:
            return True
    compiler = ctx.which(ctx.os.environ.get("CC", "gcc")) or ctx.which("cc")
    if not compiler:
        return False

    # The compiler answers with the bare name where it finds nothing.
    answer = ctx.execute([compiler, "-print-file-name=" + file_name]).stdout.strip()
    return answer.startswith("/")

def _static_linkopts(ctx):
    """The linkopts with an archive in place of each shared library that has one."""
    words = _pkg_config(ctx, "--static", "--libs") + ["-l" + library for library in ctx.attr.static_needs]
    folders = [word[2:] for word in words if word.startswith("-L")]
    result = []
    for word in words:
        library = word[2:] if word.startswith("-l") and not word.startswith("-l:") else None
        if library and library not in _C_LIBRARY and _find_archive(ctx, library, folders):
            word = "-l:lib%s.a" % library
        result.append(word)

    # The C++ library as well: a machine may have an older one. What the toolchain names at the end is left out then.
    return result + ["-l:libstdc++.a", "-static-libgcc", "-Wl,--as-needed"]

def _system_library_impl(ctx):
    linkopts = _pkg_config(ctx, "--libs")

    # Headers beside the compiler's own folders need a -I, and Bazel allows that only inside a repository.
    includes = []
    defines = []
    for word in _pkg_config(ctx, "--cflags"):
        if word.startswith("-I"):
            include = "include/%d" % len(includes)
            ctx.symlink(word[2:], include)
            includes.append(include)
        elif word.startswith("-D"):
            defines.append(word[2:])

    # System headers are no inputs that Bazel watches; this makes a new version of the library a new compilation.
    version = "_".join(_pkg_config(ctx, "--modversion")[:1])
    defines.append("GRADWEAVE_%s=%s" % (ctx.name.upper(), repr(version).replace('"', "")))

    for program in ctx.attr.programs:
        path = ctx.which(program)
        if not path:
            fail("%s was not found: install %s" % (program, ctx.attr.debian_package))
        ctx.symlink(path, program)

    ctx.file("BUILD", _BUILD.format(
        name = ctx.name,
        defines = repr(defines),
        includes = repr(includes),
        linkopts = repr(linkopts),
        static_linkopts = repr(_static_linkopts(ctx)),
        programs = repr(ctx.attr.programs),
    ), executable = False)

system_library = repository_rule(
    implementation = _system_library_impl,
    attrs = {
        "debian_package": attr.string(doc = "What to install where it is missing."),
        "modules": attr.string_list(doc = "pkg-config's names."),
        "programs": attr.string_list(doc = "Programs of the library that the build runs."),
        "static_needs": attr.string_list(doc = "Libraries that the archive needs and pkg-config may not name."),
    },
    environ = ["CC", "PATH", "PKG_CONFIG_PATH"],
    # Look again whenever the Bazel server starts: packages come and go without Bazel noticing.
    local = True,
    doc = "The library is the target of the same name as the repository; it links archives under --config=portable.",
)
