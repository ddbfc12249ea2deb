"""The Open Inference Protocol, version 2 (KServe, NVIDIA Triton, Seldon): crops in, keypoints and scores out, as JSON
tensors.

Clients of the protocol detect and crop people themselves; `POST /v1/poses` does both for them.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from leanpose.backends.base import ModelSpec
from leanpose.data.bit_depth import FRACTION_TOLERANCE
from leanpose.errors import did_you_mean
from leanpose.serving.settings import RequestError

INPUT, OUTPUTS = "crops", ("keypoints", "scores")
DATATYPES = ("UINT8", "FP32")
REQUEST_KEYS = ("id", "parameters", "inputs", "outputs")
TENSOR_KEYS = ("name", "shape", "datatype", "parameters", "data")


def model_metadata(name: str, spec: ModelSpec, platform: str) -> dict[str, Any]:
    """The metadata of a model in the protocol.

    Args:
        name: in addresses.
        spec: of the model.
        platform: backend and precision.
    """
    points = len(spec.skeleton)
    return {
        "name": name,
        "versions": [],
        "platform": platform,
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *spec.input_size, 3]}],
        "outputs": [
            {"name": "keypoints", "datatype": "FP32", "shape": [-1, points, 2]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, points]},
        ],
        "parameters": {"skeleton": spec.skeleton.name, "keypoint_names": list(spec.skeleton.keypoint_names)},
    }


def read_crops(content: Any, spec: ModelSpec, max_crops: int) -> UInt8[np.ndarray, "B H W 3"]:
    """The crops of an inference request.

    `UINT8` is RGB from 0 to 255. `FP32` is RGB from 0 to 1, rounded to 256 steps, as the estimator takes images in
    floating point.

    Args:
        content: of the body.
        spec: of the model.
        max_crops: in one request.

    Raises:
        RequestError: 400 where it does not have the protocol's form, 422 where the tensor is not one of this model.
    """
    if not isinstance(content, dict):
        raise RequestError(400, "An inference request is a JSON object with 'inputs'.")
    _known(content, REQUEST_KEYS, "The request")
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError(400, f"An inference request has a list 'inputs' with one tensor, '{INPUT}'.")
    tensor = inputs[0]
    _known(tensor, TENSOR_KEYS, "The input")
    name, kind, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if name != INPUT:
        raise RequestError(422, f"Unknown input '{_short(name)}'; {did_you_mean(_short(name), [INPUT])}")
    if kind not in DATATYPES:
        raise RequestError(422, f"Unknown datatype '{_short(kind)}'; {did_you_mean(_short(kind), DATATYPES)}")
    expected = [*spec.input_size, 3]
    if not (isinstance(shape, list) and all(type(side) is int and side > 0 for side in shape)) or shape[1:] != expected:
        raise RequestError(422, f"The shape of '{INPUT}' is [B, {', '.join(map(str, expected))}], not {_short(shape)}.")
    if shape[0] > max_crops:
        raise RequestError(413, f"The request holds {shape[0]} crops, more than the {max_crops} allowed.")
    if "data" not in tensor:
        raise RequestError(400, f"The input '{INPUT}' has no 'data' as JSON numbers; binary tensors are not read here.")
    return _pixels(_numbers(tensor["data"], shape), kind)


def _numbers(data: Any, shape: list[int]) -> Shaped[np.ndarray, "*shape"]:
    """The numbers of a tensor, flat or nested, in its shape."""
    try:
        array = np.asarray(data) if isinstance(data, list) else np.zeros(0)
    except ValueError as error:  # lists of several lengths
        raise RequestError(422, f"The data of '{INPUT}' are lists of several lengths.") from error
    if array.shape not in (tuple(shape), (math.prod(shape),)):
        form = "×".join(map(str, array.shape))
        raise RequestError(
            422, f"The shape {_short(shape)} needs {math.prod(shape)} numbers; 'data' has {form or 'none'}."
        )
    if array.dtype.kind not in "iuf":
        raise RequestError(422, f"The data of '{INPUT}' are not all numbers.")
    return array.reshape(shape)


def _pixels(values: Shaped[np.ndarray, "B H W 3"], kind: str) -> UInt8[np.ndarray, "B H W 3"]:
    low, high = float(values.min()), float(values.max())
    if kind == "UINT8":
        if values.dtype.kind == "f" or low < 0 or high > 255:
            raise RequestError(422, f"Data of UINT8 are integers from 0 to 255, not from {low:g} to {high:g}.")
        return values.astype(np.uint8)
    if not (low >= -FRACTION_TOLERANCE and high <= 1 + FRACTION_TOLERANCE):
        raise RequestError(422, f"Data of FP32 lie between 0 and 1, not between {low:g} and {high:g}.")
    return np.rint(np.clip(values, 0, 1).astype(np.float32) * 255).astype(np.uint8)


def wanted_outputs(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the outputs that a request asks for; without any, all.

    Raises:
        RequestError: one is unknown, or the list does not have the protocol's form.
    """
    outputs = content.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise RequestError(400, "The 'outputs' of a request are a list of objects with a 'name'.")
    for output in outputs:
        if output.get("name") not in OUTPUTS:
            name = _short(output.get("name"))
            raise RequestError(422, f"Unknown output '{name}'; {did_you_mean(name, OUTPUTS)}")
    return tuple(output["name"] for output in outputs) or OUTPUTS


def inference_answer(
    name: str,
    content: Mapping[str, Any],
    keypoints: Float[np.ndarray, "B K 2"],
    scores: Float[np.ndarray, "B K"],
) -> dict[str, Any]:
    """The answer to an inference request; data are flat, in row-major order.

    Args:
        name: of the model.
        content: of the request.
        keypoints: (x, y) in pixels of the crop, pixel centres at integer coordinates.
        scores: 0..1.
    """
    arrays = {"keypoints": keypoints, "scores": scores}
    outputs = [
        {
            "name": wanted,
            "datatype": "FP32",
            "shape": list(arrays[wanted].shape),
            "data": arrays[wanted].ravel().tolist(),
        }
        for wanted in wanted_outputs(content)
    ]
    identity = {"id": content["id"]} if isinstance(content.get("id"), str) else {}
    return {"model_name": name, **identity, "outputs": outputs}


def _known(content: Mapping[str, Any], keys: Sequence[str], what: str) -> None:
    for key in content:
        if key not in keys:
            raise RequestError(400, f"{what} has an unknown key '{key[:100]}'; {did_you_mean(key[:100], keys)}")


def _short(value: Any) -> str:
    """Any value in a few words; of a nested one no more than the outside."""
    return value[:100] if isinstance(value, str) else reprlib.repr(value)
