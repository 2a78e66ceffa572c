"""The headers that programs include. All other headers may change without notice."""

# What gradweave.h includes.
PUBLIC_HEADERS = [
    "frontend/activation_layers.h",
    "frontend/attention_layers.h",
    "frontend/basic_layers.h",
    "frontend/accumulate.h",
    "frontend/batches.h",
    "frontend/callbacks.h",
    "frontend/check_numerics.h",
    "frontend/conv_layers.h",
    "frontend/data.h",
    "frontend/data/augment.h",
    "frontend/data/cifar.h",
    "frontend/data/csv.h",
    "frontend/data/npy.h",
    "frontend/data/safetensors.h",
    "frontend/dataset.h",
    "frontend/goal.h",
    "frontend/initializers.h",
    "frontend/key_value_cache.h",
    "frontend/layer.h",
    "frontend/layers.h",
    "frontend/loss_scaling.h",
    "frontend/losses.h",
    "frontend/metrics.h",
    "frontend/norm_layers.h",
    "frontend/optimizers.h",
    "frontend/recurrent_layers.h",
    "frontend/stop_signals.h",
    "frontend/summary.h",
    "frontend/trainer.h",
    "frontend/training_checkpoints.h",
    "frontend/transforms.h",
    "frontend/weighted_mean.h",
    "graph/graph.h",
    "graph/passes/autodiff.h",
    "graph/print.h",
    "graph/status_macros.h",
    "graph/tensor.h",
    "graph/verify.h",
    "graph/version.h",
    "ops/activations.h",
    "ops/attention.h",
    "ops/collectives.h",
    "ops/control_flow.h",
    "ops/conv.h",
    "ops/conv_nd.h",
    "ops/determinant.h",
    "ops/einsum.h",
    "ops/elementwise.h",
    "ops/functions.h",
    "ops/image.h",
    "ops/index_functions.h",
    "ops/indexing.h",
    "ops/matmul.h",
    "ops/normalization.h",
    "ops/padding.h",
    "ops/pool.h",
    "ops/pool_nd.h",
    "ops/random.h",
    "ops/reduction.h",
    "ops/resize.h",
    "ops/scope.h",
    "ops/shape_ops.h",
    "ops/softmax.h",
    "ops/sorting.h",
    "ops/spectral.h",
    "ops/state.h",
    "runtime/cuda/options.h",
    "runtime/kernel/run_options.h",
    "runtime/model_file/checkpoint.h",
    "runtime/session/device.h",
    "runtime/session/session.h",
]

# What programs include by themselves when they need it.
SEPARATE_PUBLIC_HEADERS = [
    "frontend/c/gradweave.h",
    "frontend/data/image_folder.h",
    "frontend/onnx/export.h",
    "frontend/onnx/import.h",
    "frontend/pictures.h",
    "frontend/watch/event_file.h",
    "frontend/watch/report.h",
    "frontend/watch/tensorboard.h",
    # For programs with ops and kernels of their own.
    "graph/gradient.h",
    "runtime/cpu/add_kernel.h",
    "runtime/distributed/group.h",
    "runtime/kernel/kernel.h",
]

# Internal headers that gradweave.h must not include, not even through another header.
_HIDDEN_HEADERS = [
    "frontend/batch_runs.h",
    "frontend/data/header_reader.h",
    "frontend/data/npy_format.h",
    "frontend/image.h",
    "frontend/input_file.h",
    "frontend/layer_checks.h",
    "frontend/named_tensors.h",
    "frontend/process_memory.h",
    "frontend/shard_sessions.h",
    "frontend/plot.h",
    "graph/passes/passes.h",
    "runtime/distributed/communicator.h",
    "runtime/kernel/forks.h",
    "runtime/kernel/thread_pool.h",
    "runtime/plan/compiled_graph.h",
    "runtime/plan/executable.h",
    "runtime/plan/plan.h",
    "runtime/session/session_state.h",
]

def _guard(header):
    return "GRADWEAVE_" + header.upper().replace("/", "_").replace(".", "_") + "_"

def public_header_sources(name):
    """Makes one .cc file for each public header, which includes that header alone, and one that checks gradweave.h.

    Args:
      name: A filegroup of all these files.
    """
    sources = {}
    for header in PUBLIC_HEADERS + SEPARATE_PUBLIC_HEADERS:
        sources[_guard(header).lower() + ".cc"] = ['#include "gradweave/%s"' % header]
    sources["gradweave_h.cc"] = ['#include "gradweave/gradweave.h"'] + [
        '#ifndef %s\n#error "gradweave.h must include %s: it is in public_headers.bzl"\n#endif' % (_guard(header), header)
        for header in PUBLIC_HEADERS
    ] + [
        '#ifdef %s\n#error "gradweave.h must not include %s: it is internal"\n#endif' % (_guard(header), header)
        for header in _HIDDEN_HEADERS + SEPARATE_PUBLIC_HEADERS
    ]
    for source, lines in sources.items():
        native.genrule(
            name = source[:-len(".cc")],
            outs = [source],
            cmd = "cat > $@ <<'EOF'\n%s\nEOF" % "\n".join(lines),
        )
    native.filegroup(
        name = name,
        srcs = sources.keys(),
    )
