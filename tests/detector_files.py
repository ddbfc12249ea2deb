"""ONNX files that stand in for detectors: they answer with given arrays, whatever image they see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from leanpose.inference.detectors import Detector, OnnxDetector

BOXES = [(40.0, 50.0, 30.0, 60.0, 0.9, 0), (150.0, 100.0, 50.0, 40.0, 0.6, 0), (100.0, 30.0, 20.0, 20.0, 0.8, 2)]
"""Centre x, y, width, height, score, class."""
WANTED = [[25, 20, 55, 80], [125, 80, 175, 120]]  # the third is not a person
SIZE = (128, 192)


def answering(
    path: Path,
    outputs: Mapping[str, np.ndarray],
    *,
    open_shapes: bool = False,
    size: tuple[int, int] = SIZE,
    batch: int | str | None = "batch",
    dtype: type = np.float32,
    inputs: Mapping[str, tuple[type, Sequence[int | str]]] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """An ONNX file that answers with these arrays, whatever image it sees.

    Args:
        path: to be written.
        outputs: by name.
        open_shapes: leave height, width and the outputs' shapes open.
        size: (height, width) of the input.
        batch: of the input; None leaves out its axis.
        dtype: of the input, and of outputs of its kind.
        inputs: more of them: type and shape by name.
        metadata: of the file.
    """
    import onnx
    from onnx import helper, numpy_helper

    def kind(of: type) -> int:
        return helper.np_dtype_to_tensor_dtype(np.dtype(of))

    sides = ["height", "width"] if open_shapes else list(size)
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    weights, infos = [numpy_helper.from_array(np.zeros((), dtype), "zero")], []
    for name, array in outputs.items():
        weights.append(numpy_helper.from_array(array, f"{name}_values"))
        operation = "Add" if array.dtype == dtype else "Identity"
        nodes.append(helper.make_node(operation, [f"{name}_values", "nothing"][: 1 + (operation == "Add")], [name]))
        shape = [f"{name}_{axis}" for axis in range(array.ndim)] if open_shapes else list(array.shape)
        infos.append(helper.make_tensor_value_info(name, kind(array.dtype.type), shape))
    images = helper.make_tensor_value_info("image", kind(dtype), [*([] if batch is None else [batch]), 3, *sides])
    others = [helper.make_tensor_value_info(name, kind(t), list(shape)) for name, (t, shape) in (inputs or {}).items()]
    graph = helper.make_graph(nodes, "answers", [images, *others], infos, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, path)
    return path


def found_by(path: Path) -> tuple[np.ndarray, np.ndarray, OnnxDetector]:
    """Boxes, in pixels of the input, and scores that a file of this size finds in an image twice as large."""
    detector = Detector.load(path, input_size=SIZE)
    assert isinstance(detector, OnnxDetector)
    boxes, scores = detector([np.zeros((2 * SIZE[0], 2 * SIZE[1], 3), np.uint8)])[0]
    return boxes / 2, scores, detector
