"""A converter of the tests' own: its file is the ONNX or torch.export file, and numpy computes what the spot finder would."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leanpose.errors import LeanposeError
from leanpose.mobile.formats import CONVERTERS
from spots import PureSpotFinder

MEAN, STD = PureSpotFinder().mean, PureSpotFinder().std

SCRIPT = f"""
import os, shutil, sys
sys.path.insert(0, {str(CONVERTERS)!r})
import numpy as np
from child import serve

def convert(source, target, precision, outputs):
    print("a library that talks")
    os.write(1, b"and one that does so below Python\\n")
    shutil.copy(source, target)

def open_file(file, precision, outputs, threads):
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in ({MEAN}, {STD}))
    return lambda images: [(images * std + mean)[..., ::4, ::4]]

serve(["numpy"], convert, open_file)
"""


class InProcess:
    """Answers as a converter's process, in this one. Subclasses spoil what it writes."""

    def __init__(self, _python: Path, _script: Path, _title: str, _folder: Path) -> None:
        self.asked: list[str] = []

    def heatmaps(self, images: np.ndarray) -> np.ndarray:
        mean, std = (np.array(value, np.float32).reshape(3, 1, 1) for value in (MEAN, STD))
        return (images * std + mean)[..., ::4, ::4]

    def ask(self, request: dict[str, Any], _seconds: float) -> dict[str, Any]:
        self.asked.append(request["do"])
        if request["do"] == "convert":
            shutil.copy(request["source"], request["target"])
            return {"versions": {"numpy": np.__version__}}
        if request["do"] == "run":
            with np.load(request["images"], allow_pickle=False) as file:
                images = file["images"]
            np.savez(request["outputs"], heatmaps=self.heatmaps(images), seconds=np.full(len(images), 0.002))
        return {}

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


class Shifted(InProcess):
    """Every keypoint lies a map pixel, four pixels of the crop, further right."""

    def heatmaps(self, images: np.ndarray) -> np.ndarray:
        return np.roll(super().heatmaps(images), 1, axis=-1)


class ShiftedLater(InProcess):
    """The same, once the comparison with the model is over."""

    def heatmaps(self, images: np.ndarray) -> np.ndarray:
        maps = super().heatmaps(images)
        return maps if self.asked.count("run") <= 2 else np.roll(maps, 3, axis=-1)


class Infinite(InProcess):
    """Gives no numbers."""

    def heatmaps(self, images: np.ndarray) -> np.ndarray:
        return np.full_like(super().heatmaps(images), np.nan)


class Short(InProcess):
    """Forgets all crops but the first."""

    def heatmaps(self, images: np.ndarray) -> np.ndarray:
        return super().heatmaps(images)[:1]


class Narrow(InProcess):
    """Loses a column of the maps."""

    def heatmaps(self, images: np.ndarray) -> np.ndarray:
        return super().heatmaps(images)[..., 1:]


class Dark(PureSpotFinder):
    """Sees nothing, so that no keypoint is settled."""

    def read(self, images: torch.Tensor) -> Any:
        return super().read(images * 0 - torch.tensor(MEAN).view(3, 1, 1) / torch.tensor(STD).view(3, 1, 1))


class Blind(InProcess):
    """As `Dark`."""

    def heatmaps(self, images: np.ndarray) -> np.ndarray:
        return np.zeros_like(super().heatmaps(images))


class Unable(InProcess):
    """Cannot convert."""

    def ask(self, request: dict[str, Any], _seconds: float) -> dict[str, Any]:
        raise LeanposeError("The converter of MNN failed: MNN has no operation for ONNX::Spots.")
