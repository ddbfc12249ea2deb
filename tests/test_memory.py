"""Files of networks that would take all memory cost one sentence, whichever runtime opens them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanpose.backends.onnx import OnnxBackend
from leanpose.backends.onnx_cost import onnx_cost
from leanpose.backends.openvino import OpenVinoBackend
from leanpose.errors import LeanposeError
from leanpose.inference.detectors import Detector
from leanpose.memory import limited_memory

if sys.platform != "linux":
    pytest.skip("only Linux limits the memory of a process", allow_module_level=True)
resource: Any = pytest.importorskip("resource")

HUGE = [100_000, 100_000]  # 40 GB of floats


def bomb(folder: Path, kind: str, **inputs: Any) -> Path:
    """A pose model in whose middle an operation with these constant inputs makes far too much of its input's maximum."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("ReduceMax", ["images"], ["peak"], keepdims=0),
        helper.make_node(
            kind, [name if name in ("images", "peak", "") else f"{kind}-{name}" for name in inputs], ["big"]
        ),
        helper.make_node("ReduceMax", ["big"], ["most"], keepdims=0),
        helper.make_node("Add", ["most", "maps"], ["heatmaps"]),
        helper.make_node("Conv", ["images", "weights"], ["features"], pads=[1, 1, 1, 1]),
    ]
    constants = {f"{kind}-{name}": value for name, value in inputs.items() if value is not None}
    constants |= {"maps": np.zeros((1, 17, 16, 12), np.float32), "weights": np.zeros((1, 3, 3, 3), np.float32)}
    values = {"images": [1, 3, 64, 48], "heatmaps": [1, 17, 16, 12], "features": [1, 1, 64, 48]}
    images, *outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, sides in values.items())
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [images], outputs, initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "bomb.onnx").write_bytes(proto.SerializeToString())
    (folder / "bomb.yaml").write_text("kind: heatmaps\noutputs: [heatmaps]\nskeleton: coco17\n")
    return folder / "bomb.onnx"


def pose(path: Path) -> None:
    OnnxBackend(path).predict_keypoints(np.zeros((1, 64, 48, 3), np.uint8))


def openvino(path: Path) -> None:
    OpenVinoBackend(path).predict_keypoints(np.zeros((1, 64, 48, 3), np.uint8))


BOMBS: list[dict[str, Any]] = [
    {"kind": "ConstantOfShape", "shape": np.array(HUGE)},
    {"kind": "Expand", "peak": None, "shape": np.array(HUGE)},
    {"kind": "Tile", "images": None, "repeats": np.array([1000, 1, 100, 100])},
    {"kind": "Resize", "images": None, "": None, "scales": np.array([1, 1, 1000, 1000], np.float32)},
    {"kind": "Range", "start": np.float32(0), "limit": np.float32(1e10), "delta": np.float32(1)},
]


@pytest.mark.parametrize("values", BOMBS, ids=lambda values: values["kind"])
@pytest.mark.parametrize("work", [pose, openvino, Detector.load, onnx_cost])
def test_a_graph_that_takes_all_memory_is_refused(work: Callable[[Path], object], values: dict, tmp_path: Path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LeanposeError, match=r"bomb\.onnx"):
        work(bomb(tmp_path, **values))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000, "kB"


@pytest.mark.parametrize(
    ("values", "words"), [(BOMBS[0], "gets too little memory"), (BOMBS[2], "cannot be run on an image")]
)
def test_a_detector_without_memory_is_not_called_unknown(values: dict, words: str, tmp_path: Path):
    with pytest.raises(LeanposeError, match=words) as caught:
        Detector.load(bomb(tmp_path, **values))
    assert "known" not in str(caught.value)


def test_the_limit_is_for_a_while(tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory(tmp_path / "missing"):
        limit = resource.getrlimit(resource.RLIMIT_DATA)
        assert limit[0] < 20e9
        with limited_memory():
            assert resource.getrlimit(resource.RLIMIT_DATA) == limit, "of the first one"
        assert resource.getrlimit(resource.RLIMIT_DATA) == limit
        with pytest.raises(MemoryError):
            np.ones(HUGE)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
