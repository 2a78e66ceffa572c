"""A repository for the CUDA toolkit that the system has installed; an empty one where there is none."""

# What the project reads: whether there is a toolkit, where, and which; and the compute capabilities of this machine's
# GPUs, "90" for 9.0.
_DEFS = """\
CUDA_FOUND = {found}
CUDA_NVCC = "{nvcc}"
CUDA_VERSION = "{version}"
CUDA_OWN_ARCHITECTURES = {own}
"""

_BUILD = """\
package(default_visibility = ["//visibility:public"])

# The runtime API, linked statically: it opens the driver's library when it is first called.
cc_library(
    name = "cudart",
    hdrs = glob(["include/**"]),
    includes = ["include"],
    linkopts = ["-L{folder}/lib64", "-l:libcudart_static.a", "-ldl", "-lpthread", "-lrt"],
)
"""

_OLDEST = 12

def _find(ctx):
    """The toolkit's folder and version, or two times None."""
    folders = [ctx.os.environ["CUDA_HOME"]] if "CUDA_HOME" in ctx.os.environ else ["/usr/local/cuda"]
    for folder in folders:
        nvcc = ctx.path(folder).get_child("bin").get_child("nvcc")
        if not nvcc.exists:
            continue
        result = ctx.execute([nvcc, "--version"])

        # "Cuda compilation tools, release 13.0, V13.0.88"
        parts = result.stdout.split(", release ")
        if result.return_code or len(parts) != 2:
            continue
        version = parts[1].split(",")[0]
        if int(version.split(".")[0]) >= _OLDEST:
            return folder, version
    return None, None

def _own_architectures(ctx, folder):
    query = ctx.which("nvidia-smi")
    if not query:
        return []
    own = ctx.execute([query, "--query-gpu=compute_cap", "--format=csv,noheader"])
    known = ctx.execute([folder + "/bin/nvcc", "--list-gpu-arch"])
    if own.return_code or known.return_code:
        return []
    found = []
    for line in own.stdout.splitlines():
        architecture = line.strip().replace(".", "")
        if "compute_" + architecture in known.stdout.splitlines() and architecture not in found:
            found.append(architecture)
    return found

def _cuda_toolkit_impl(ctx):
    folder, version = _find(ctx)
    ctx.file("defs.bzl", _DEFS.format(
        found = bool(folder),
        nvcc = folder + "/bin/nvcc" if folder else "",
        version = version or "",
        own = _own_architectures(ctx, folder) if folder else [],
    ), executable = False)
    if folder:
        ctx.symlink(folder + "/include", "include")
        ctx.file("BUILD", _BUILD.format(folder = folder), executable = False)
    else:
        ctx.file("BUILD", "", executable = False)

cuda_toolkit = repository_rule(
    implementation = _cuda_toolkit_impl,
    environ = ["CUDA_HOME"],
    # Look again whenever the Bazel server starts: toolkits come and go without Bazel noticing.
    local = True,
    doc = "The toolkit in $CUDA_HOME, else in /usr/local/cuda, of version 12 or newer.",
)
