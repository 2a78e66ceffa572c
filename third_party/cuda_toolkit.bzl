"""A repository for the installed CUDA toolkit.

It is empty if the build is for the CPU only: if there is no toolkit or no GPU, unless --config=cuda asks for CUDA.
"""

# The facts that other build files load: whether the build has code for GPUs, the toolkit that
# compiles it, and the compute capabilities of this machine's GPUs, such as "90" for 9.0.
_DEFS = """\
CUDA_FOUND = {found}
CUDA_NVCC = "{nvcc}"
CUDA_VERSION = "{version}"
CUDA_OWN_ARCHITECTURES = {own}
"""

_BUILD = """\
package(default_visibility = ["//visibility:public"])

# The runtime API, linked statically. It opens the driver's library at the first call.
cc_library(
    name = "cudart",
    hdrs = glob(["include/**"]),
    includes = ["include"],
    linkopts = ["-L{folder}/lib64", "-l:libcudart_static.a", "-ldl", "-lpthread", "-lrt"],
)
"""

_OLDEST = 12

def _find(ctx):
    """Returns the folder and the version of the toolkit, or (None, None)."""
    folders = [ctx.os.environ["CUDA_HOME"]] if "CUDA_HOME" in ctx.os.environ else ["/usr/local/cuda"]
    for folder in folders:
        nvcc = ctx.path(folder).get_child("bin").get_child("nvcc")
        if not nvcc.exists:
            continue
        result = ctx.execute([nvcc, "--version"])

        # Example: "Cuda compilation tools, release 13.0, V13.0.88"
        parts = result.stdout.split(", release ")
        if result.return_code or len(parts) != 2:
            continue
        version = parts[1].split(",")[0]
        if int(version.split(".")[0]) >= _OLDEST:
            return folder, version
    return None, None

def _capabilities(ctx):
    """Returns the compute capabilities of this machine's GPUs, such as "90" for 9.0; empty if nvidia-smi finds none."""
    query = ctx.which("nvidia-smi")
    answer = ctx.execute([query, "--query-gpu=compute_cap", "--format=csv,noheader"]) if query else None
    if not answer or answer.return_code:
        return []
    found = []
    for line in answer.stdout.splitlines():
        capability = line.strip().replace(".", "")
        if capability.isdigit() and capability not in found:
            found.append(capability)
    return found

def _has_gpu(ctx, capabilities):
    """Returns True if nvidia-smi or a device file shows a GPU. /dev/nvidiactl does not count: it belongs to the driver."""
    devices = [entry.basename[len("nvidia"):] for entry in ctx.path("/dev").readdir() if entry.basename.startswith("nvidia")]
    return bool(capabilities) or any([device.isdigit() for device in devices])

def _compiled_architectures(ctx, folder, capabilities):
    """Returns the capabilities for which the toolkit can compile."""
    known = ctx.execute([folder + "/bin/nvcc", "--list-gpu-arch"])
    return [c for c in capabilities if not known.return_code and "compute_" + c in known.stdout.splitlines()]

def _cuda_toolkit_impl(ctx):
    wanted = ctx.os.environ.get("GRADWEAVE_CUDA", "")
    if wanted not in ["", "0", "1"]:
        fail("GRADWEAVE_CUDA is '%s'; 1 builds for GPUs too, 0 for the CPU alone, and unset or empty for the GPUs that are found" % wanted)
    folder, version = (None, None) if wanted == "0" else _find(ctx)
    if wanted == "1" and not folder:
        fail("--config=cuda (GRADWEAVE_CUDA=1) needs a CUDA toolkit of version %d or newer in /usr/local/cuda, or in the folder that CUDA_HOME names" % _OLDEST)
    capabilities = _capabilities(ctx) if folder else []
    if folder and wanted != "1" and not _has_gpu(ctx, capabilities):
        folder = None
        _say("no GPU was found: building for the CPU; --config=cuda builds for GPUs too")
    elif folder:
        _say("building for the CPU, and for GPUs with CUDA %s" % version)
    else:
        _say("building for the CPU" + (": no CUDA toolkit was found" if wanted == "" else ""))

    own = _compiled_architectures(ctx, folder, capabilities) if folder else []
    ctx.file("defs.bzl", _DEFS.format(
        found = bool(folder),
        nvcc = folder + "/bin/nvcc" if folder else "",
        version = version if folder else "",
        own = own,
    ), executable = False)
    if folder:
        ctx.symlink(folder + "/include", "include")
        ctx.file("BUILD", _BUILD.format(folder = folder), executable = False)
    else:
        ctx.file("BUILD", "", executable = False)

def _say(text):
    # Bazel shows this line once, when it runs the repository rule.
    # buildifier: disable=print
    print(text)

cuda_toolkit = repository_rule(
    implementation = _cuda_toolkit_impl,
    environ = ["CUDA_HOME", "GRADWEAVE_CUDA"],
    # Checks again whenever the Bazel server starts, because Bazel does not notice new or removed
    # toolkits and GPUs.
    local = True,
    doc = "The toolkit of version 12 or newer in $CUDA_HOME or, if that is not set, in /usr/local/cuda. $GRADWEAVE_CUDA " +
          "controls its use: 1 requires it, 0 ignores it, and unset or empty uses it if the machine has a GPU.",
)
