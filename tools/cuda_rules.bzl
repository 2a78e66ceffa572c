"""CUDA sources: compiled by nvcc where there is a toolkit, and by the C++ compiler for the emulated device."""

load("@cuda_toolkit//:defs.bzl", "CUDA_FOUND", "CUDA_NVCC", "CUDA_OWN_ARCHITECTURES", "CUDA_VERSION")
load("//tools:build_rules.bzl", "gradweave_library")

# What a build is for: compute capabilities with machine code, and those with PTX, which the driver compiles for GPUs
# that are newer when a program first runs, and keeps. nvcc takes long for many, so a build that isn't to be given away
# has code for the machine's own GPUs, or where it has none for the oldest, which is also where the PTX comes from.
_DEFAULT_ARCHITECTURES = {"machine_code": CUDA_OWN_ARCHITECTURES or ["75"], "ptx": ["75"]}
_PORTABLE_ARCHITECTURES = {"machine_code": ["75", "80", "86", "89", "90", "100"], "ptx": ["75", "100"]}

def _architecture_flags(architectures):
    # Compute capability 10.0 came with CUDA 12.8.
    major, minor = [int(part) for part in CUDA_VERSION.split(".")[:2]]
    known = [a for a in architectures["machine_code"] if a != "100" or (major, minor) >= (12, 8)]
    ptx = [a for a in architectures["ptx"] if a != "100" or (major, minor) >= (12, 8)]
    return (["-gencode=arch=compute_%s,code=sm_%s" % (a, a) for a in known] +
            ["-gencode=arch=compute_%s,code=compute_%s" % (a, a) for a in ptx])

def _cuda_objects_impl(ctx):
    compilation = cc_common.merge_cc_infos(cc_infos = [dep[CcInfo] for dep in ctx.attr.deps]).compilation_context
    folders = depset(transitive = [compilation.includes, compilation.quote_includes, compilation.system_includes])
    objects = []
    for source in ctx.files.srcs:
        object_file = ctx.actions.declare_file("%s/%s.o" % (ctx.label.name, source.basename))
        objects.append(object_file)
        arguments = ctx.actions.args()
        arguments.add_all(["-c", source, "-o", object_file])
        arguments.add_all(ctx.attr.flags)
        arguments.add_all(folders, format_each = "-I%s")
        arguments.add_all(compilation.defines, format_each = "-D%s")
        ctx.actions.run(
            executable = CUDA_NVCC,
            arguments = [arguments],
            inputs = depset([source], transitive = [compilation.headers]),
            outputs = [object_file],
            # nvcc looks for the host compiler in PATH. The version makes another toolkit another action.
            env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "CUDA_VERSION": CUDA_VERSION},
            mnemonic = "CudaCompile",
            progress_message = "Compiling %s for the GPU" % source.short_path,
        )
    return [DefaultInfo(files = depset(objects))]

_cuda_objects = rule(
    implementation = _cuda_objects_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"]),
        "deps": attr.label_list(providers = [CcInfo]),
        "flags": attr.string_list(),
    },
    doc = "Object files of CUDA sources.",
)

# No fused multiply-adds but where a formula asks for one: the same expression gives the bits that it gives on the CPU.
_NVCC_FLAGS = [
    "-std=c++20",
    "-ccbin=g++",
    "-O3",
    "-fmad=false",
    "--expt-relaxed-constexpr",
    # The last as in build_rules.bzl.
    "-Xcompiler=-fPIC,-ffp-contract=off,-Wall,-Wno-unknown-pragmas,-Wno-maybe-uninitialized",
    # Wrong of assignments of a Status (2810), and of templates for every dtype: unsigned numbers below zero (186).
    "-diag-suppress=2810,186",
]

def cuda_library(name, srcs, deps = [], **kwargs):
    """Kernels as two libraries: <name>, by nvcc, and <name>_emulated, by the C++ compiler.

    Where there is no CUDA toolkit, <name> is empty: whoever uses it asks CUDA_FOUND of @cuda_toolkit//:defs.bzl first.

    Args:
      name: The library of code for GPUs.
      srcs: .cu files.
      deps: Libraries.
      **kwargs: Whatever else cc_library takes.
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
    native.cc_library(
        name = name,
        srcs = objects,
        # A shared library would compile all that it depends on once more.
        linkstatic = True,
        deps = deps + (["@cuda_toolkit//:cudart"] if CUDA_FOUND else []),
        **kwargs
    )

    # Bazel's C++ rules know no .cu; a file that includes it is one they know.
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
