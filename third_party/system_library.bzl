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

# Parts of the C library. A portable binary uses those of the machine on which it runs.
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
    """Returns True if the linker would find lib<library>.a."""
    file_name = "lib%s.a" % library
    for folder in folders:
        if ctx.path(folder).get_child(file_name).exists:
            return True
    name = ctx.os.environ.get("CC", "gcc")  # A path or a name.
    compiler = name if "/" in name else ctx.which(name) or ctx.which("cc")
    if not compiler:
        return False

    # The compiler prints the bare name if it finds no file.
    answer = ctx.execute([compiler, "-print-file-name=" + file_name]).stdout.strip()
    return answer.startswith("/")

def _alias_linkopts(ctx, folders):
    """Returns flags that make one symbol stand for another, if the archives of the library define both."""
    nm = ctx.which("nm")
    if not ctx.attr.static_aliases or not nm:
        return []
    known = {}
    for module in ctx.attr.modules:
        for folder in folders:
            archive = ctx.path(folder).get_child("lib%s.a" % module)
            if archive.exists:
                for line in ctx.execute([nm, "-g", "--defined-only", archive]).stdout.split("\n"):
                    known[line.split(" ")[-1]] = True
    return [
        "-Wl,--defsym=%s=%s" % (symbol, substitute)
        for symbol, substitute in ctx.attr.static_aliases.items()
        if symbol in known and substitute in known
    ]

def _static_linkopts(ctx):
    """Returns the linkopts, with archives instead of shared libraries where archives exist."""
    words = _pkg_config(ctx, "--static", "--libs") + ["-l" + library for library in ctx.attr.static_needs]
    folders = [word[2:] for word in words if word.startswith("-L")]
    result = []
    for word in words:
        library = word[2:] if word.startswith("-l") and not word.startswith("-l:") else None
        if library and library not in _C_LIBRARY and _find_archive(ctx, library, folders):
            word = "-l:lib%s.a" % library
        result.append(word)

    # Links the C++ library statically too, because the machine may have an older one. --as-needed
    # then drops the shared library that the toolchain adds at the end.
    return _alias_linkopts(ctx, folders) + result + ["-l:libstdc++.a", "-static-libgcc", "-Wl,--as-needed"]

def _system_library_impl(ctx):
    linkopts = _pkg_config(ctx, "--libs")

    # Headers outside of the compiler's own folders need -I, which Bazel allows only inside a
    # repository.
    includes = []
    defines = []
    for word in _pkg_config(ctx, "--cflags"):
        if word.startswith("-I"):
            include = "include/%d" % len(includes)
            ctx.symlink(word[2:], include)
            includes.append(include)
        elif word.startswith("-D"):
            defines.append(word[2:])

    # Bazel does not track system headers. This define makes a new version of the library recompile
    # its users.
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
        "debian_package": attr.string(doc = "The package to install if the library is missing."),
        "modules": attr.string_list(doc = "The names of the library in pkg-config."),
        "programs": attr.string_list(doc = "Programs of the library that the build runs."),
        "static_aliases": attr.string_dict(doc = "Symbol of the archive -> symbol to link in its place."),
        "static_needs": attr.string_list(doc = "Libraries that the archive needs and that pkg-config may not name."),
    },
    environ = ["CC", "PATH", "PKG_CONFIG_LIBDIR", "PKG_CONFIG_PATH", "PKG_CONFIG_SYSROOT_DIR"],
    # Checks again whenever the Bazel server starts, because Bazel does not notice new or removed
    # packages.
    local = True,
    doc = "The library is the target with the name of the repository. It links archives under --config=portable.",
)
