"""Fuzz targets: each is one source file, built with libFuzzer and as a test."""

load("//tools:build_rules.bzl", "gradweave_binary")

def fuzz_target(name, deps, size = "small"):
    """Builds <name>_fuzz.cc twice.

    <name>_fuzz is a program of libFuzzer; it builds with --config=fuzz alone. <name>_corpus_test runs
    the files of corpus/<name> and some mutations of them.

    Args:
      name: The target's name.
      deps: Libraries of the source.
      size: The size of the test.
    """
    native.cc_library(
        name = name + "_target",
        testonly = True,
        srcs = [name + "_fuzz.cc"],
        deps = deps + [":target"],
        alwayslink = True,
    )
    gradweave_binary(
        name = name + "_fuzz",
        testonly = True,
        srcs = [],
        linkopts = ["-fsanitize=fuzzer"],
        tags = ["manual"],
        deps = [":" + name + "_target"],
    )
    native.cc_test(
        name = name + "_corpus_test",
        size = size,
        srcs = ["corpus_main.cc"],
        args = ["tests/fuzz/corpus/" + name],
        data = native.glob(["corpus/" + name + "/*"]),
        linkstatic = True,
        deps = [
            ":" + name + "_target",
            ":target",
            "//third_party:abseil",
        ],
    )
