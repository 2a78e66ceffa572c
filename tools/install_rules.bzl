"""What `bazel run //:install` lays out: one archive of the library, and one tar file of all that is installed."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")

def _linker_inputs(deps):
    return depset(transitive = [dep[CcInfo].linking_context.linker_inputs for dep in deps]).to_list()

def _merged_archive_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    archives = []
    for linker_input in _linker_inputs(ctx.attr.deps):
        for library in linker_input.libraries:
            archive = library.static_library or library.pic_static_library
            if archive and archive not in archives:
                archives.append(archive)
    output = ctx.actions.declare_file(ctx.label.name)
    script = "\n".join(["create " + output.path] + ["addlib " + archive.path for archive in archives] + ["save", "end"])
    ctx.actions.run_shell(
        command = "%s -M <<'EOF'\n%s\nEOF" % (toolchain.ar_executable, script),
        inputs = depset(archives, transitive = [toolchain.all_files]),
        outputs = [output],
        mnemonic = "MergeArchives",
        progress_message = "Merging %s" % output.short_path,
    )
    return [DefaultInfo(files = depset([output]))]

merged_archive = rule(
    implementation = _merged_archive_impl,
    attrs = {
        "deps": attr.label_list(providers = [CcInfo]),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
    doc = "One archive of the archives of all libraries that the deps need. Its name is the file's.",
)

# Bazel makes a folder of links for the headers of a library, below which they have the paths of #include.
_LINKS = "_virtual_includes/"

def _link_flags(deps):
    """Returns the flags for what is not in the archives. Of equal flags the last one stays: linkers want that order."""
    flags = []
    for linker_input in _linker_inputs(deps):
        for flag in linker_input.user_link_flags:
            flags.append(flag)
    last = {flag: index for index, flag in enumerate(flags)}
    return [flag for index, flag in enumerate(flags) if last[flag] == index]

def _distributed_link_flags(ctx):
    """Returns the flags that programs of several processes need beside those of the library: MPI's libraries.

    Flags for the linker are left out: they switch off MPI for programs that do not call it.
    """
    known = _link_flags(ctx.attr.deps)
    return [flag for flag in _link_flags([ctx.attr.distributed]) if flag not in known and not flag.startswith("-Wl,")]

def _installation_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    headers = {}
    for dep in ctx.attr.deps:
        for header in dep[CcInfo].compilation_context.headers.to_list():
            if _LINKS in header.path and "/gradweave/" in header.path:
                headers[header.path.split(_LINKS)[1].split("/", 1)[1]] = header
    output = ctx.actions.declare_file(ctx.label.name + ".tar")
    manifest = ctx.actions.declare_file(ctx.label.name + ".json")
    programs = [target[DefaultInfo].files_to_run.executable for target in ctx.attr.programs]
    ctx.actions.write(manifest, json.encode(struct(
        archive = ctx.file.archive.path,
        shared_library = ctx.file.shared_library.path,
        programs = [program.path for program in programs],
        headers = {path: header.path for path, header in headers.items()},
        public_headers = ["gradweave/" + header for header in ctx.attr.public_headers],
        templates = {file.path: "%s/%s" % (folder, file.basename[:-len(".in")]) for target, folder in ctx.attr.templates.items() for file in target.files.to_list()},
        licenses = ctx.attr.licenses,
        license = ctx.file.license.path,
        version = ctx.file.version.path,
        link_flags = _link_flags(ctx.attr.deps),
        distributed_link_flags = _distributed_link_flags(ctx),
        strip = toolchain.strip_executable,
    )))
    ctx.actions.run(
        executable = ctx.executable._tool,
        arguments = [manifest.path, output.path],
        inputs = depset(
            [manifest, ctx.file.archive, ctx.file.shared_library, ctx.file.version, ctx.file.license] + programs + headers.values() + ctx.files.templates,
            transitive = [toolchain.all_files],
        ),
        outputs = [output],
        use_default_shell_env = True,
        mnemonic = "LayOutInstallation",
        progress_message = "Laying out %s" % output.short_path,
    )
    return [DefaultInfo(files = depset([output]), runfiles = ctx.runfiles([output]))]

installation = rule(
    implementation = _installation_impl,
    attrs = {
        "deps": attr.label_list(providers = [CcInfo], doc = "The C++ and C libraries."),
        "distributed": attr.label(
            providers = [CcInfo],
            doc = "The C++ library for several processes, which the archive has too.",
        ),
        "public_headers": attr.string_list(doc = "The headers that programs include; those that they include follow."),
        "archive": attr.label(allow_single_file = True, doc = "The merged archive of the deps and `distributed`."),
        "shared_library": attr.label(allow_single_file = True, doc = "The shared library of the C interface."),
        "programs": attr.label_list(doc = "Programs for bin/."),
        "templates": attr.label_keyed_string_dict(
            allow_files = [".in"],
            doc = "Template -> folder. @VERSION@ and such are replaced.",
        ),
        "licenses": attr.string_dict(doc = "Library whose code is inside -> file of this machine with its licence."),
        "license": attr.label(allow_single_file = True),
        "version": attr.label(allow_single_file = True),
        "_tool": attr.label(default = "//tools:lay_out", executable = True, cfg = "exec"),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
    doc = "A tar file with what is installed, whose paths begin with include/, lib/, bin/ and share/.",
)
