"""Prints what PyTorch gives for attention with each kind of mask: the result and the gradients of q, k and v.
The numbers are tests/ops/attention_reference.inc.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 numpy
    venv/bin/python tests/ops/make_attention_reference.py > tests/ops/attention_reference.inc
"""

import torch
import torch.nn.functional as F
from reference_rows import print_rows, waves

BATCH, HEADS, QUERIES, KEYS, WIDTH, VALUE_WIDTH = 2, 2, 5, 7, 4, 3
ROWS = {}


def add(name, mask=None, key_heads=HEADS, keys=KEYS, **options):
    q, k, v = (
        torch.tensor(waves(*sizes, phase=phase), requires_grad=True)
        for sizes, phase in [
            ((BATCH, HEADS, QUERIES, WIDTH), 1),
            ((BATCH, key_heads, keys, WIDTH), 2),
            ((BATCH, key_heads, keys, VALUE_WIDTH), 3),
        ]
    )
    dy = torch.tensor(waves(BATCH, HEADS, QUERIES, VALUE_WIDTH, phase=4))
    mask = None if mask is None else torch.tensor(mask)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)
    y.backward(dy)
    for suffix, value in [("", y), ("_dq", q.grad), ("_dk", k.grad), ("_dv", v.grad)]:
        ROWS[name + suffix] = value.detach().numpy()


add("plain")
add("scale", scale=0.3)
add("causal", is_causal=True)
add("causal_square", keys=QUERIES, is_causal=True)
add("queries_and_keys", waves(QUERIES, KEYS, phase=5) > -1)
add("padding", waves(BATCH, 1, 1, KEYS, phase=6) > -1)
add("all_axes", waves(BATCH, HEADS, QUERIES, KEYS, phase=7) > -1)
add("added", waves(HEADS, QUERIES, KEYS, phase=5))
EXCLUDED = waves(QUERIES, KEYS, phase=5)
EXCLUDED[EXCLUDED < -1] = -float("inf")
add("added_excluded", EXCLUDED)
add("one_key_head", key_heads=1, enable_gqa=True)
print_rows(ROWS)
