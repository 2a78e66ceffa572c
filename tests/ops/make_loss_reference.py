"""Prints what PyTorch gives for the losses of tests/ops/losses_test.cc, which has these numbers.

    apt-get install python3-torch    # 1.13
    /usr/bin/python3 tests/ops/make_loss_reference.py
"""

import numpy as np
import torch
import torch.nn.functional as F


def waves(count, phase, scale, shift=0):
    """The operands of the test: float32 numbers, with which both compute in float64."""
    return torch.tensor((scale * np.sin(phase + np.arange(count)) + shift).astype(np.float32).astype(np.float64))


X = waves(20, 1, 3).reshape(5, 4)
T = waves(20, 2, 1).reshape(5, 4)
N = waves(20, 3, 2).reshape(5, 4)
P = waves(20, 4, 0.5, 0.5).reshape(5, 4)
SAMPLES = waves(5, 5, 0.5, 0.75)
CLASSES = waves(4, 6, 0.5, 0.75)
LABELS = torch.tensor([1, 3, 0, 3, 2])
SIGNS = torch.tensor([1.0, -1, -1, 1, -1], dtype=torch.float64)
LOGITS = waves(3 * 6 * 4, 7, 2).reshape(3, 6, 4)
LOGS = F.log_softmax(LOGITS, 2).transpose(0, 1)
LETTERS = torch.tensor([[1, 1, 2], [3, 2, 3], [2, 1, 1]])


def weighted(losses, weights):
    return (losses * weights).sum() / weights.sum()


def ctc(steps, lengths, **options):
    return F.ctc_loss(LOGS, LETTERS, torch.tensor(steps), torch.tensor(lengths), **options)


SOFT = F.softmax(N, 1)
ROWS = {
    "mean_absolute_error": F.l1_loss(X, T),
    "mean_squared_error_weighted": weighted(((X - T)**2).mean(1), SAMPLES),
    "mean_squared_error_sum": F.mse_loss(X, T, reduction="sum"),
    "huber": F.huber_loss(X, T, delta=0.7),
    "binary_cross_entropy_weighted": weighted(F.binary_cross_entropy_with_logits(X, P, reduction="none"), P),
    "hinge": torch.clamp(0.8 - SIGNS.reshape(5, 1) * X, min=0).mean(),
    "cross_entropy": F.cross_entropy(X, LABELS),
    "cross_entropy_class_weights": F.cross_entropy(X, LABELS, weight=CLASSES),
    "cross_entropy_ignored": F.cross_entropy(X, LABELS, ignore_index=3),
    "cross_entropy_smoothed": F.cross_entropy(X, LABELS, label_smoothing=0.2),
    "cross_entropy_all": F.cross_entropy(X, LABELS, weight=CLASSES, ignore_index=3, label_smoothing=0.2),
    "cross_entropy_all_sum": F.cross_entropy(X, LABELS, weight=CLASSES, ignore_index=3, label_smoothing=0.2,
                                             reduction="sum"),
    "cross_entropy_samples": weighted(F.cross_entropy(X, LABELS, reduction="none"), SAMPLES),
    "cross_entropy_soft": F.cross_entropy(X, SOFT),
    "cross_entropy_soft_all": F.cross_entropy(X, SOFT, weight=CLASSES, label_smoothing=0.2),
    "nll": F.nll_loss(F.log_softmax(X, 1), LABELS, weight=CLASSES),
    "kl": F.kl_div(F.log_softmax(X, 1), SOFT, reduction="batchmean"),
    "multi_class_hinge": F.multi_margin_loss(X, LABELS, margin=0.7),
    "triplet": F.triplet_margin_loss(X, N, T, margin=0.5, eps=0),
    "cosine_embedding": F.cosine_embedding_loss(X, N, SIGNS, margin=0.1),
    "ctc": ctc([6, 6, 6], [3, 3, 3]),
    "ctc_lengths_mean": ctc([6, 4, 5], [3, 2, 1]),
    "ctc_lengths_sum": ctc([6, 4, 5], [3, 2, 0], reduction="sum"),
    "ctc_zero_infinity": ctc([3, 4, 6], [3, 3, 3], reduction="sum", zero_infinity=True),
}
for name, value in ROWS.items():
    print('{"%s", %.15g},' % (name, value))
EACH = {
    "cross_entropy_each": F.cross_entropy(X, LABELS, weight=CLASSES, ignore_index=3, label_smoothing=0.2,
                                          reduction="none"),
    "ctc_each": ctc([6, 4, 5], [3, 2, 1], reduction="none"),
    "ctc_infinite": ctc([3, 4, 6], [3, 3, 3], reduction="none"),
}
for name, values in EACH.items():
    print(name, ["%.15g" % value for value in values])
# The gradient of one CTC loss with respect to the logits of its first two steps.
logits = LOGITS.clone().requires_grad_()
loss = F.ctc_loss(F.log_softmax(logits, 2).transpose(0, 1), LETTERS, torch.tensor([6, 4, 5]), torch.tensor([3, 2, 1]),
                  reduction="sum")
print("ctc_gradient", ["%.15g" % value for value in torch.autograd.grad(loss, logits)[0].reshape(-1)[:8]])
