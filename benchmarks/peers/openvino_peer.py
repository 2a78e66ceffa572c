"""The models in OpenVINO, for inference only. PyTorch exports them, so its environment must be installed too.

Variants: float32; default, which lets OpenVINO choose the precision: bfloat16 on processors with AMX or AVX-512's
instructions for it.
"""

import peer

flags = peer.parse_flags(__doc__, ["float32", "default"])
if flags.mode == "train":
    peer.unsupported("OpenVINO only infers")

import time

import openvino


def main():
    flags.variant = flags.variant or "float32"
    inputs, _ = peer.random_data(flags)
    path, expected, parameters = peer.exported_model(flags)
    settings = {"INFERENCE_NUM_THREADS": flags.threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if flags.variant == "float32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    core = openvino.Core()
    start = time.perf_counter()
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()

    def infer():
        return request.infer([inputs], share_inputs=True, share_outputs=True)[0]

    tolerance = 1e-4 if flags.variant == "float32" else 0.1
    peer.measure(infer, flags, parameters, start, lambda output: peer.check_output(output, expected, tolerance))


main()
