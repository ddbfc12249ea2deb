"""Codecs: encodings of keypoints. Each has `encode`, `decode`, `loss` and `merge_flipped`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from leanpose.codecs.base import Codec, Coordinates, Heatmaps, Prediction, SimCC
from leanpose.codecs.calibration import ScoreCalibration
from leanpose.codecs.coordinates import CoordinateCodec, CoordinateTarget
from leanpose.codecs.heatmap import HeatmapCodec, HeatmapTarget
from leanpose.codecs.simcc import SimCCCodec, SimCCTarget
from leanpose.errors import LeanposeError, did_you_mean

__all__ = [
    "CODECS", "Codec", "CoordinateCodec", "CoordinateTarget", "Coordinates", "HeatmapCodec", "HeatmapTarget",
    "Heatmaps", "Prediction", "ScoreCalibration", "SimCC", "SimCCCodec", "SimCCTarget", "build_codec",
]  # fmt: skip

CODECS: dict[str, type[HeatmapCodec | CoordinateCodec | SimCCCodec]] = {
    codec.name: codec for codec in (CoordinateCodec, HeatmapCodec, SimCCCodec)
}

RENAMED_CODEC_SETTINGS = {"kernel": "blur_kernel_size", "split": "simcc_split_ratio"}
"""Former names of settings, for error messages about older cards and recipes."""


def build_codec(values: Mapping[str, Any]) -> Codec:
    """A codec from its name and settings, as in a recipe or from `Codec.to_dict`.

    >>> build_codec({"name": "heatmap", "sigma": 3}).sigma
    3

    Raises:
        LeanposeError: the name or a setting is unknown, or a value is not valid.
    """
    settings = dict(values)
    name = settings.pop("name", None)
    if name is None:
        raise LeanposeError(f"A codec needs a `name`; {did_you_mean('', CODECS)}")
    if name not in CODECS:
        raise LeanposeError(f"Unknown codec '{name}'; {did_you_mean(str(name), CODECS)}")
    known = [field.name for field in fields(CODECS[name])]
    calibration = settings.pop("calibration", None)
    if isinstance(calibration, Mapping):
        calibration = ScoreCalibration.from_dict(calibration)
    for key, value in settings.items():
        if RENAMED_CODEC_SETTINGS.get(key) in known:
            raise LeanposeError(
                f"The setting '{key}' of the codec '{name}' is called '{RENAMED_CODEC_SETTINGS[key]}' now."
            )
        if (key, value) == ("encoding", "classic"):
            raise LeanposeError(f"The encoding 'classic' of the codec '{name}' is called 'msra' now.")
        if key not in known:
            raise LeanposeError(f"The codec '{name}' has no setting '{key}'; {did_you_mean(str(key), known)}")
        if isinstance(value, list):
            settings[key] = tuple(value)
    try:
        return CODECS[name](**settings, calibration=calibration)
    except (TypeError, ValueError) as error:
        raise LeanposeError(f"A setting of the codec '{name}' has an invalid value: {error}.") from error
