"""The models in PyTorch.

Variants: eager; channels_last (eager, with images stored as [batch, height, width, channels]); jit (a trace optimized
for inference, for inference only); compile (torch.compile) and compile_channels_last, which need a C++ compiler;
graph, on CUDA devices only (captures the step in a CUDA graph and replays it). On a CUDA device a step begins with a
copy of its data from pinned memory and ends with a copy of its result, as in Gradweave.

--precision on a CUDA device: tf32 lets matrix products and convolutions round their operands, as Gradweave does. bf16
runs forward pass and loss under torch.autocast with bfloat16, as is usual. It also stores the results of products and
convolutions as bfloat16, so it moves less memory and rounds more than Gradweave, which rounds only operands.
"""

import peer

flags = peer.parse_flags(__doc__, ["eager", "channels_last", "jit", "compile", "compile_channels_last", "graph"],
                         cuda=True)

import torch
from torch import nn
import torch.nn.functional as F


class Block(nn.Module):
    """Two convolutions, with the input added to their result."""

    def __init__(self, inputs, channels, stride):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False), batch_norm(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), batch_norm(channels))
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride=stride, bias=False),
                                          batch_norm(channels))

    def forward(self, x):
        return F.relu(self.layers(x) + self.shortcut(x))


class Encoder(nn.Module):
    """Attention and two dense layers. Each works on its normalized input and is added to it."""

    def __init__(self, width=128, hidden=512):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=peer.NORM_EPSILON)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.norm2 = nn.LayerNorm(width, eps=peer.NORM_EPSILON)
        self.dense1 = nn.Linear(width, hidden)
        self.dense2 = nn.Linear(hidden, width)

    def attention(self, x):
        batch, tokens, width = x.shape
        q, k, v = (layer(x).view(batch, tokens, peer.HEADS, width // peer.HEADS).transpose(1, 2)
                   for layer in (self.query, self.key, self.value))
        if hasattr(F, "scaled_dot_product_attention"):
            joined = F.scaled_dot_product_attention(q, k, v)
        else:
            weights = torch.softmax(q @ k.transpose(2, 3) * (width // peer.HEADS)**-0.5, dim=3)
            joined = weights @ v
        return self.output(joined.transpose(1, 2).reshape(batch, tokens, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.dense2(F.gelu(self.dense1(self.norm2(x))))


def batch_norm(channels):
    return nn.BatchNorm2d(channels, eps=peer.NORM_EPSILON, momentum=peer.BATCH_NORM_MOMENTUM)


def build_model(name):
    if name == "lenet":
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10))
    if name == "mlp":
        return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    if name == "vgg":
        layers, inputs = [], 3
        for channels in [16, 32, 64]:
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(),
                       nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            inputs = channels
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))
    if name == "resnet":
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), batch_norm(16), nn.ReLU(),
            Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return Encoder()


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
    optimizer = torch.optim.SGD(model.parameters(), lr=peer.LEARNING_RATES[flags.model],
                                **({"fused": True} if hasattr(torch, "compile") else {}))

    def loss_of(inputs, labels):
        output = model(inputs)
        return output.square().mean() if flags.model == "transformer" else F.cross_entropy(output, labels)

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


def main():
    flags.variant = flags.variant or default_variant()
    if flags.variant == "jit" and flags.mode == "train":
        peer.unsupported("jit only infers")
    compiled = flags.variant.startswith("compile")
    if compiled and not hasattr(torch, "compile"):
        peer.unsupported("PyTorch %s has no torch.compile" % torch.__version__)
    torch.set_num_threads(flags.threads)
    torch.manual_seed(1)
    model = build_model(flags.model)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    inputs, labels = (torch.from_numpy(array) for array in peer.random_data(flags))
    labels = labels.long()
    if flags.variant.endswith("channels_last") and inputs.dim() == 4:
        model = model.to(memory_format=torch.channels_last)
        inputs = inputs.contiguous(memory_format=torch.channels_last)

    if flags.device != "cpu":
        train_on_cuda(model, inputs, labels, parameters) if flags.mode == "train" else infer_on_cuda(
            model, inputs, parameters)
        return
    if flags.variant == "graph":
        peer.unsupported("graph needs a CUDA device")

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

        peer.measure(infer, flags, parameters)
        return

    def loss_of(inputs, labels):
        output = model(inputs)
        return output.square().mean() if flags.model == "transformer" else F.cross_entropy(output, labels)

    if compiled:
        loss_of = torch.compile(loss_of)
    settings = {"fused": True} if hasattr(torch, "compile") else {}
    optimizer = torch.optim.SGD(model.parameters(), lr=peer.LEARNING_RATES[flags.model], **settings)

    def train():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(inputs, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    peer.measure(train, flags, parameters)


main()
