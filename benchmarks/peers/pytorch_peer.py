"""The models in PyTorch.

Variants: eager; channels_last (eager, with images stored as [batch, height, width, channels]); jit (a trace optimized
for inference, for inference only); compile (torch.compile) and compile_channels_last, which need a C++ compiler;
graph, on CUDA devices only (captures the step in a CUDA graph and replays it). On a CUDA device a step begins with a
copy of its data from pinned memory and ends with a copy of its result, as in Gradweave.

--precision on a CUDA device: tf32 lets matrix products and convolutions round their operands, as Gradweave does. bf16
runs forward pass and loss under torch.autocast with bfloat16, as is usual. It also stores the results of products and
convolutions as bfloat16, so it moves less memory and rounds more than Gradweave, which rounds only operands.
"""

import os
import sys
import time

import peer

flags = peer.parse_flags(__doc__, ["eager", "channels_last", "jit", "compile", "compile_channels_last", "graph"],
                         cuda=True)

# torch.compile keeps its code in the virtual environment, so only the first comparison waits for it.
if sys.prefix != sys.base_prefix:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(sys.prefix, "compiled"))

import numpy as np
import torch

import torch_models


def default_variant():
    if flags.device != "cpu":
        return "graph"
    if not hasattr(torch, "compile"):
        return "jit" if flags.mode == "infer" else "eager"
    return "compile"


def prepare_cuda(model, tensors):
    """Returns the model on the device, and each tensor in pinned memory and on the device."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = flags.precision == "tf32"
    torch.backends.cudnn.benchmark = True
    return model.to(flags.device), [(tensor.pin_memory(), tensor.to(flags.device)) for tensor in tensors]


def autocast():
    """The context of forward pass and loss. A captured graph must cast the weights again in each replay."""
    return torch.autocast("cuda", dtype=torch.bfloat16, enabled=flags.precision == "bf16",
                          cache_enabled=flags.variant != "graph")


def captured(step):
    """Captures the step in a CUDA graph, after three runs on a separate stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay():
        graph.replay()
        return result

    return replay


def measure_on_cuda(step, pairs, read, parameters):
    if flags.variant == "graph":
        step = captured(step)

    def whole():
        for pinned, on_device in pairs:
            on_device.copy_(pinned, non_blocking=True)
        return read(step())

    peer.measure(whole, flags, parameters)


def infer_on_cuda(model, inputs, parameters):
    model, pairs = prepare_cuda(model.eval(), [inputs])
    if flags.variant == "jit":
        peer.unsupported("jit is for the CPU here")
    if flags.variant.startswith("compile"):
        model = torch.compile(model, mode="max-autotune")

    def infer():
        with torch.no_grad(), autocast():
            return model(pairs[0][1]).float()

    measure_on_cuda(infer, pairs, lambda output: output.cpu().numpy(), parameters)


def train_on_cuda(model, inputs, labels, parameters):
    model, pairs = prepare_cuda(model, [inputs, labels])
    # A captured step needs gradients at fixed addresses and the optimizer's state on the device.
    optimizer = torch_models.make_optimizer(flags.model, model)

    def loss_of(inputs, labels):
        return torch_models.loss_of(flags.model, model(inputs), inputs, labels)

    if flags.variant.startswith("compile"):
        loss_of = torch.compile(loss_of, mode="max-autotune")

    def train():
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            loss = loss_of(pairs[0][1], pairs[1][1])
        loss.backward()
        optimizer.step()
        return loss

    measure_on_cuda(train, pairs, lambda loss: loss.item(), parameters)


def export(model, inputs, parameters):
    """Writes the model and its output for the inputs; ONNX Runtime and OpenVINO run it."""
    model.eval()
    with torch.no_grad():
        output = model(inputs).numpy()
        torch.onnx.export(model, (inputs,), flags.export, input_names=["input"], output_names=["output"], dynamo=True,
                          external_data=False, verbose=False)
    np.savez(flags.export + ".npz", output=output, parameters=parameters)


def main():
    flags.variant = flags.variant or default_variant()
    if flags.variant == "jit" and flags.mode == "train":
        peer.unsupported("jit only infers")
    compiled = flags.variant.startswith("compile")
    if compiled and not hasattr(torch, "compile"):
        peer.unsupported("PyTorch %s has no torch.compile" % torch.__version__)
    torch.set_num_threads(flags.threads)
    torch.manual_seed(1)
    model, parameters = torch_models.build_model(flags.model)
    inputs, labels = (torch.from_numpy(array) for array in peer.random_data(flags))
    if labels.dtype == torch.int32:
        labels = labels.long()
    if flags.export:
        export(model, inputs, parameters)
        return
    if flags.variant.endswith("channels_last"):
        if inputs.dim() != 4:
            peer.unsupported("channels_last is for images")
        model = model.to(memory_format=torch.channels_last)
        inputs = inputs.contiguous(memory_format=torch.channels_last)

    if flags.device != "cpu":
        train_on_cuda(model, inputs, labels, parameters) if flags.mode == "train" else infer_on_cuda(
            model, inputs, parameters)
        return
    if flags.variant == "graph":
        peer.unsupported("graph needs a CUDA device")

    start = time.perf_counter()
    if flags.mode == "infer":
        model.eval()
        if flags.variant == "jit":
            with torch.no_grad():
                model = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, inputs)))
        if compiled:
            torch._inductor.config.freezing = True
            model = torch.compile(model)

        def infer():
            with torch.no_grad():
                return model(inputs).numpy()

        peer.measure(infer, flags, parameters, start)
        return

    def loss_of(inputs, labels):
        return torch_models.loss_of(flags.model, model(inputs), inputs, labels)

    if compiled:
        loss_of = torch.compile(loss_of)
    optimizer = torch_models.make_optimizer(flags.model, model)

    def train():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(inputs, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    peer.measure(train, flags, parameters, start)


main()
