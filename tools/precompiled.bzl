"""A precompiled header: the standard library's and Abseil's headers, parsed once for all C++ files.

They are most of what the compiler reads, and take about half of the time of a build. g++ takes the
precompiled file in place of the header if both were compiled with the same flags, and parses the
header otherwise.
"""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")

_ACTION = "c++-compile"

def _precompiled_header_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    configuration = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    context = cc_common.merge_cc_infos(cc_infos = [dep[CcInfo] for dep in ctx.attr.deps]).compilation_context
    compiler = cc_common.get_tool_for_action(feature_configuration = configuration, action_name = _ACTION)

    # In a folder of their own, which is on the include path.
    header = ctx.actions.declare_file("%s/%s" % (ctx.label.name, ctx.file.header.basename))
    ctx.actions.symlink(output = header, target_file = ctx.file.header)
    files = [header]
    if "clang" not in compiler:  # clang checks the times of the headers and fails if they differ.
        precompiled = ctx.actions.declare_file(header.basename + ".gch", sibling = header)
        files.append(precompiled)
        variables = cc_common.create_compile_variables(
            feature_configuration = configuration,
            cc_toolchain = toolchain,
            source_file = ctx.file.header.path,
            output_file = precompiled.path,
            user_compile_flags = ["-x", "c++-header"] + ctx.fragments.cpp.copts + ctx.fragments.cpp.cxxopts,
            include_directories = context.includes,
            quote_include_directories = context.quote_includes,
            system_include_directories = context.system_includes,
            preprocessor_defines = context.defines,
        )
        ctx.actions.run(
            executable = compiler,
            arguments = cc_common.get_memory_inefficient_command_line(
                feature_configuration = configuration,
                action_name = _ACTION,
                variables = variables,
            ),
            env = cc_common.get_environment_variables(
                feature_configuration = configuration,
                action_name = _ACTION,
                variables = variables,
            ),
            inputs = depset([ctx.file.header], transitive = [toolchain.all_files, context.headers]),
            outputs = [precompiled],
            mnemonic = "CppPrecompile",
            progress_message = "Precompiling %s" % ctx.file.header.short_path,
        )
    own = cc_common.create_compilation_context(headers = depset(files), includes = depset([header.dirname]))
    return [
        DefaultInfo(files = depset(files)),
        cc_common.merge_cc_infos(cc_infos = [CcInfo(compilation_context = own)] + [dep[CcInfo] for dep in ctx.attr.deps]),
    ]

precompiled_header = rule(
    implementation = _precompiled_header_impl,
    attrs = {
        "header": attr.label(allow_single_file = [".h"], mandatory = True),
        "deps": attr.label_list(providers = [CcInfo], doc = "Libraries whose headers it includes."),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    fragments = ["cpp"],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)
