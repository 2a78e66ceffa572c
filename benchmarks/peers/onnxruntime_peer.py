"""The models in ONNX Runtime, for inference only. PyTorch exports them, so its environment must be installed too."""

import peer

flags = peer.parse_flags(__doc__, ["all"])
if flags.mode == "train":
    peer.unsupported("ONNX Runtime only infers")

import time

import onnxruntime


def main():
    flags.variant = flags.variant or "all"
    inputs, _ = peer.random_data(flags)
    path, expected, parameters = peer.exported_model(flags)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = flags.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def infer():
        return session.run(None, {"input": inputs})[0]

    peer.measure(infer, flags, parameters, start, lambda output: peer.check_output(output, expected, tolerance=1e-4))


main()
