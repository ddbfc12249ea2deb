"""An exported file as a `PoseModel`, for evaluation and as a teacher."""

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
from leanpose.backends.exported import NO_PREDICTION, ExportedBackend
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel, PoseOutput, Provision
from leanpose.skeleton import Skeleton, get_skeleton
from leanpose.weights import load_model

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackendConfig:
    """Configuration of an exported model."""

    input_size: tuple[int, int]


class BackendModel(PoseModel):
    """A model run by a backend: without parameters or gradients, and with only the prediction as output.

    Raw crops go to the backend, which normalizes them itself.

    Raises:
        LeanposeError: the backend only outputs keypoints.
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

    def normalize(self, images: UInt8[Tensor, "B H W 3"]) -> UInt8[Tensor, "B H W 3"]:
        return images

    def forward(self, images: UInt8[Tensor, "B H W 3"]) -> PoseOutput:
        """The prediction for RGB crops, on their device."""
        prediction = self.backend.predict(images.cpu().numpy())
        values: list[Any] = [getattr(prediction, field.name) for field in fields(prediction)]
        moved: list[Any] = [value if value is None else value.to(images.device) for value in values]
        return PoseOutput(type(prediction)(*moved))


def load_pose_model(path_or_name: Path | str, skeleton: str | Path | Skeleton | None = None) -> PoseModel:
    """An exported file (`.onnx`, `.xml`), run by its backend on the CPU, or whatever `load_model` takes.

    Args:
        path_or_name: of the model.
        skeleton: names the keypoints of an exported file that does not name them.

    Raises:
        LeanposeError: as `open_exported` and `load_model`, or a skeleton is given for a model that has its own.
    """
    if Path(path_or_name).suffix not in FILE_SUFFIXES:
        if skeleton is not None:
            raise LeanposeError(OWN_SKELETON)
        return load_model(path_or_name)
    backend = open_exported(path_or_name, skeleton=None if skeleton is None else get_skeleton(skeleton))
    say_what_it_is(path_or_name, backend)
    return BackendModel(backend)


OWN_SKELETON = "A skeleton can only be given for exported files; this model has its own."


def say_what_it_is(path: Path | str, backend: ExportedBackend) -> None:
    """Log once as what a file that leanpose did not export was recognised."""
    if backend.card.read is None:
        return
    spec, codec, guess = backend.spec, backend.spec.codec, backend.card.guess
    height, width = spec.input_size
    keypoints = f"{len(spec.skeleton)} keypoints of '{spec.skeleton.name}'{', ' * bool(guess)}{guess}"
    form = f"{codec.name}, '{codec.warp}' crops of {codec.padding:g} times the box"
    say_once(f"{path}: {backend.card.origin}; {keypoints}, at {height}x{width} ({form}).")


@cache
def say_once(sentence: str) -> None:
    """Log what is assumed; a distillation opens its teacher several times."""
    LOG.warning(sentence)
