"""Rules for C++ targets of Gradweave, which share include paths and warnings."""

# The first two -Wno flags disable noisy warnings of -Wextra: an op's function may not need all its
# arguments, and options are designated initializers ({.kernel = 5}) that leave most fields out. The
# last one disables a false positive of GCC 12 on unread storage of Abseil's inlined vectors.
_COPTS = [
    "-Wall",
    "-Wextra",
    "-Wno-missing-field-initializers",
    "-Wno-unused-parameter",
    "-Wno-maybe-uninitialized",
    # clang does not know the one above.
    "-Wno-unknown-warning-option",
    # .bazelrc has it for all files of this workspace. Libraries need it in other workspaces too.
    "-ffp-contract=off",
]

# For loops that keep their sums in all of a processor's registers. On Arm, GCC moves loads ahead before it assigns
# registers, and sums then go through memory in each round. On x86 it doesn't do this.
REGISTER_BLOCK_COPTS = [
    "-fno-schedule-insns",
    # clang does not know the one above.
    "-Wno-ignored-optimization-argument",
]

# The headers that most files include, precompiled. Their warnings are wrong as above.
_PRECOMPILED = "//third_party:precompile"
_PRECOMPILED_COPTS = select({
    _PRECOMPILED: ["-include", "gradweave_prelude.h", "-Wno-array-bounds"],
    "//conditions:default": [],
})
_PRECOMPILED_DEPS = select({
    _PRECOMPILED: ["//third_party:prelude"],
    "//conditions:default": [],
})

# For code that runs once for each model or epoch. -O1 compiles in three quarters of the time.
LIGHT_COPTS = select({
    "//third_party:optimized": ["-O1"],
    "//conditions:default": [],
})

def visible_to(rooms):
    """Returns the visibility of a room's targets: all programs, and the rooms that may use it by docs/architecture.md.

    Args:
      rooms: Packages, without "//".
    """
    programs = ["//benchmarks", "//examples", "//tests"]
    return [program + ":__subpackages__" for program in programs] + ["//:__pkg__"] + ["//%s:__pkg__" % room for room in rooms]

# Sources that are compiled together: the compiler then parses their headers and instantiates their
# templates once. More of them make a change of one source slow to compile.
_JOINED = 6

def _join(name, srcs, alone):
    """Returns files of up to _JOINED sources each, and the sources that stay alone."""
    joined = [src for src in srcs if src in alone]
    rest = [src for src in srcs if src not in alone]
    for first in range(0, len(rest), _JOINED):
        part = rest[first:first + _JOINED]
        if len(part) == 1:
            joined.append(part[0])
            continue
        file = "%s_joined_%d" % (name, first // _JOINED)
        native.genrule(
            name = file,
            srcs = part,
            outs = [file + ".cc"],
            cmd = "for source in $(SRCS); do echo \"#line 1 \\\"$$source\\\"\"; cat $$source; done >$@",
            visibility = ["//visibility:private"],
        )
        joined.append(file + ".cc")
    return joined

def gradweave_library(name, srcs = [], hdrs = [], deps = [], copts = [], joined = True, alone = [], **kwargs):
    """A cc_library whose headers are included as "gradweave/<package>/<header>".

    Where headers are precompiled, sources are compiled in groups too, so names in the unnamed namespaces
    of one library's sources have to differ.

    Args:
      name: The target's name.
      srcs: Sources.
      hdrs: All headers, private ones included, because headers in srcs have no "gradweave/" path.
      deps: Libraries.
      copts: Compiler flags for this library only.
      joined: False compiles each source by itself.
      alone: Sources that are compiled by themselves: those that Highway compiles for each target, and
        those that take long.
      **kwargs: Other arguments of cc_library.
    """
    if joined and len(srcs) - len(alone) > 1:
        srcs = select({
            _PRECOMPILED: _join(name, srcs, alone),
            "//conditions:default": srcs,
        })
    native.cc_library(
        name = name,
        srcs = srcs,
        hdrs = hdrs,
        copts = _COPTS + copts + _PRECOMPILED_COPTS,
        include_prefix = "gradweave",
        strip_include_prefix = "/",
        deps = deps + _PRECOMPILED_DEPS,
        **kwargs
    )

def program_library(name, deps = [], copts = [], **kwargs):
    """A cc_library of programs or tests, whose headers are included by their paths in the repository."""
    native.cc_library(
        name = name,
        copts = ["-Wall"] + copts + _PRECOMPILED_COPTS,
        deps = deps + _PRECOMPILED_DEPS,
        **kwargs
    )

def gradweave_test(name, srcs, deps = [], size = "small", copts = [], **kwargs):
    """A cc_test with GoogleTest, its main function and GoogleMock."""
    native.cc_test(
        name = name,
        size = size,
        srcs = srcs,
        copts = _COPTS + copts + _PRECOMPILED_COPTS,
        linkstatic = True,
        deps = deps + ["//third_party:googletest_main"] + _PRECOMPILED_DEPS,
        **kwargs
    )

def gradweave_binary(name, srcs, deps = [], copts = [], **kwargs):
    """A cc_binary."""
    native.cc_binary(
        name = name,
        srcs = srcs,
        copts = _COPTS + copts + _PRECOMPILED_COPTS,
        linkstatic = True,
        deps = deps + _PRECOMPILED_DEPS,
        **kwargs
    )

def gradweave_proto_library(name, srcs, deps = [], **kwargs):
    """A library of generated C++ for .proto files. x.proto in package proto is included as "gradweave/proto/x.pb.h".

    One .proto imports another by the same path: import "gradweave/proto/x.proto".

    Args:
      name: The target's name.
      srcs: .proto files of this package.
      deps: Other gradweave_proto_library targets whose files these import.
      **kwargs: Other arguments of cc_library.
    """
    package = native.package_name()
    stems = ["/".join([part for part in ["gradweave", package, src[:-len(".proto")]] if part]) for src in srcs]

    native.filegroup(
        name = name + "_protos",
        srcs = srcs + [dep + "_protos" for dep in deps],
        visibility = kwargs.get("visibility"),
    )
    native.genrule(
        name = name + "_protoc",
        srcs = srcs + [":%s_protos" % name],
        outs = [stem + extension for stem in stems for extension in [".pb.cc", ".pb.h"]],
        # The virtual folder gradweave/ maps to the root of the repository, which is external/gradweave
        # in a build of another workspace.
        cmd = ("path=./$(execpath %s); $(execpath //third_party:protoc) --proto_path=gradweave=\"$${path%%/%s}\" " +
               "--cpp_out=$(RULEDIR) %s") % (
            srcs[0],
            package + "/" + srcs[0],
            " ".join([stem + ".proto" for stem in stems]),
        ),
        tools = ["//third_party:protoc"],
        visibility = ["//visibility:private"],
    )
    native.cc_library(
        name = name,
        srcs = [stem + ".pb.cc" for stem in stems],
        hdrs = [stem + ".pb.h" for stem in stems],
        copts = ["-w"],
        includes = ["."],
        deps = deps + ["//third_party:protobuf"],
        **kwargs
    )
