"""Reads the folder of write_events.cc with PyPI's tensorboard and compares every kind of event."""

import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main(folder):
    events = EventAccumulator(folder, size_guidance={"images": 0, "scalars": 0, "histograms": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    assert tags["graph"] is True, tags
    assert sorted(tags["scalars"]) == ["loss/train"], tags
    assert sorted(tags["histograms"]) == ["nothing", "weights/w"], tags
    assert sorted(tags["images"]) == ["samples/0", "samples/1"], tags

    # The second file begins at step 2, so steps 2 and 3 of the first are gone.
    scalars = [(event.step, event.value) for event in events.Scalars("loss/train")]
    assert scalars == [(1, 1.0), (2, 10.0)], scalars

    histogram = events.Histograms("weights/w")[0].histogram_value
    assert (histogram.min, histogram.max, histogram.num, histogram.sum, histogram.sum_squares) == (0, 64, 4, 66, 4098)
    counts = {limit: count for limit, count in zip(histogram.bucket_limit, histogram.bucket) if count}
    assert counts == {1: 1, 2: 2, 64: 1}, counts

    gray, colour = events.Images("samples/0")[0], events.Images("samples/1")[0]
    assert (gray.width, gray.height, colour.width, colour.height) == (2, 1, 1, 2)
    assert gray.encoded_image_string.startswith(b"\x89PNG") and colour.encoded_image_string.startswith(b"\x89PNG")

    graph = events.Graph()
    ops = sorted(node.op for node in graph.node)
    assert ops == ["Add", "Input", "MatMul", "Relu", "Variable", "Variable"], ops
    sizes = {node.name: [dim.size for dim in node.attr["_output_shapes"].list.shape[0].dim] for node in graph.node}
    assert sizes["x"] == [-1, 3], sizes
    print("tensorboard has read scalars, histograms, images and the graph")


main(sys.argv[1])
