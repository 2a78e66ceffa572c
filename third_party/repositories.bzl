"""All repositories of the build. They are on this machine; the build downloads nothing."""

load("//third_party:cuda_toolkit.bzl", "cuda_toolkit")
load("//third_party:mpi.bzl", "mpi")
load("//third_party:python.bzl", "python")
load("//third_party:system_library.bzl", "system_library")

# Debian's Bazel 4 would download these two repositories. These replacements hold the few parts
# that it uses.
_RULES_CC_DEFS = """
cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_proto_library = native.cc_proto_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
objc_library = native.objc_library
"""

_COVERAGE_TOOLS_BUILD = """
filegroup(
    name = "coverage_report_generator",
    visibility = ["//visibility:public"],
)
"""

def _written_repository_impl(ctx):
    for path, content in ctx.attr.files.items():
        ctx.file(path, content, executable = False)

_written_repository = repository_rule(
    implementation = _written_repository_impl,
    attrs = {"files": attr.string_dict(doc = "Path -> content.")},
)

def _debian_bazel_repositories():
    _written_repository(
        name = "rules_cc",
        files = {"BUILD": "", "cc/BUILD": "", "cc/defs.bzl": _RULES_CC_DEFS},
    )
    _written_repository(
        name = "remote_coverage_tools",
        files = {"BUILD": _COVERAGE_TOOLS_BUILD},
    )
    native.local_repository(name = "bazel_skylib", path = "/usr/share/bazel/tools/skylib")
    native.local_repository(name = "platforms", path = "/usr/share/bazel/platforms")
    native.local_repository(name = "rules_java", path = "/usr/share/bazel/rules/java")
    native.local_repository(name = "rules_proto", path = "/usr/share/bazel/rules/proto")

# OpenBLAS has a table of kernels for each kind of x86 processor. An archive that is linked into a
# program brings all of them. These kinds use the table of another kind, whose instructions they have.
_OPENBLAS_KERNELS = {
    "PRESCOTT": ["ATOM", "BARCELONA", "BOBCAT", "CORE2", "DUNNINGTON", "NANO", "OPTERON", "OPTERON_SSE3", "PENRYN"],
    "NEHALEM": ["BULLDOZER", "PILEDRIVER", "SANDYBRIDGE", "STEAMROLLER"],
    "HASWELL": ["EXCAVATOR", "ZEN"],
    "SKYLAKEX": ["COOPERLAKE", "SAPPHIRERAPIDS"],
}

def system_repositories():
    """Declares the libraries of the system."""

    # The libraries for status, strings, containers, hashing, flags, time and locks. pkg-config adds
    # their dependencies.
    system_library(
        name = "system_abseil",
        debian_package = "libabsl-dev",
        modules = ["absl_" + part for part in [
            "algorithm_container",
            "any_invocable",
            "bind_front",
            "btree",
            "cleanup",
            "failure_signal_handler",
            "fixed_array",
            "flags",
            "flags_parse",
            "flags_usage",
            "flat_hash_map",
            "flat_hash_set",
            "function_ref",
            "hash",
            "inlined_vector",
            "int128",
            "memory",
            "node_hash_map",
            "node_hash_set",
            "numeric",
            "optional",
            "span",
            "stacktrace",
            "status",
            "statusor",
            "str_format",
            "strings",
            "symbolize",
            "synchronization",
            "time",
            "type_traits",
            "utility",
            "variant",
        ]],
    )
    system_library(
        name = "system_protobuf",
        debian_package = "libprotobuf-dev, protobuf-compiler",
        modules = ["protobuf"],
        programs = ["protoc"],
    )
    system_library(
        name = "system_openblas",
        debian_package = "libopenblas-dev",
        modules = ["openblas"],
        static_aliases = {
            "gotoblas_" + kind: "gotoblas_" + substitute
            for substitute, kinds in _OPENBLAS_KERNELS.items()
            for kind in kinds
        },
        # The archive contains LAPACK in Fortran. These libraries add nothing to a program that
        # calls none of it.
        static_needs = ["gfortran", "quadmath"],
    )
    system_library(
        name = "system_googletest",
        debian_package = "libgtest-dev, libgmock-dev",
        modules = ["gmock", "gtest"],
    )
    system_library(
        name = "system_googletest_main",
        debian_package = "libgtest-dev, libgmock-dev",
        modules = ["gmock_main"],
    )
    system_library(
        name = "system_benchmark",
        debian_package = "libbenchmark-dev",
        modules = ["benchmark"],
    )
    system_library(
        name = "system_highway",
        debian_package = "libhwy-dev",
        modules = ["libhwy"],
    )
    system_library(
        name = "system_zlib",
        debian_package = "zlib1g-dev",
        modules = ["zlib"],
    )
    system_library(
        name = "system_minizip",
        debian_package = "libminizip-dev",
        modules = ["minizip", "zlib"],
    )
    system_library(
        name = "system_png",
        debian_package = "libpng-dev",
        modules = ["libpng"],
    )
    cuda_toolkit(name = "cuda_toolkit")
    mpi(name = "mpi")
    python(name = "python_headers")

def gradweave_repositories():
    """Declares all repositories. WORKSPACE calls only this."""

    # Newer versions of Bazel, run through bazelisk, come with matching versions of these.
    if not native.bazel_version or native.bazel_version.startswith("4."):
        _debian_bazel_repositories()
    system_repositories()
