"""The Open Inference Protocol: metadata, health, and crops as JSON tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from leanpose import PoseEstimator
from serving.server import Client, running
from spots import SpotFinder, scene

SIZE = (128, 96)


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator(SpotFinder(), "whole-image", "cpu", "torch")


@pytest.fixture(scope="module")
def client(estimator: PoseEstimator) -> Iterator[Client]:
    with running(estimator, max_people=3) as client:
        yield client


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.stack([scene(seed, 1).image[: SIZE[0], : SIZE[1]] for seed in range(2)])


def request(
    values: Any, *, shape: Any = None, datatype: Any = "UINT8", name: Any = "crops", **others: Any
) -> dict[str, Any]:
    tensor = {"name": name, "shape": [2, *SIZE, 3] if shape is None else shape, "datatype": datatype, "data": values}
    return {"inputs": [tensor], **others}


INFER = "/v2/models/spots/infer"


@pytest.mark.parametrize("form", ["flat", "nested", "floats"])
def test_crops_have_the_backends_keypoints(form: str, client: Client, crops: np.ndarray, estimator: PoseEstimator):
    values = {"flat": crops.ravel(), "nested": crops, "floats": crops / 255}[form].tolist()
    answer = client.json(INFER, request(values, datatype="FP32" if form == "floats" else "UINT8", id="7"))
    assert (answer.status, answer.content["model_name"], answer.content["id"]) == (200, "spots", "7")
    expected = estimator.backend.predict_keypoints(crops)
    for output, name, array in zip(answer.content["outputs"], ("keypoints", "scores"), expected, strict=True):
        assert (output["name"], output["datatype"], output["shape"]) == (name, "FP32", list(array.shape))
        assert np.array_equal(np.array(output["data"], np.float32).reshape(array.shape), array)


def test_outputs_can_be_chosen(client: Client, crops: np.ndarray):
    answer = client.json(INFER, request(crops.ravel().tolist(), outputs=[{"name": "scores"}]))
    assert [output["name"] for output in answer.content["outputs"]] == ["scores"]
    assert "id" not in answer.content


NUMBERS = [0] * (SIZE[0] * SIZE[1] * 3)
ONE = [1, *SIZE, 3]


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        ([], 400, "is a JSON object with 'inputs'"),
        ({"inputs": []}, 400, "one tensor, 'crops'"),
        ({"inputs": [{}, {}]}, 400, "one tensor, 'crops'"),
        (request(NUMBERS, shape=ONE, input=1), 400, "unknown key 'input'; did you mean 'inputs'?"),
        ({"inputs": [{"nam": "crops"}]}, 400, "unknown key 'nam'; did you mean 'name'?"),
        (request(NUMBERS, shape=ONE, name="crop"), 422, "Unknown input 'crop'; did you mean 'crops'?"),
        (request(NUMBERS, shape=ONE, datatype="INT8"), 422, "Unknown datatype 'INT8'; did you mean 'UINT8'?"),
        (request(NUMBERS, shape=[1, 3, *SIZE]), 422, "is [B, 128, 96, 3], not [1, 3, 128, 96]"),
        (request(NUMBERS, shape=[True, *SIZE, 3]), 422, "is [B, 128, 96, 3]"),
        (request(NUMBERS, shape=[0, *SIZE, 3]), 422, "is [B, 128, 96, 3]"),
        (request(NUMBERS, shape=[[[[[[[[1]]]]]]]]), 422, "is [B, 128, 96, 3]"),
        (request(NUMBERS, shape=[4, *SIZE, 3]), 413, "4 crops, more than the 3 allowed"),
        (request(NUMBERS[:-1], shape=ONE), 422, "needs 36864 numbers; 'data' has 36863"),
        (request([], shape=ONE), 422, "needs 36864 numbers; 'data' has 0"),
        (request([[1, 2], [3]], shape=ONE), 422, "lists of several lengths"),
        (request("text", shape=ONE), 422, "needs 36864 numbers"),
        (request(["0"] * 36864, shape=ONE), 422, "not all numbers"),
        (request([10**30] * 36864, shape=ONE), 422, "not all numbers"),
        (request([256, *NUMBERS[1:]], shape=ONE), 422, "integers from 0 to 255, not from 0 to 256"),
        (request([0.5, *NUMBERS[1:]], shape=ONE), 422, "integers from 0 to 255"),
        (request([1.5, *NUMBERS[1:]], shape=ONE, datatype="FP32"), 422, "between 0 and 1, not between 0 and 1.5"),
        ({"inputs": [{"name": "crops", "shape": ONE, "datatype": "UINT8"}]}, 400, "binary tensors are not read"),
        (request(NUMBERS, shape=ONE, outputs=[{"name": "score"}]), 422, "Unknown output 'score'; did you mean 'scores'?"),
        (request(NUMBERS, shape=ONE, outputs=["scores"]), 400, "a list of objects with a 'name'"),
    ],
)  # fmt: skip
def test_refusals_are_one_sentence(client: Client, content: Any, status: int, sentence: str):
    answer = client.json(INFER, content)
    assert (answer.status, list(answer.content)) == (status, ["error"]), answer.content
    assert sentence in answer.content["error"]


def test_metadata_and_health(client: Client):
    metadata = client.get("/v2/models/spots").content
    assert metadata["inputs"] == [{"name": "crops", "datatype": "UINT8", "shape": [-1, 128, 96, 3]}]
    assert [(output["name"], output["shape"]) for output in metadata["outputs"]] == [
        ("keypoints", [-1, 3, 2]),
        ("scores", [-1, 3]),
    ]
    assert metadata["parameters"]["keypoint_names"] == ["red", "green", "blue"]
    assert (metadata["name"], metadata["platform"]) == ("spots", "torch_fp32")
    assert client.get("/v2").content["name"] == "leanpose"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/spots/ready"):
        assert client.get(path).status == 200


@pytest.mark.parametrize("path", ["/v2/models/spot", "/v2/models/spot/ready"])
def test_an_unknown_model_is_named_with_the_nearest(path: str, client: Client):
    answer = client.get(path)
    assert (answer.status, answer.content["error"]) == (404, "There is no model 'spot'; did you mean 'spots'?")


def test_a_skeleton_without_a_body_has_no_openpose_format(client: Client):
    answer = client.poses(b"", query="format=openpose")
    assert (answer.status, "none of OpenPose's body points" in answer.content["error"]) == (422, True)
