"""What a test knows of a model's output and its type leaves open."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from leanpose.codecs.base import Coordinates, Heatmaps, Prediction, SimCC
from leanpose.models.base import PoseOutput

T = TypeVar("T")


def present(value: T | None) -> T:
    """The value, which is not missing here."""
    assert value is not None
    return value


def gradient(tensor: Tensor | None) -> Tensor:
    """The gradient that a backward pass has left at a tensor."""
    return present(present(tensor).grad)


def heatmaps(output: PoseOutput) -> Tensor:
    """The heatmaps (B, K, H, W) of a model that predicts them."""
    assert isinstance(output.prediction, Heatmaps)
    return output.prediction.heatmaps


def coordinates(prediction: Prediction) -> Coordinates:
    """The prediction of a model that writes coordinates."""
    assert isinstance(prediction, Coordinates)
    return prediction


def simcc(prediction: Prediction) -> SimCC:
    """The prediction of a model that writes rows of bins."""
    assert isinstance(prediction, SimCC)
    return prediction
