"""Pose files of other programs, made up: they answer the same whatever they see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper


def constant_file(
    path: Path,
    shape: list[int | str],
    answers: dict[str, np.ndarray],
    dtype: int = TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
    **description: Any,
) -> Path:
    """A file that answers the same for every crop, with its description next to it if there is one."""
    tensors = {name: onnx.numpy_helper.from_array(value.astype(np.float32)) for name, value in answers.items()}
    nodes = [helper.make_node("Constant", [], [name], value=tensor) for name, tensor in tensors.items()]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(value.shape)) for n, value in answers.items()]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("image", dtype, shape)], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    if description:
        path.with_suffix(".yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    return path
