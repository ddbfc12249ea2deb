"""An exported file as a `PoseModel`: to be measured, and to teach."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from leanpose.backends import FILE_SUFFIXES, open_exported
from leanpose.backends.base import Backend
from leanpose.backends.exported import NO_PREDICTION
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel, PoseOutput, Provision
from leanpose.weights import load_model

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackendConfig:
    """What there is to say of a network whose code is not here."""

    input_size: tuple[int, int]


class BackendModel(PoseModel):
    """What a backend computes: without parameters, gradients or anything beside the prediction.

    Crops go to the backend as they are, which normalises them itself.

    Raises:
        LeanposeError: the backend gives keypoints alone.
    """

    def __init__(self, backend: Backend) -> None:
        if backend.includes_decoding:
            raise LeanposeError(f"{backend.spec.name}: {NO_PREDICTION}")
        spec = backend.spec
        super().__init__(spec.name, BackendConfig(spec.input_size), spec.skeleton)
        self.codec, self.mean, self.std, self.backend = spec.codec, spec.mean, spec.std, backend

    @property
    def provides(self) -> frozenset[Provision]:
        return frozenset()

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def normalise(self, images: UInt8[Tensor, "B H W 3"]) -> UInt8[Tensor, "B H W 3"]:
        return images

    def forward(self, images: UInt8[Tensor, "B H W 3"]) -> PoseOutput:
        """The prediction for RGB crops, on their device."""
        prediction = self.backend.predict(images.cpu().numpy())
        values: list[Any] = [getattr(prediction, field.name) for field in fields(prediction)]
        moved: list[Any] = [value if value is None else value.to(images.device) for value in values]
        return PoseOutput(type(prediction)(*moved))


def load_pose_model(path_or_name: Path | str) -> PoseModel:
    """An exported file (`.onnx`, `.xml`), run by its backend on the CPU, or whatever `load_model` takes.

    Raises:
        LeanposeError: as `open_exported` and `load_model`.
    """
    if Path(path_or_name).suffix not in FILE_SUFFIXES:
        return load_model(path_or_name)
    backend = open_exported(path_or_name)
    if backend.card.read is not None:
        spec, codec = backend.spec, backend.spec.codec
        (height, width), form = (
            spec.input_size,
            f"{codec.name}, '{codec.warp}' crops of {codec.padding:g} times the box",
        )
        say_once(
            f"{path_or_name}: {backend.card.origin}; {len(spec.skeleton)} keypoints of '{spec.skeleton.name}' at {height}x{width} "
            f"({form})."
        )
    return BackendModel(backend)


@cache
def say_once(sentence: str) -> None:
    """Log what is assumed; a distillation opens its teacher several times."""
    LOG.warning(sentence)
