"""Writes layer_reference.txt: the results of PyTorch for the layers of tests/models/layers_test.cc.

    apt-get install python3-torch    # 1.13
    /usr/bin/python3 tests/models/make_layer_reference.py

Parameters have Gradweave's layout: a dense weight is [in, out].
"""

import math

import torch
import torch.nn.functional as F

from reference_numbers import numbers, parameter, record, tensor, write

X, DY, PARAMETERS = 900, 901, 910  # Seeds; parameter i of a layer has the seed PARAMETERS + i.


def record_layer(name, x_sizes, parameters, function, x_range=(-1, 1)):
    """Records y = function(x, **parameters), and the gradients of sum(y * numbers(DY)). Parameters are name: sizes."""
    x = tensor(numbers(X, x_sizes, *x_range), grad=True)
    p = {key: parameter(PARAMETERS + i, sizes, 1) for i, (key, sizes) in enumerate(parameters.items())}
    y = function(x, **p)
    record(name + "/y", y)
    gradients = torch.autograd.grad(y, [x] + list(p.values()), tensor(numbers(DY, tuple(y.shape))))
    for key, gradient in zip(["x"] + list(p), gradients):
        if not key.endswith("key_bias"):  # Softmax ignores what all keys share, so this is 0 except for rounding.
            record(name + "/gradient/" + key, gradient)


def activations():
    # F.hardsigmoid rounds its gradient, 1/6, to float32.
    functions = {"swish": F.silu, "hard_sigmoid": lambda x: F.relu6(x + 3) / 6, "hard_swish": F.hardswish,
                 "mish": F.mish}
    for name, function in functions.items():
        record_layer(name, (60,), {}, function, (-6, 6))
    record_layer("prelu", (3, 4, 5), {"slope": (4,)}, lambda x, slope: F.prelu(x, slope))
    record_layer("prelu_shared", (3, 4, 5), {"slope": ()}, lambda x, slope: F.prelu(x, slope.reshape(1)))


def norms():
    affine = {"scale": (6,), "offset": (6,)}
    record_layer("group_norm", (2, 6, 3, 4), affine, lambda x, scale, offset: F.group_norm(x, 3, scale, offset, 1e-3))
    record_layer("group_norm_plain", (4, 6), {}, lambda x: F.group_norm(x, 2))
    record_layer("instance_norm", (2, 6, 5), affine,
                 lambda x, scale, offset: F.instance_norm(x, weight=scale, bias=offset, eps=1e-5))
    record_layer("instance_norm_plain", (2, 3, 4, 5), {}, lambda x: F.instance_norm(x, eps=1e-5))
    # PyTorch 1.13 has no RMSNorm; this is the formula of version 2.4.
    record_layer("rms_norm", (3, 4, 6), {"scale": (4, 6)},
                 lambda x, scale: x * torch.rsqrt(x.pow(2).mean((1, 2), keepdim=True) + 1e-5) * scale)


def convolutions():
    record_layer("conv1d", (2, 4, 11), {"filter": (6, 2, 3), "bias": (6,)},
                 lambda x, filter, bias: F.conv1d(x, filter, bias, stride=2, padding=3, dilation=2, groups=2))
    record_layer("max_pool1d", (2, 3, 9), {}, lambda x: F.max_pool1d(x, 3, 2, 1))
    record_layer("avg_pool1d", (2, 3, 9), {}, lambda x: F.avg_pool1d(x, 2))
    record_layer("avg_pool1d_counted", (2, 3, 9), {}, lambda x: F.avg_pool1d(x, 3, 2, 1, count_include_pad=True))


# ---- Recurrent layers ----

BATCH, TIME, WIDTH, FEATURES, PROJECTION = 3, 5, 4, 3, 2
LENGTHS = [5, 2, 3]


def recurrent_parameters(gates, width=WIDTH, hidden=FEATURES, **more):
    return {"input_weight": (width, gates * FEATURES), "recurrent_weight": (hidden, gates * FEATURES),
            "bias": (gates * FEATURES,), **more}


def projected_parameters(width=WIDTH):
    return recurrent_parameters(4, width, PROJECTION, projection_weight=(FEATURES, PROJECTION))


def flat_weights(p):
    """Returns weights as torch.nn.LSTM, GRU and RNN hold them."""
    second_bias = torch.zeros_like(p["bias"])
    if "recurrent_bias" in p:
        second_bias = torch.cat([second_bias[:2 * FEATURES], p["recurrent_bias"]])
    weights = [p["input_weight"].t(), p["recurrent_weight"].t(), p["bias"], second_bias]
    return weights + ([p["projection_weight"].t()] if "projection_weight" in p else [])


def run_pytorch(mode, x, flat, first, lengths=None, directions=1, layers=1):
    """Returns the sequence and the last states of one of PyTorch's recurrent layers."""
    function = getattr(torch._VF, mode)
    first = first[0] if len(first) == 1 else first
    if lengths is None:
        sequence, *last = function(x, first, flat, True, layers, 0.0, False, directions == 2, True)
        return sequence, last
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    order = packed.sorted_indices
    first = tuple(f[:, order] for f in first) if isinstance(first, tuple) else first[:, order]
    data, *last = function(packed.data, packed.batch_sizes, first, flat, True, layers, 0.0, False,
                            directions == 2)
    packed = torch.nn.utils.rnn.PackedSequence(data, packed.batch_sizes, order, packed.unsorted_indices)
    sequence, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    return sequence, [state[:, packed.unsorted_indices] for state in last]


def record_recurrent(name, parameters, states, function):
    """Records sequence, last states and gradients of a layer with first states, from numbers(). States are
    name: features."""
    x = tensor(numbers(X, (BATCH, TIME, WIDTH)), grad=True)
    p = {key: parameter(PARAMETERS + i, sizes, 1) for i, (key, sizes) in enumerate(parameters.items())}
    first = {key: parameter(950 + i, (BATCH, features), 1) for i, (key, features) in enumerate(states.items())}
    sequence, last = function(x, p, list(first.values()))
    record(name + "/sequence", sequence)
    for key, value in zip(states, last):
        record(name + "/last_" + key, value)
    loss = (sequence * tensor(numbers(DY, tuple(sequence.shape)))).sum()
    for i, value in enumerate(last):
        loss = loss + (value * tensor(numbers(960 + i, tuple(value.shape)))).sum()
    operands = {"x": x, **p, **first}
    for key, gradient in zip(operands, torch.autograd.grad(loss, list(operands.values()))):
        record(name + "/gradient/" + key, gradient)


def one_direction(mode, lengths=None, backwards=False):
    def function(x, p, first):
        flat = flat_weights(p)
        if not backwards:
            sequence, last = run_pytorch(mode, x, flat, tuple(f[None] for f in first), lengths)
            return sequence, [state[0] for state in last]
        # The second direction of two.
        first = tuple(torch.stack([torch.zeros_like(f), f]) for f in first)
        sequence, last = run_pytorch(mode, x, [torch.zeros_like(w) for w in flat] + flat, first, lengths, 2)
        return sequence[..., sequence.shape[2] // 2:], [state[1] for state in last]

    return function


def reset_before(x, p, first):
    """Returns the GRU of Cho et al.; PyTorch has only the other form."""
    h, outputs = first[0], []
    for t in range(x.shape[1]):
        xr, xz, xn = (x[:, t] @ p["input_weight"] + p["bias"]).chunk(3, 1)
        wr, wz, wn = p["recurrent_weight"].chunk(3, 1)
        r, z = torch.sigmoid(xr + h @ wr), torch.sigmoid(xz + h @ wz)
        h = (1 - z) * torch.tanh(xn + (r * h) @ wn) + z * h
        outputs.append(h)
    return torch.stack(outputs, 1), [h]


def lstm_by_steps(lengths=None, backwards=False):
    """Returns the LSTM with peepholes of Gers and Schmidhuber, which PyTorch lacks, with or without a projection."""
    def function(x, p, first):
        (h, c), outputs = first, [None] * TIME
        peepholes = p["peephole_weight"].chunk(3)
        for t in reversed(range(TIME)) if backwards else range(TIME):
            i, f, g, o = (x[:, t] @ p["input_weight"] + p["bias"] + h @ p["recurrent_weight"]).chunk(4, 1)
            cell = torch.sigmoid(f + peepholes[1] * c) * c + torch.sigmoid(i + peepholes[0] * c) * torch.tanh(g)
            hidden = torch.sigmoid(o + peepholes[2] * cell) * torch.tanh(cell)
            if "projection_weight" in p:
                hidden = hidden @ p["projection_weight"]
            inside = torch.tensor([t < length for length in lengths or [TIME] * BATCH])[:, None]
            outputs[t] = torch.where(inside, hidden, torch.zeros_like(hidden))
            h, c = torch.where(inside, hidden, h), torch.where(inside, cell, c)
        return torch.stack(outputs, 1), [h, c]

    return function


def lstm_variants():
    plain, projected = {"hidden": FEATURES, "cell": FEATURES}, {"hidden": PROJECTION, "cell": FEATURES}
    for suffix, lengths, backwards in (("", None, False), ("_backwards_lengths", LENGTHS, True)):
        record_recurrent("lstm_projection" + suffix, projected_parameters(), projected,
                         one_direction("lstm", lengths, backwards))
        record_recurrent("lstm_peepholes" + suffix, recurrent_parameters(4, peephole_weight=(3 * FEATURES,)), plain,
                         lstm_by_steps(lengths, backwards))
    peepholes = {**recurrent_parameters(4, hidden=PROJECTION), "peephole_weight": (3 * FEATURES,),
                 "projection_weight": (FEATURES, PROJECTION)}
    record_recurrent("lstm_peepholes_projection_lengths", peepholes, projected, lstm_by_steps(LENGTHS))


def stacks():
    """Two layers, as num_layers of PyTorch makes them."""
    def prefixed(prefix, parameters):
        return {prefix + key: sizes for key, sizes in parameters.items()}

    def stacked(mode, sides, lengths):
        def function(x, p, first):
            flat = []
            for prefix in ["layer_%d/" % layer + side for layer in (1, 2) for side in sides]:
                flat += flat_weights({key[len(prefix):]: value for key, value in p.items() if key.startswith(prefix)})
            kinds = 2 if mode == "lstm" else 1
            states = tuple(torch.stack(first[kind::kinds]) for kind in range(kinds))
            sequence, last = run_pytorch(mode, x, flat, states, lengths, len(sides), 2)
            return sequence, [last[kind][i] for i in range(2 * len(sides)) for kind in range(kinds)]

        return function

    sides = ("forward/", "backward/")
    parameters = {}
    for layer, width in ((1, WIDTH), (2, 2 * PROJECTION)):
        for side in sides:
            parameters.update(prefixed("layer_%d/%s" % (layer, side), projected_parameters(width)))
    states = {key + "_%d" % i: features for i in range(4)
              for key, features in (("hidden", PROJECTION), ("cell", FEATURES))}
    record_recurrent("stack_bidirectional", parameters, states, stacked("lstm", sides, LENGTHS))
    gru = {}
    for layer, width in ((1, WIDTH), (2, FEATURES)):
        gru.update(prefixed("layer_%d/" % layer, recurrent_parameters(3, width, recurrent_bias=(FEATURES,))))
    record_recurrent("stack_gru", gru, {"hidden_0": FEATURES, "hidden_1": FEATURES}, stacked("gru", ("",), None))


def recurrent():
    lstm_states, one_state = {"hidden": FEATURES, "cell": FEATURES}, {"hidden": FEATURES}
    lstm, rnn = recurrent_parameters(4), recurrent_parameters(1)
    gru = recurrent_parameters(3, recurrent_bias=(FEATURES,))
    for suffix, lengths, backwards in (("", None, False), ("_lengths", LENGTHS, False), ("_backwards", None, True),
                                       ("_backwards_lengths", LENGTHS, True)):
        record_recurrent("lstm" + suffix, lstm, lstm_states, one_direction("lstm", lengths, backwards))
        record_recurrent("gru" + suffix, gru, one_state, one_direction("gru", lengths, backwards))
    record_recurrent("gru_reset_before", recurrent_parameters(3), one_state, reset_before)
    record_recurrent("rnn", rnn, one_state, one_direction("rnn_tanh"))
    record_recurrent("rnn_relu_lengths", rnn, one_state, one_direction("rnn_relu", LENGTHS))


def bidirectional():
    parameters = {side + "/" + key: sizes for side in ("forward", "backward")
                  for key, sizes in recurrent_parameters(4).items()}

    def both(x, p, lengths=None):
        flat = [w for side in ("forward/", "backward/")
                for w in flat_weights({key: p[side + key] for key in recurrent_parameters(4)})]
        zeros = torch.zeros(2, BATCH, FEATURES, dtype=torch.float64)
        return run_pytorch("lstm", x, flat, (zeros, zeros), lengths, 2)

    shape = (BATCH, TIME, WIDTH)
    record_layer("bidirectional", shape, parameters, lambda x, **p: both(x, p)[0])
    record_layer("bidirectional_sum", shape, parameters,
                 lambda x, **p: sum(both(x, p, LENGTHS)[0].chunk(2, 2)))
    record_layer("bidirectional_last", shape, parameters,
                 lambda x, **p: torch.cat(list(both(x, p, LENGTHS)[1][0]), 1))


# ---- Attention ----


def attention_parameters(width, key_width, value_width, features):
    return {"query_weight": (width, features), "key_weight": (key_width, features),
            "value_weight": (value_width, features), "output_weight": (features, width), "query_bias": (features,),
            "key_bias": (features,), "value_bias": (features,), "output_bias": (width,)}


def multi_head_attention(x, key, value, heads, p, mask=None):
    """Returns y and weights; the mask is as in F.multi_head_attention_forward, and True there excludes a key."""
    width = x.shape[2]
    y, weights = F.multi_head_attention_forward(
        x.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1), width, heads, None,
        torch.cat([p["query_bias"], p["key_bias"], p["value_bias"]]), None, None, False, 0.0, p["output_weight"].t(),
        p["output_bias"], attn_mask=mask, use_separate_proj_weight=True, q_proj_weight=p["query_weight"].t(),
        k_proj_weight=p["key_weight"].t(), v_proj_weight=p["value_weight"].t(), average_attn_weights=False)
    return y.transpose(0, 1), weights


def attention():
    self_parameters = attention_parameters(6, 6, 6, 6)
    causal = torch.ones(5, 5).triu(1).bool()
    added = tensor(numbers(970, (5, 5), -2, 2))
    per_head = (tensor(numbers(971, (2 * 3, 5, 5))) > 0.3) & ~torch.eye(5).bool()
    rows = [("plain", None), ("causal", causal), ("added", added), ("per_head", per_head)]
    for name, mask in rows:
        record_layer("attention_layer_" + name, (2, 5, 6), self_parameters,
                     lambda x, **p: multi_head_attention(x, x, x, 3, p, mask)[0])
    lengths = torch.tensor([3, 5])
    behind = (torch.arange(5)[None, None, :] >= lengths[:, None, None]).repeat_interleave(3, 0).expand(6, 5, 5)
    record_layer("attention_layer_lengths", (2, 5, 6), self_parameters,
                 lambda x, **p: multi_head_attention(x, x, x, 3, p, behind)[0])
    key, value = tensor(numbers(972, (2, 4, 5))), tensor(numbers(973, (2, 4, 3)))
    record_layer("attention_layer_cross", (2, 5, 6), attention_parameters(6, 5, 3, 6),
                 lambda x, **p: multi_head_attention(x, key, value, 2, p)[0])
    x = tensor(numbers(X, (2, 5, 6)))
    p = {key: parameter(PARAMETERS + i, sizes, 1) for i, (key, sizes) in enumerate(self_parameters.items())}
    record("attention_weights/weights", multi_head_attention(x, x, x, 3, p)[1])


def transformer_block():
    parameters = {"residual_1/layer_norm_1/scale": (4,), "residual_1/layer_norm_1/offset": (4,)}
    for key, sizes in attention_parameters(4, 4, 4, 4).items():
        parameters["residual_1/multi_head_attention_1/" + key] = sizes
    parameters.update({"residual_2/layer_norm_1/scale": (4,), "residual_2/layer_norm_1/offset": (4,),
                       "residual_2/dense_1/weight": (4, 7), "residual_2/dense_1/bias": (7,),
                       "residual_2/dense_2/weight": (7, 4), "residual_2/dense_2/bias": (4,)})

    def block(x, **p):
        """Returns what torch.nn.TransformerEncoderLayer with norm_first computes."""
        one = {key.split("/", 1)[1]: value for key, value in p.items() if key.startswith("residual_1")}
        two = {key.split("/", 1)[1]: value for key, value in p.items() if key.startswith("residual_2")}
        h = F.layer_norm(x, (4,), one["layer_norm_1/scale"], one["layer_norm_1/offset"])
        weights = {key.split("/")[1]: value for key, value in one.items() if key.startswith("multi")}
        x = x + multi_head_attention(h, h, h, 2, weights)[0]
        h = F.layer_norm(x, (4,), two["layer_norm_1/scale"], two["layer_norm_1/offset"])
        h = F.gelu(h @ two["dense_1/weight"] + two["dense_1/bias"])
        return x + h @ two["dense_2/weight"] + two["dense_2/bias"]

    record_layer("transformer_block", (2, 3, 4), parameters, block)


def positions():
    record_layer("positional_embedding", (2, 3, 4), {"table": (5, 4)}, lambda x, table: x + table[:3])
    # As in PyTorch's tutorial "Language modeling with nn.Transformer".
    position = torch.arange(50, dtype=torch.float64)[:, None]
    rate = torch.exp(torch.arange(0, 8, 2, dtype=torch.float64) * (-math.log(10000.0) / 8))
    table = torch.zeros(50, 8, dtype=torch.float64)
    table[:, 0::2], table[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
    record_layer("sinusoidal_positions", (2, 50, 8), {}, lambda x: x + table)


for part in (activations, norms, convolutions, recurrent, lstm_variants, bidirectional, stacks, attention,
             transformer_block, positions):
    part()
write("layer_reference.txt", "make_layer_reference.py")
