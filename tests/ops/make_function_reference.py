"""Prints what PyTorch, numpy and ONNX's reference implementation give for the functions of
tests/ops/cases/stored.cc. The numbers are tests/ops/function_reference.inc.

    apt-get install python3-torch    # 1.13, with numpy 1.24
    /usr/bin/python3 -m venv --system-site-packages venv && venv/bin/pip install onnx==1.16.2
    venv/bin/python tests/ops/make_function_reference.py > tests/ops/function_reference.inc
"""

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper
from onnx.reference import ReferenceEvaluator
from reference_rows import print_rows, waves


def reference(op, inputs, version=20, outputs=1, **attributes):
    """The results of an ONNX node. Inputs that are None are left out."""
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, **attributes)
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in zip(names, inputs)
        if value is not None
    ]
    outs = [helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None) for name in results]
    model = helper.make_model(
        helper.make_graph([node], "g", infos, outs), opset_imports=[helper.make_opsetid("", version)]
    )
    feeds = {name: value for name, value in zip(names, inputs) if value is not None}
    values = ReferenceEvaluator(model).run(None, feeds)
    return values if outputs > 1 else values[0]


def resize(x, scales=None, sizes=None, roi=None, version=19, **attributes):
    """Resizes the last axes of x, as many as there are numbers."""
    axes = list(range(x.ndim - len(scales or sizes), x.ndim))
    attributes = {"axes": axes, **attributes}
    return reference(
        "Resize",
        [
            x,
            None if roi is None else np.array(roi, np.float64),
            None if scales is None else np.array(scales, np.float32),
            None if sizes is None else np.array(sizes, np.int64),
        ],
        version,
        **attributes,
    )


def t(x):
    return torch.tensor(x)


ROWS = {}

# ---- Resize ----
IMAGE = waves(2, 1, 3, 4)
LINE = waves(1, 7)
half = {"coordinate_transformation_mode": "half_pixel"}
ROWS["resize_linear"] = resize(IMAGE, scales=[2.0, 1.5], mode="linear", **half)
ROWS["resize_align_corners"] = F.interpolate(t(IMAGE), size=(5, 2), mode="bilinear", align_corners=True)
ROWS["resize_asymmetric"] = resize(
    LINE, scales=[0.6], mode="linear", coordinate_transformation_mode="asymmetric"
)
ROWS["resize_pytorch_half_pixel"] = resize(
    IMAGE, sizes=[1, 3], mode="linear", coordinate_transformation_mode="pytorch_half_pixel"
)
ROWS["resize_symmetric"] = resize(
    LINE, scales=[0.6], mode="linear", coordinate_transformation_mode="half_pixel_symmetric"
)
ROWS["resize_cubic"] = F.interpolate(t(IMAGE), size=(5, 6), mode="bicubic", align_corners=False)
ROWS["resize_cubic_down"] = resize(LINE, scales=[0.8], mode="cubic", cubic_coeff_a=-0.5, **half)
ROWS["resize_cubic_exclude"] = resize(LINE, scales=[1.5], mode="cubic", exclude_outside=1, **half)
ROWS["resize_cubic_align_corners"] = F.interpolate(t(IMAGE), size=(5, 6), mode="bicubic", align_corners=True)
ROWS["resize_linear_antialias"] = F.interpolate(
    t(waves(1, 1, 7, 6)), size=(3, 4), mode="bilinear", antialias=True
)
ROWS["resize_cubic_antialias"] = resize(LINE, scales=[0.4], mode="cubic", antialias=1, exclude_outside=1, **half)
for nearest in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]:
    ROWS["resize_nearest_" + nearest] = resize(
        LINE, sizes=[14], mode="nearest", nearest_mode=nearest, coordinate_transformation_mode="align_corners"
    )
    ROWS["resize_nearest_half_" + nearest] = resize(LINE, sizes=[4], mode="nearest", nearest_mode=nearest, **half)
ROWS["resize_crop"] = resize(
    IMAGE,
    sizes=[3, 4],
    roi=[0.1, -0.2, 0.9, 1.3],
    mode="linear",
    coordinate_transformation_mode="tf_crop_and_resize",
    extrapolation_value=10.0,
)

# ---- GridSample ----
GRID = waves(2, 2, 3, 2, phase=3, scale=1.4)
for mode, padding, corners in [
    ("linear", "zeros", 0),
    ("linear", "border", 1),
    ("linear", "reflection", 0),
    ("linear", "reflection", 1),
    ("cubic", "zeros", 0),
    ("cubic", "border", 0),
    ("cubic", "reflection", 1),
    ("nearest", "zeros", 0),
    ("nearest", "border", 0),
    ("nearest", "reflection", 1),
]:
    # PyTorch moves no place of cubic samples to the border, and ONNX computes with float32.
    onnx_alone = mode == "cubic" and padding != "zeros"
    modes = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}
    ROWS[f"grid_{mode}_{padding}_{corners}"] = (
        reference("GridSample", [IMAGE, GRID], mode=mode, padding_mode=padding, align_corners=corners)
        if onnx_alone
        else F.grid_sample(t(IMAGE), t(GRID), modes[mode], padding, bool(corners))
    )
ROWS["grid_volume"] = F.grid_sample(
    t(waves(2, 1, 2, 3, 2)), t(waves(2, 2, 1, 2, 3, phase=3, scale=1.4)), mode="bilinear", align_corners=False
)

# ---- Padding ----
for mode in ["reflect", "edge"]:
    ROWS["pad_" + mode] = np.pad(waves(2, 3), ((1, 0), (2, 5)), mode=mode)
# numpy 1.24 does not go on in the period of the elements.
ROWS["pad_wrap"] = waves(2, 3)[np.arange(-1, 2) % 2][:, np.arange(-2, 8) % 3]
ROWS["pad_crop"] = np.pad(waves(5), (2, 0), mode="reflect")[:-2]

# ---- Depth and space ----
BLOCKS = waves(1, 8, 1, 2)
ROWS["depth_to_space"] = reference("DepthToSpace", [BLOCKS], 13, blocksize=2, mode="DCR")
ROWS["pixel_shuffle"] = F.pixel_shuffle(t(BLOCKS), 2)
ROWS["space_to_depth"] = reference("SpaceToDepth", [waves(1, 1, 4, 6)], 13, blocksize=2)
ROWS["col2im"] = F.fold(t(waves(1, 8, 6)), (5, 7), (2, 2), dilation=(2, 1), padding=(1, 0), stride=(2, 3))

# ---- Convolutions ----
x1, w1 = waves(2, 4, 9), waves(6, 2, 3, phase=2)
ROWS["conv1"] = F.conv1d(F.pad(t(x1), (1, 2)), t(w1), stride=2, dilation=2, groups=2)
ROWS["conv1_same_upper"] = F.conv1d(F.pad(t(x1), (0, 1)), t(w1), stride=3, dilation=1, groups=2)
ROWS["conv1_same_lower"] = F.conv1d(F.pad(t(x1), (2, 1)), t(waves(1, 4, 4, phase=2)), stride=1)
x3, w3 = waves(3, 4, 3, 3, 3), waves(2, 2, 2, 2, 2, phase=2)
ROWS["conv3"] = F.conv3d(
    F.pad(t(x3), (1, 0, 0, 1, 1, 0)), t(w3), t(waves(2, phase=5)), stride=(1, 2, 1), dilation=(2, 1, 1), groups=2
)
ROWS["conv3_stride"] = F.conv3d(t(x3), t(waves(2, 4, 3, 1, 2, phase=2)), stride=(2, 1, 1), padding=(1, 0, 1))
ROWS["conv_transpose1"] = F.conv_transpose1d(
    t(waves(2, 4, 3)), t(w1[:4]), t(waves(4, phase=5)), stride=3, padding=1, output_padding=2, dilation=2, groups=2
)
ROWS["conv_transpose3"] = F.conv_transpose3d(
    t(waves(3, 4, 2, 2, 1)),
    t(waves(4, 1, 2, 2, 2, phase=2)),
    stride=(2, 1, 2),
    padding=(1, 0, 0),
    output_padding=(1, 0, 1),
    dilation=(2, 1, 1),
    groups=2,
)
ROWS["conv_transpose_same"] = reference(
    "ConvTranspose", [waves(1, 1, 3, 3), waves(1, 2, 3, 3, phase=2)], 11, auto_pad="SAME_UPPER", strides=[2, 2]
)
# ---- Pools ----
def places(indices, x, spatial):
    """PyTorch's indices count in one image; ours count in x."""
    image = int(np.prod(x.shape[x.ndim - spatial :]))
    images = np.arange(x.size // image).reshape(x.shape[: x.ndim - spatial] + (1,) * spatial)
    return indices.numpy() + images * image


P1, P2, P3 = waves(2, 2, 9), waves(1, 2, 5, 6), waves(1, 2, 4, 3, 5)
values, indices = F.max_pool1d(t(P1), 3, 2, 1, dilation=2, ceil_mode=True, return_indices=True)
ROWS["max_pool1"], ROWS["max_pool1_indices"] = values, places(indices, P1, 1)
values, indices = F.max_pool2d(t(P2), (2, 3), (2, 2), (1, 1), ceil_mode=True, return_indices=True)
ROWS["max_pool2"], ROWS["max_pool2_indices"] = values, places(indices, P2, 2)
ROWS["max_pool2_columns"] = reference(
    "MaxPool", [P2], 12, outputs=2, kernel_shape=[2, 2], strides=[2, 2], storage_order=1
)[1]
values, indices = F.max_pool3d(t(P3), (2, 2, 3), (2, 1, 2), (1, 0, 1), dilation=(1, 2, 1), return_indices=True)
ROWS["max_pool3"], ROWS["max_pool3_indices"] = values, places(indices, P3, 3)
for count in [False, True]:
    ROWS[f"avg_pool1_{int(count)}"] = F.avg_pool1d(t(P1), 3, 2, 1, ceil_mode=True, count_include_pad=count)
    ROWS[f"avg_pool2_{int(count)}"] = F.avg_pool2d(t(P2), 3, 2, 1, ceil_mode=True, count_include_pad=count)
    ROWS[f"avg_pool3_{int(count)}"] = F.avg_pool3d(t(P3), 2, (2, 1, 2), 1, count_include_pad=count)
ROWS["avg_pool_dilated"] = F.conv1d(t(P1[:, :1]), torch.full((1, 1, 2), 0.5, dtype=torch.float64), dilation=3, stride=2)
ROWS["lp_pool2"] = F.lp_pool2d(t(P2), 2, (2, 3), (2, 1))
ROWS["lp_pool3"] = F.avg_pool2d(t(np.abs(P2) ** 3), 2, 2).mul(4).pow(1 / 3)
values, indices = F.max_pool2d(t(P2), 2, 2, return_indices=True)
ROWS["max_unpool2"] = F.max_unpool2d(values, indices, 2, 2, output_size=(5, 6))

# ---- Normalization ----
N = waves(2, 4, 3)
ROWS["lrn_odd"] = F.local_response_norm(t(N), 3, alpha=0.5, beta=0.7, k=1.5)
PAIRS = N**2 + np.pad(N**2, ((0, 0), (0, 1), (0, 0)))[:, 1:]
ROWS["lrn_even"] = N / (1.5 + 0.25 * PAIRS) ** 0.7
ROWS["group_norm"] = F.group_norm(t(N), 2, t(waves(4, phase=5)), t(waves(4, phase=6)), 1e-3)
ROWS["mean_variance"] = (N - N.mean((0, 2), keepdims=True)) / (N.std((0, 2), keepdims=True) + 1e-9)
ROWS["lp_normalize_1"] = F.normalize(t(N), 1, 1)
ROWS["lp_normalize_2"] = F.normalize(t(N), 2, 2)

# ---- Transforms ----
def pairs(numbers):
    return np.stack([numbers.real, numbers.imag], -1)


C = waves(2, 5, 2)
COMPLEX = C[..., 0] + 1j * C[..., 1]
ROWS["dft"] = pairs(np.fft.fft(COMPLEX, axis=1))
ROWS["dft_inverse"] = pairs(np.fft.ifft(COMPLEX, axis=1))
ROWS["dft_onesided"] = pairs(np.fft.rfft(waves(2, 6), axis=1))
ROWS["dft_longer"] = pairs(np.fft.fft(COMPLEX, 7, axis=0))
ROWS["dft_shorter"] = pairs(np.fft.fft(COMPLEX, 3, axis=1))
S, W = waves(2, 10), waves(4, phase=2)
FRAMES = np.stack([S[:, i : i + 4] * W for i in range(0, 7, 2)], 1)
ROWS["stft"] = pairs(np.fft.rfft(FRAMES, axis=2))
for n in [1, 2, 3, 5]:
    ROWS[f"determinant_{n}"] = np.linalg.det(waves(2, n, n))

# ---- Indices ----
X = waves(3, 4, phase=2)
INDEX = np.array([[0, -1, 2], [1, 1, -4]])
ROWS["gather_elements"] = torch.gather(t(X), 1, t(INDEX % 4))
UPDATES = waves(2, 3, phase=4)
ROWS["scatter_elements_set"] = X.copy()
for i, j in np.ndindex(2, 3):
    ROWS["scatter_elements_set"][i, INDEX[i, j]] = UPDATES[i, j]
for ours, theirs in [("add", "sum"), ("mul", "prod"), ("max", "amax"), ("min", "amin")]:
    ROWS["scatter_elements_" + ours] = torch.scatter_reduce(t(X), 1, t(INDEX % 4), t(UPDATES), theirs)
V = waves(2, 3, 2)
ROWS["gather_nd"] = V[[1, 0, -1], [2, -3, 0]]
ROWS["gather_nd_batch"] = np.stack([V[0, [2, -1]], V[1, [0, 1]]])
PLACES = np.array([[1, 2], [0, 0], [1, 2]])
SLICES = waves(3, 2, phase=4)
ROWS["scatter_nd_set"] = V.copy()
for place, update in zip(PLACES, SLICES):
    ROWS["scatter_nd_set"][tuple(place)] = update
for name, function in [("add", np.add), ("mul", np.multiply), ("max", np.maximum), ("min", np.minimum)]:
    ROWS["scatter_nd_" + name] = V.copy()
    function.at(ROWS["scatter_nd_" + name], tuple(PLACES.T), SLICES)

# ---- Activations ----
A = t(waves(12, scale=3))
ROWS["celu"] = F.celu(A, 1.7)
ROWS["selu_scaled"] = reference("Selu", [A.numpy()], 6, alpha=1.5, gamma=0.75)
ROWS["thresholded_relu"] = torch.where(A > 0.8, A, torch.zeros_like(A))
ROWS["hard_shrink"] = F.hardshrink(A, 0.7)
ROWS["soft_shrink"] = F.softshrink(A, 0.7)
ROWS["hard_sigmoid"] = torch.clamp(0.3 * A + 0.6, 0, 1)
ROWS["softsign"] = F.softsign(A)
ROWS["log_sigmoid"] = F.logsigmoid(A)
ROWS["tanh_gelu"] = 0.5 * A * (1 + torch.tanh(np.sqrt(2 / np.pi) * (A + 0.044715 * A**3)))

print_rows(ROWS)
