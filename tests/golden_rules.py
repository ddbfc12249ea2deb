"""The rules by which the reference numbers were made: weights (rule R), inputs, and the comparison of outputs."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leanpose.evaluation.predictions import PosePredictions
from leanpose.geometry import apply_affine, invert_affine, warp_matrix
from leanpose.models.registry import create_model
from leanpose.weights import from_official
from leanpose.weights.storage import NoInitWeights

OUTPUT_TOLERANCE = 2e-5  # of the output's largest absolute value


def rule_r(key: str, shape: Sequence[int], kind: str, conv_weight_gain: float = 1.0) -> np.ndarray:
    """The values of one official tensor, float32, drawn from a generator seeded with its key; not to be changed."""
    return _rule_r(key, tuple(shape), kind, conv_weight_gain)


@lru_cache(maxsize=2000)  # networks of one family share names, and tests share networks
def _rule_r(key: str, shape: tuple[int, ...], kind: str, conv_weight_gain: float) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    if kind in ("running_var", "norm_weight"):
        values = rng.uniform(0.5, 1.5, shape)
    elif kind == "weight":
        gain = conv_weight_gain if len(shape) == 4 else 1.0
        values = rng.normal(0, gain / math.sqrt(math.prod(shape[1:])), shape)
    else:
        values = rng.normal(0, {"running_mean": 0.1, "bias": 0.05, "token": 0.2}[kind], shape)
    return values.astype(np.float32)


def rule_input(shape: list[int]) -> Tensor:
    """The input images of every model's reference outputs."""
    rng = np.random.Generator(np.random.PCG64(0))
    return torch.from_numpy(rng.normal(0, 1, size=shape).astype(np.float32))


@dataclass(frozen=True)
class Golden:
    """One model's reference numbers: the JSON beside the arrays."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls, shared: Path, name: str) -> Golden:
        """Read `golden/models/<name>`."""
        path = shared / "golden" / "models" / f"{name}.json"
        with np.load(path.with_suffix(".npz")) as arrays:
            return cls(json.loads(path.read_text()), dict(arrays))

    @property
    def images(self) -> Tensor:
        return rule_input(self.facts["input_shape"])

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by official name, but those that the official constructor computes itself (kind `fixed`)."""
        gain = self.facts["conv_weight_gain"]
        return {
            key: torch.from_numpy(rule_r(key, shape, kind, gain))
            for key, shape, kind in self.facts["keys"]
            if kind != "fixed"
        }

    def deviation(self, output: str, actual: Tensor) -> float:
        """The largest deviation from a reference output, as a fraction of that output's largest absolute value."""
        return self._deviation(self.facts["outputs"][output], self.arrays[output], actual)

    def intermediate_deviation(self, name: str, actual: Tensor) -> float:
        """The same for an intermediate (`mid:…`), to find out where a deviation begins; scaled by the stored values."""
        return self._deviation(self.facts["intermediates"][name], self.arrays[name], actual)

    @staticmethod
    def _deviation(facts: dict[str, Any], expected: np.ndarray, actual: Tensor) -> float:
        assert list(actual.shape) == facts["shape"], f"shape {list(actual.shape)}, expected {facts['shape']}"
        values = actual.detach().double().numpy()
        if facts["stride"] != 1:
            values = values.reshape(-1)[:: facts["stride"]]
        return float(np.abs(values - expected).max() / facts.get("abs_max", np.abs(expected).max()))


def official_model(golden: Golden, name: str, **overrides: Any) -> Any:
    """The named model with the weights of the official file, all of which it takes."""
    with NoInitWeights():
        model = create_model(name, **overrides)
    model.load_state_dict(from_official(name, golden.state_dict(), **overrides), strict=True)
    return model


def to_image(codec: Any, points: np.ndarray, centers: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Crop pixels to image pixels; mmpose 0.29's scales are in units of 200 pixels."""
    matrices = [
        warp_matrix(center, scale * 200, codec.input_size, warp=codec.warp)
        for center, scale in zip(centers, scales, strict=True)
    ]
    return apply_affine(invert_affine(np.stack(matrices)), points)


def detections(people: list[dict]) -> PosePredictions:
    """The found people of a file in `golden/metrics`."""
    keypoints = np.array([person["keypoints"] for person in people])
    return PosePredictions(
        image_ids=np.array([person["img_id"] for person in people]),
        keypoints=keypoints,
        keypoint_scores=np.array([person["keypoint_scores"] for person in people]),
        boxes=np.concatenate([keypoints.min(axis=1), keypoints.max(axis=1)], axis=1),
        box_scores=np.array([person["bbox_score"] for person in people]),
        areas=np.array([person["area"] for person in people]),
    )
