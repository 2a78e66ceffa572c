"""Writes reference.txt: the results of PyTorch for the models of tests/models/model_test.cc.

    apt-get install python3-torch    # 1.13
    /usr/bin/python3 tests/models/make_reference.py

Parameters have Gradweave's layout: a dense weight is [in, out].
"""

import torch
import torch.nn.functional as F

from reference_numbers import integers, numbers, parameter, record, tensor, write

# ---- LeNet, as in chapter 6.6 of "Dive into Deep Learning" (first edition, MXNet) ----

LENET = [("conv2d_1/filter", (6, 1, 5, 5), 0.3), ("conv2d_1/bias", (6,), 0.1),
         ("conv2d_2/filter", (16, 6, 5, 5), 0.2), ("conv2d_2/bias", (16,), 0.1),
         ("dense_1/weight", (400, 120), 0.15), ("dense_1/bias", (120,), 0.1),
         ("dense_2/weight", (120, 84), 0.2), ("dense_2/bias", (84,), 0.1),
         ("dense_3/weight", (84, 10), 0.3), ("dense_3/bias", (10,), 0.1)]


def lenet_logits(x, p):
    h = F.avg_pool2d(torch.sigmoid(F.conv2d(x, p[0], p[1], padding=2)), 2)
    h = F.avg_pool2d(torch.sigmoid(F.conv2d(h, p[2], p[3])), 2).flatten(1)
    h = torch.sigmoid(h @ p[4] + p[5])
    h = torch.sigmoid(h @ p[6] + p[7])
    return h @ p[8] + p[9]


def lenet():
    for dtype, name in ((torch.float64, "lenet/float64/"), (torch.float32, "lenet/float32/")):
        batch = 6
        x = tensor(numbers(100, (batch, 1, 28, 28), 0, 1), dtype)
        label = torch.tensor(integers(101, (batch,), 10))
        p = [parameter(i + 1, shape, bound, dtype) for i, (_, shape, bound) in enumerate(LENET)]
        loss = F.cross_entropy(lenet_logits(x, p), label)
        record(name + "logits", lenet_logits(x, p))
        record(name + "loss", loss)
        gradients = torch.autograd.grad(loss, p, create_graph=True)
        for (parameter_name, _, _), gradient in zip(LENET, gradients):
            record(name + "gradient/" + parameter_name, gradient)
        square_norm = sum((g * g).sum() for g in gradients)
        record(name + "square_norm", square_norm)
        for (parameter_name, _, _), gradient in zip(LENET, torch.autograd.grad(square_norm, p)):
            record(name + "second/" + parameter_name, gradient)
        losses = []
        sgd = torch.optim.SGD(p, lr=0.1)
        for _ in range(5):
            sgd.zero_grad()
            loss = F.cross_entropy(lenet_logits(x, p), label)
            loss.backward()
            sgd.step()
            losses.append(loss.item())
        record(name + "losses", losses)


# ---- A perceptron with batch normalization and inactive dropout ----


def batch_norm():
    x = tensor(numbers(200, (8, 12), -2, 3))
    label = torch.tensor(integers(201, (8,), 5))
    w1, b1 = parameter(202, (12, 16), 0.5), parameter(203, (16,), 0.2)
    scale, offset = tensor(numbers(204, (16,), 0.5, 1.5), grad=True), parameter(205, (16,), 0.3)
    w2, b2 = parameter(206, (16, 5), 0.5), parameter(207, (5,), 0.2)
    mean, variance = torch.zeros(16, dtype=torch.float64), torch.ones(16, dtype=torch.float64)
    parameters = [w1, b1, scale, offset, w2, b2]

    def logits(training):
        h = F.batch_norm(x @ w1 + b1, mean, variance, scale, offset, training, 0.1, 1e-5)
        return torch.relu(h) @ w2 + b2

    sgd = torch.optim.SGD(parameters, lr=0.2)
    losses = []
    for _ in range(4):
        sgd.zero_grad()
        loss = F.cross_entropy(logits(True), label)
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    record("batch_norm/model/losses", losses)
    record("batch_norm/model/moving_mean", mean)
    record("batch_norm/model/moving_variance", variance)
    for name, p in zip(("weight", "bias", "scale", "offset", "weight_2", "bias_2"), parameters):
        record("batch_norm/model/" + name, p)
    record("batch_norm/model/inference", logits(False))

    # The statistics of images are over batch, height and width.
    image = tensor(numbers(210, (3, 4, 5, 6), -1, 2), grad=True)
    y = F.batch_norm(image, None, None, tensor(numbers(211, (4,), 0.5, 2)), tensor(numbers(212, (4,))), True, 0.1, 1e-3)
    y.backward(tensor(numbers(213, (3, 4, 5, 6))))
    record("batch_norm/image/y", y)
    record("batch_norm/image/dx", image.grad)


# ---- Optimizers, on a perceptron ----

PERCEPTRON = ("dense_1/weight", "dense_1/bias", "dense_2/weight", "dense_2/bias")


class Formulas:
    """An optimizer that PyTorch 1.13 does not have, written from its paper. rule(p, g, state, t) returns the new p."""

    def __init__(self, parameters, rule):
        self.parameters, self.rule, self.t = parameters, rule, 0
        self.states = [{} for _ in parameters]

    def zero_grad(self):
        for p in self.parameters:
            p.grad = None

    def step(self):
        self.t += 1
        with torch.no_grad():
            for p, state in zip(self.parameters, self.states):
                p.copy_(self.rule(p.clone(), p.grad, state, self.t))


def average(state, name, beta, x):
    state[name] = beta * state.get(name, torch.zeros_like(x)) + (1 - beta) * x
    return state[name]


def nadam(lr, beta1, beta2, decay):
    # Dozat, "Incorporating Nesterov momentum into Adam", 2016, algorithm 2. PyTorch 1.13 multiplies the product of
    # the mu by mu_t twice.
    def rule(p, g, state, t):
        g = g + decay * p
        m, v = average(state, "m", beta1, g), average(state, "v", beta2, g * g)
        mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (0.004 * i)) for i in (t, t + 1))
        state["product"] = state.get("product", 1) * mu
        direction = mu_next * m / (1 - state["product"] * mu_next) + (1 - mu) * g / (1 - state["product"])
        return p - lr * direction / (torch.sqrt(v / (1 - beta2 ** t)) + 1e-8)
    return rule


def lion(lr, beta1, beta2, decay):
    # Chen et al., "Symbolic discovery of optimization algorithms", 2023, algorithm 2.
    def rule(p, g, state, t):
        update = torch.sign(beta1 * state.get("m", torch.zeros_like(p)) + (1 - beta1) * g)
        average(state, "m", beta2, g)
        return p - lr * (update + decay * p)
    return rule


def lamb(lr, beta1, beta2, decay):
    # You et al., "Large batch optimization for deep learning", 2020, algorithm 2.
    def rule(p, g, state, t):
        m, v = average(state, "m", beta1, g) / (1 - beta1 ** t), average(state, "v", beta2, g * g) / (1 - beta2 ** t)
        u = m / (torch.sqrt(v) + 1e-6) + decay * p
        return p - lr * torch.linalg.norm(p) / torch.linalg.norm(u) * u
    return rule


def muon(lr, momentum, nesterov, decay):
    # Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, in float64, for weights
    # [in, out]; AdamW for biases.
    def rule(p, g, state, t):
        if p.ndim < 2:
            m, v = average(state, "m", 0.9, g) / (1 - 0.9 ** t), average(state, "v", 0.95, g * g) / (1 - 0.95 ** t)
            return p - 3e-4 * m / (torch.sqrt(v) + 1e-8)
        m = average(state, "m", momentum, g)
        x = (1 - momentum) * g + momentum * m if nesterov else m
        x = x / torch.sqrt((x * x).sum())
        # An odd polynomial of a matrix is that polynomial of its singular values.
        u, singular, v = torch.linalg.svd(x, full_matrices=False)
        for _ in range(5):
            singular = 3.4445 * singular - 4.775 * singular ** 3 + 2.0315 * singular ** 5
        return p - lr * (max(1, p.shape[1] / p.shape[0]) ** 0.5 * (u * singular) @ v + decay * p)
    return rule


def lookahead(lr, momentum, alpha, every):
    # Zhang et al., "Lookahead optimizer", 2019, algorithm 1, around gradient descent with momentum.
    def rule(p, g, state, t):
        slow = state.setdefault("slow", p)
        state["velocity"] = momentum * state.get("velocity", torch.zeros_like(p)) + g
        p = p - lr * state["velocity"]
        if t % every == 0:
            p = state["slow"] = slow + alpha * (p - slow)
        return p
    return rule


def optimizers():
    makers = {
        "sgd_decay": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.02),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.99)),
        "adam_decay": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.1),
        "amsgrad": lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.5, 0.6), amsgrad=True),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
        "adamw_amsgrad": lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.5, 0.6), weight_decay=0.1, amsgrad=True),
        "adamax": lambda p: torch.optim.Adamax(p, lr=0.02, betas=(0.8, 0.9), weight_decay=0.1),
        "nadam": lambda p: Formulas(p, nadam(0.02, 0.8, 0.99, 0.1)),
        # The first five steps are not rectified.
        "radam": lambda p: torch.optim.RAdam(p, lr=0.02, betas=(0.8, 0.99), weight_decay=0.1),
        "radam_unrectified": lambda p: torch.optim.RAdam(p, lr=0.02, betas=(0.8, 0.6)),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, weight_decay=0.05),
        "rmsprop_momentum": lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.95, momentum=0.7),
        "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, weight_decay=0.01),
        "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5, rho=0.8, weight_decay=0.01),
        "lion": lambda p: Formulas(p, lion(0.01, 0.8, 0.9, 0.1)),
        "lamb": lambda p: Formulas(p, lamb(0.02, 0.8, 0.99, 0.1)),
        "muon": lambda p: Formulas(p, muon(0.02, 0.9, True, 0.1)),
        "muon_plain": lambda p: Formulas(p, muon(0.02, 0.8, False, 0)),
        "lookahead": lambda p: Formulas(p, lookahead(0.1, 0.9, 0.7, 3)),
        "clip": lambda p: torch.optim.SGD(p, lr=0.5),
        "clip_value": lambda p: torch.optim.SGD(p, lr=0.5),
        "clip_value_and_norm": lambda p: torch.optim.SGD(p, lr=0.5),
        "step_decay": lambda p: torch.optim.SGD(p, lr=0.4),
        "cosine": lambda p: torch.optim.SGD(p, lr=0.4),
        "one_cycle": lambda p: torch.optim.SGD(p, lr=0.4),
    }
    schedules = {
        "step_decay": lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=2, gamma=0.1),
        "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=10, eta_min=0.01),
        "one_cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.4, total_steps=11, cycle_momentum=False),
    }
    for name, maker in makers.items():
        x = tensor(numbers(300, (8, 12)))
        label = torch.tensor(integers(301, (8,), 5))
        p = [parameter(302, (12, 9), 0.5), parameter(303, (9,), 0.2), parameter(304, (9, 5), 0.5), parameter(305, (5,), 0.2)]
        optimizer = maker(p)
        schedule = schedules[name](optimizer) if name in schedules else None
        losses = []
        averages = None
        for step in range(1, 11):
            optimizer.zero_grad()
            loss = F.cross_entropy(torch.tanh(x @ p[0] + p[1]) @ p[2] + p[3], label)
            loss.backward()
            if "clip_value" in name:
                torch.nn.utils.clip_grad_value_(p, 0.05)
            if name in ("clip", "clip_value_and_norm"):
                # PyTorch's clip_grad_norm_ adds 1e-6 to the norm; the paper does not.
                norm = torch.sqrt(sum((q.grad * q.grad).sum() for q in p))
                for q in p:
                    q.grad *= min(1.0, 0.3 / norm.item())
            optimizer.step()
            if schedule is not None:
                schedule.step()
            losses.append(loss.item())
            # Moving averages with decay 0.8: one that starts with the first weights, and one with corrected bias.
            weights = [q.detach().clone() for q in p]
            if averages is None:
                averages, sums = weights, [torch.zeros_like(w) for w in weights]
            averages = [0.8 * a + 0.2 * w for a, w in zip(averages, weights)]
            sums = [0.8 * a + 0.2 * w for a, w in zip(sums, weights)]
        record("optimizer/%s/losses" % name, losses)
        for q, parameter_name in zip(p, PERCEPTRON):
            record("optimizer/%s/%s" % (name, parameter_name), q)
        if name == "adam":
            for a, total, parameter_name in zip(averages, sums, PERCEPTRON):
                record("average/plain/" + parameter_name, a)
                record("average/corrected/" + parameter_name, total / (1 - 0.8**10))


# ---- Convolutions and pooling ----


def convolutions():
    # Columns: name, x, filter, stride, padding, dilation, groups.
    plain = [("plain", (2, 3, 9, 8), (4, 3, 3, 3), (1, 1), (0, 0), (1, 1), 1),
             ("stride", (2, 3, 10, 9), (4, 3, 3, 2), (2, 3), (1, 0), (1, 1), 1),
             ("dilation", (2, 2, 11, 12), (3, 2, 3, 3), (1, 2), (2, 1), (2, 3), 1),
             ("groups", (2, 4, 7, 7), (6, 2, 3, 3), (1, 1), (1, 1), (1, 1), 2),
             ("depthwise", (3, 4, 8, 8), (8, 1, 3, 3), (2, 2), (1, 1), (1, 1), 4),
             ("pointwise", (2, 5, 4, 6), (7, 5, 1, 1), (1, 1), (0, 0), (1, 1), 1)]
    for name, x_sizes, filter_sizes, stride, padding, dilation, groups in plain:
        x, w, b = parameter(400, x_sizes, 1), parameter(401, filter_sizes, 1), parameter(402, filter_sizes[:1], 1)
        y = F.conv2d(x, w, b, stride, padding, dilation, groups)
        record_gradients("conv/" + name, y, (x, w, b))
    # Columns: name, x, filter [in, out/groups, height, width], stride, padding, output padding,
    # dilation, groups.
    transposed = [("plain", (2, 3, 5, 4), (3, 4, 3, 3), (1, 1), (0, 0), (0, 0), (1, 1), 1),
                  ("stride", (2, 3, 5, 4), (3, 2, 3, 4), (2, 3), (1, 1), (1, 2), (1, 1), 1),
                  ("groups_dilation", (2, 4, 5, 6), (4, 3, 3, 2), (2, 1), (1, 0), (0, 0), (2, 2), 2)]
    for name, x_sizes, filter_sizes, stride, padding, output_padding, dilation, groups in transposed:
        x, w = parameter(410, x_sizes, 1), parameter(411, filter_sizes, 1)
        b = parameter(412, (filter_sizes[1] * groups,), 1)
        y = F.conv_transpose2d(x, w, b, stride, padding, output_padding, groups, dilation)
        record_gradients("conv_transpose/" + name, y, (x, w, b))


def record_gradients(name, y, operands):
    record(name + "/y", y)
    gradients = torch.autograd.grad(y, operands, tensor(numbers(420, tuple(y.shape))))
    for operand, gradient in zip(("dx", "dfilter", "dbias"), gradients):
        record(name + "/" + operand, gradient)


def pooling():
    # Columns: name, x, window, stride, padding.
    rows = [("plain", (2, 3, 8, 6), (2, 2), (2, 2), (0, 0)), ("overlap", (2, 2, 9, 8), (3, 3), (2, 2), (1, 1)),
            ("oblong", (1, 2, 9, 11), (3, 2), (1, 3), (1, 0))]
    for name, sizes, window, stride, padding in rows:
        x = parameter(500, sizes, 1)
        record_gradients("max_pool/" + name, F.max_pool2d(x, window, stride, padding), (x,))
        for suffix, count in (("", False), ("_counted", True)):
            y = F.avg_pool2d(x, window, stride, padding, count_include_pad=count)
            record_gradients("avg_pool/" + name + suffix, y, (x,))


# ---- Attention: embedding, softmax, layer normalization and gelu ----

ATTENTION = [("embedding", (11, 8), 1.0), ("query", (8, 8), 0.6), ("key", (8, 8), 0.6), ("value", (8, 8), 0.6),
             ("scale_1", (8,), 1.0), ("offset_1", (8,), 0.5), ("weight_1", (8, 16), 0.5), ("bias_1", (16,), 0.3),
             ("weight_2", (16, 8), 0.5), ("bias_2", (8,), 0.3), ("scale_2", (8,), 1.0), ("offset_2", (8,), 0.5),
             ("weight_3", (8, 3), 0.8)]


def attention():
    token = torch.tensor(integers(600, (2, 7), 11))
    label = torch.tensor(integers(601, (2,), 3))
    p = {name: parameter(602 + i, sizes, bound) for i, (name, sizes, bound) in enumerate(ATTENTION)}
    h = p["embedding"][token]
    q, k, v = h @ p["query"], h @ p["key"], h @ p["value"]
    weights = torch.softmax(q @ k.transpose(1, 2) / 8**0.5, -1)
    record("attention/weights", weights)
    h = F.layer_norm(h + weights @ v, (8,), p["scale_1"], p["offset_1"])
    f = F.gelu(h @ p["weight_1"] + p["bias_1"]) @ p["weight_2"] + p["bias_2"]
    h = F.layer_norm(h + f, (8,), p["scale_2"], p["offset_2"])
    loss = F.cross_entropy(h.mean(1) @ p["weight_3"], label)
    record("attention/loss", loss)
    names = list(p)
    for name, gradient in zip(names, torch.autograd.grad(loss, [p[name] for name in names])):
        record("attention/" + name, gradient)


# ---- Losses and activations ----


def losses():
    x = tensor(numbers(700, (5, 4), -3, 3), grad=True)
    wide = tensor(numbers(701, (5, 4), -80, 80), grad=True)
    target = tensor(numbers(702, (5, 4)))
    share = tensor(numbers(703, (5, 4), 0, 1))
    label = torch.tensor(integers(704, (5,), 4))
    rows = [("mean_squared_error", F.mse_loss(x, target), x), ("huber", F.huber_loss(x, target), x),
            ("huber_half", F.huber_loss(x, target, delta=0.5), x),
            ("binary_cross_entropy", F.binary_cross_entropy_with_logits(x, share), x),
            ("binary_cross_entropy_wide", F.binary_cross_entropy_with_logits(wide, share), wide),
            ("softmax_cross_entropy", F.cross_entropy(x, label), x),
            ("softmax_cross_entropy_wide", F.cross_entropy(wide, label), wide)]
    for name, loss, operand in rows:
        record("loss/" + name, loss)
        record("loss/" + name + "/gradient", torch.autograd.grad(loss, operand, retain_graph=True)[0])


def activations():
    rows = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "leaky_relu": F.leaky_relu, "elu": F.elu,
            "selu": F.selu, "gelu": F.gelu, "softplus": F.softplus}
    for name, function in rows.items():
        # PyTorch's softplus is linear above 20.
        x = tensor(numbers(800, (60,), -6, 6), grad=True)
        y = function(x)
        record("activation/%s/y" % name, y)
        gradient = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
        record("activation/%s/first" % name, gradient)


for part in (lenet, batch_norm, optimizers, convolutions, pooling, attention, losses, activations):
    part()
write("reference.txt", "make_reference.py")
