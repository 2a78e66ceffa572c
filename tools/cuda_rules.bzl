"""Rules for CUDA sources. nvcc compiles them if there is a toolkit; the C++ compiler compiles them for the emulated device."""

load("@cuda_toolkit//:defs.bzl", "CUDA_FOUND", "CUDA_NVCC", "CUDA_OWN_ARCHITECTURES", "CUDA_VERSION")
load("//tools:build_rules.bzl", "gradweave_library")

# The GPUs for which a build has machine code or PTX, by compute capability. The driver compiles PTX
# for newer GPUs when a program runs first, and caches the result. nvcc is slow for many
# architectures, so a default build has machine code only for the machine's own GPUs, or for the oldest
# architecture if there are none. Its PTX is for the oldest architecture.
_DEFAULT_ARCHITECTURES = {"machine_code": CUDA_OWN_ARCHITECTURES or ["75"], "ptx": ["75"]}
_PORTABLE_ARCHITECTURES = {"machine_code": ["75", "80", "86", "89", "90", "100"], "ptx": ["75", "100"]}
_NEWEST_ARCHITECTURES = {"machine_code": ["90", "100"], "ptx": []}

def _architecture_flags(architectures):
    # Compute capability 10.0 needs CUDA 12.8 or newer.
    major, minor = [int(part) for part in CUDA_VERSION.split(".")[:2]]
    known = [a for a in architectures["machine_code"] if a != "100" or (major, minor) >= (12, 8)]
    ptx = [a for a in architectures["ptx"] if a != "100" or (major, minor) >= (12, 8)]
    return (["-gencode=arch=compute_%s,code=sm_%s" % (a, a) for a in known] +
            ["-gencode=arch=compute_%s,code=compute_%s" % (a, a) for a in ptx])

def _cuda_objects_impl(ctx):
    compilation = cc_common.merge_cc_infos(cc_infos = [dep[CcInfo] for dep in ctx.attr.deps]).compilation_context
    folders = depset(transitive = [compilation.includes, compilation.quote_includes, compilation.system_includes])
    objects = []
    reports = []
    for source in ctx.files.srcs:
        object_file = ctx.actions.declare_file("%s/%s.o" % (ctx.label.name, source.basename))
        report = ctx.actions.declare_file("%s/%s.ptxas" % (ctx.label.name, source.basename))
        objects.append(object_file)
        reports.append(report)
        arguments = ctx.actions.args()
        arguments.add_all([report, CUDA_NVCC, "-c", source, "-o", object_file, "-Xptxas=-v"])
        arguments.add_all(ctx.attr.flags)
        arguments.add_all(folders, format_each = "-I%s")
        arguments.add_all(compilation.defines, format_each = "-D%s")
        ctx.actions.run_shell(
            # The first argument is the report's file. All else that nvcc says is for the user.
            command = """report=$1; shift; "$@" 2>"$report"; code=$?
                         grep -vE '^ptxas info|bytes stack frame' "$report" >&2; exit $code""",
            arguments = [arguments],
            inputs = depset([source], transitive = [compilation.headers]),
            outputs = [object_file, report],
            # nvcc finds the host compiler in PATH. CUDA_VERSION makes the action depend on the
            # toolkit's version.
            env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "CUDA_VERSION": CUDA_VERSION},
            mnemonic = "CudaCompile",
            progress_message = "Compiling %s for the GPU" % source.short_path,
        )
    return [DefaultInfo(files = depset(objects)), OutputGroupInfo(reports = depset(reports))]

_cuda_objects = rule(
    implementation = _cuda_objects_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"]),
        "deps": attr.label_list(providers = [CcInfo]),
        "flags": attr.string_list(),
    },
    doc = "Object files of CUDA sources. The output group `reports` has ptxas' report on each.",
)

# -fmad=false: only formulas that ask for fused multiply-adds use them, so an expression gives the
# same bits as on the CPU.
_NVCC_FLAGS = [
    "-std=c++20",
    "-ccbin=g++",
    "-O3",
    "-fmad=false",
    "--expt-relaxed-constexpr",
    # For -Wno-maybe-uninitialized see build_rules.bzl.
    "-Xcompiler=-fPIC,-ffp-contract=off,-Wall,-Wno-unknown-pragmas,-Wno-maybe-uninitialized",
    # False positives: assignments of a Status (2810), and comparisons of unsigned values with zero
    # in templates for all dtypes (186).
    "-diag-suppress=2810,186",
]

def cuda_library(name, srcs, deps = [], reported_for_newest = [], **kwargs):
    """Compiles kernels into two libraries: <name> with nvcc, and <name>_emulated with the C++ compiler.

    <name>_reports has what ptxas tells of each kernel: registers, stack frame, spills. It is for the
    GPUs that the build has machine code for.

    Without a CUDA toolkit, <name> is empty. Its users check CUDA_FOUND of @cuda_toolkit//:defs.bzl first.

    Args:
      name: The name of the library with code for GPUs.
      srcs: .cu files.
      deps: Libraries.
      reported_for_newest: The .cu files whose reports are for the newest architectures too. ptxas
        decides for each architecture whether an array stays in registers.
      **kwargs: Other arguments of cc_library.
    """
    objects = []
    if CUDA_FOUND:
        _cuda_objects(
            name = name + "_objects",
            srcs = srcs,
            flags = _NVCC_FLAGS + select({
                "//third_party:portable": _architecture_flags(_PORTABLE_ARCHITECTURES),
                "//conditions:default": _architecture_flags(_DEFAULT_ARCHITECTURES),
            }),
            deps = deps + ["@cuda_toolkit//:cudart"],
        )
        objects = [name + "_objects"]
        reported = list(objects)
        if reported_for_newest:
            reported.append(name + "_newest_objects")
            _cuda_objects(
                name = reported[-1],
                srcs = reported_for_newest,
                flags = _NVCC_FLAGS + _architecture_flags(_NEWEST_ARCHITECTURES),
                deps = deps + ["@cuda_toolkit//:cudart"],
            )
        native.filegroup(
            name = name + "_reports",
            srcs = reported,
            output_group = "reports",
            visibility = ["//tests/cuda:__pkg__"],
        )
    native.cc_library(
        name = name,
        srcs = objects,
        # A shared library would compile all its dependencies a second time.
        linkstatic = True,
        deps = deps + (["@cuda_toolkit//:cudart"] if CUDA_FOUND else []),
        **kwargs
    )

    # Bazel's C++ rules do not accept .cu files, so a generated .cc file includes each of them.
    emulated = []
    for source in srcs:
        emulated.append(source[:-len(".cu")] + "_emulated.cc")
        native.genrule(
            name = emulated[-1] + "_genrule",
            outs = [emulated[-1]],
            cmd = "echo '#include \"%s/%s\"' > $@" % (native.package_name(), source),
        )
    native.cc_library(
        name = name + "_emulated_sources",
        textual_hdrs = srcs,
    )
    gradweave_library(
        name = name + "_emulated",
        srcs = emulated,
        copts = ["-DGRADWEAVE_EMULATE_CUDA"],
        deps = deps + [":%s_emulated_sources" % name, "//runtime/cuda/emulation"],
        **kwargs
    )
