"""What all exported files have in common: a card, one input, and named outputs; and RTMPose files that have no card."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from leanpose.backends.base import Backend, Crops, KeypointArrays, ModelSpec, Precision
from leanpose.codecs import SimCCCodec, build_codec
from leanpose.codecs.base import Coordinates, Heatmaps, Prediction, SimCC
from leanpose.errors import LeanposeError
from leanpose.models.backbones import MEAN, STD
from leanpose.skeleton import COCO17, WHOLEBODY133, Skeleton

KEY = "leanpose"
INPUT = "images"
DECODED = ("keypoints", "scores")
NO_PREDICTION = (
    "This file gives decoded keypoints, not the prediction; for the flip test export with --no-include-decoding."
)
RTMPOSE_SPLIT = 2.0  # bins per pixel of every RTMPose that is published

Shaped = tuple[str, Sequence[int | str | None]]
"""The name and shape of a file's input or output; a size that is left open is a word or None."""


@dataclass(frozen=True)
class ExportCard:
    """What an exported file says of itself.

    Attributes:
        spec: how to feed and read it.
        includes_preprocessing: the input is uint8 RGB (B, H, W, 3); else float32 (B, 3, H, W), normalised by the caller.
        includes_decoding: the outputs are keypoints and scores; else they are the network's prediction.
        precision: in which the file was checked, and is to be run.
        weights: the rest of the weights' card, such as licence and training data.
        quantisation: of an int8 file: how it was made and what was measured.
    """

    spec: ModelSpec
    includes_preprocessing: bool
    includes_decoding: bool
    precision: Precision = "fp32"
    weights: Mapping[str, Any] | None = None
    quantisation: Mapping[str, Any] | None = None

    def to_json(self) -> str:
        """The card as text; `from_json` reads it back."""
        spec = self.spec
        own = {
            "model": spec.name,
            "skeleton": spec.skeleton.to_dict(),
            "codec": spec.codec.to_dict(),
            "mean": spec.mean,
            "std": spec.std,
            "input_size": spec.input_size,
            "export": {
                "preprocessing": self.includes_preprocessing,
                "decoding": self.includes_decoding,
                "precision": self.precision,
                **({} if self.quantisation is None else {"quantisation": self.quantisation}),
            },
        }
        return json.dumps({**(self.weights or {}), **own}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> ExportCard:
        """Read what `to_json` wrote.

        Raises:
            LeanposeError: something is missing, or is not known here; `source` names the file.
        """
        try:
            card = json.loads(text)
            export = card.pop("export")
            spec = ModelSpec(
                card["model"],
                Skeleton.from_dict(card["skeleton"]),
                build_codec(card["codec"]),
                cast("tuple[int, int]", tuple(card["input_size"])),
                cast("tuple[float, float, float]", tuple(card["mean"])),
                cast("tuple[float, float, float]", tuple(card["std"])),
            )
            return cls(
                spec,
                bool(export["preprocessing"]),
                bool(export["decoding"]),
                export["precision"],
                weights=card,
                quantisation=export.get("quantisation"),
            )
        except (KeyError, TypeError, ValueError, LeanposeError) as error:
            raise LeanposeError(f"{source} has a card that cannot be read ({error!r}); export it again.") from error


def named_outputs(prediction: Prediction) -> dict[str, Any]:
    """A prediction's tensors by the names that they have in exported files."""
    if isinstance(prediction, Heatmaps):
        return {"heatmaps": prediction.heatmaps}
    if isinstance(prediction, SimCC):
        return {"simcc_x": prediction.x, "simcc_y": prediction.y}
    parts = {"xy": prediction.xy, "sigma": prediction.sigma, "score": prediction.score}
    return {name: part for name, part in parts.items() if part is not None}


def prediction_of(outputs: Mapping[str, Any]) -> Prediction:
    """The prediction that these named tensors are.

    Raises:
        LeanposeError: they are none.
    """
    if "heatmaps" in outputs:
        return Heatmaps(outputs["heatmaps"])
    if "simcc_x" in outputs and "simcc_y" in outputs:
        return SimCC(outputs["simcc_x"], outputs["simcc_y"])
    if "xy" in outputs:
        return Coordinates(outputs["xy"], outputs.get("sigma"), outputs.get("score"))
    raise LeanposeError(f"The outputs {', '.join(outputs)} are no prediction of a pose model.")


def rtmpose_card(
    inputs: Sequence[Shaped], outputs: Sequence[Shaped], path: Path, skeleton: Skeleton | None
) -> tuple[ExportCard, list[str]]:
    """The card of an RTMPose as MMDeploy exports it and rtmlib runs it, from the shapes of its inputs and outputs.

    Known is one form: a float input (B, 3, H, W), normalised with ImageNet's mean and deviation, and two outputs, rows of
    bins along x (B, K, 2 W) and along y (B, K, 2 H).

    Args:
        skeleton: the names of the K keypoints; where it is None, K says it.

    Returns:
        A card, and names for the outputs in their order.

    Raises:
        LeanposeError: the file is of another form, or K says nothing.
    """
    shape = list(inputs[0][1]) if len(inputs) == 1 else []
    rows = [list(of) for _, of in outputs]
    is_image = len(shape) == 4 and shape[1] == 3 and all(isinstance(side, int) for side in shape[2:])
    if not is_image or len(rows) != 2 or any(len(row) != 3 for row in rows) or rows[0][1] != rows[1][1]:
        raise LeanposeError(_unknown(inputs, outputs, path))
    height, width, keypoints = int(shape[2] or 0), int(shape[3] or 0), rows[0][1]
    sizes, bins = [row[2] for row in rows], [width * RTMPOSE_SPLIT, height * RTMPOSE_SPLIT]
    if sizes not in (bins, bins[::-1]) or not isinstance(keypoints, int):
        raise LeanposeError(_unknown(inputs, outputs, path))
    names = ["simcc_x", "simcc_y"] if sizes == bins else ["simcc_y", "simcc_x"]
    skeleton = _skeleton(keypoints, skeleton, path)
    sigma = (round((width / 8) ** 0.5, 2), round((height / 8) ** 0.5, 2))
    codec = SimCCCodec((height, width), sigma=sigma, simcc_split_ratio=RTMPOSE_SPLIT)
    spec = ModelSpec(path.stem, skeleton, codec, (height, width), MEAN, STD)
    return ExportCard(spec, includes_preprocessing=False, includes_decoding=False), names


def _skeleton(keypoints: int, given: Skeleton | None, path: Path) -> Skeleton:
    if given is not None:
        if len(given) != keypoints:
            raise LeanposeError(
                f"{path} finds {keypoints} keypoints, but the skeleton '{given.name}' has {len(given)}."
            )
        return given
    for known in (COCO17, WHOLEBODY133):
        if len(known) == keypoints:
            return known
    raise LeanposeError(f"{path} finds {keypoints} keypoints and does not name them; give a skeleton with their names.")


def describe_values(values: Sequence[Shaped]) -> str:
    """The inputs or outputs of a file, for messages."""
    return ", ".join(f"`{name}` {'×'.join(str(side) for side in shape) or 'scalar'}" for name, shape in values)


def _unknown(inputs: Sequence[Shaped], outputs: Sequence[Shaped], path: Path) -> str:
    return (
        f"{path} is no pose model that is known here: it has no card of leanpose, the inputs {describe_values(inputs)} and "
        f"the outputs {describe_values(outputs)}; expected a file that `leanpose export` wrote, or an RTMPose with the "
        "outputs `simcc_x` and `simcc_y`."
    )


class ExportedBackend(Backend):
    """An exported file that a backend has opened.

    Args:
        card: what the file is.
        outputs: the names of its outputs, in order.
    """

    def __init__(self, card: ExportCard, outputs: Sequence[str]) -> None:
        self.card, self.spec, self.precision = card, card.spec, card.precision
        self.includes_decoding = card.includes_decoding
        self._outputs = tuple(outputs)
        self._mean = np.array([255 * m for m in card.spec.mean], np.float32)
        self._scale = np.array([1 / (255 * s) for s in card.spec.std], np.float32)

    @abstractmethod
    def compute(self, images: np.ndarray) -> Sequence[np.ndarray]:
        """Run the graph on its input; the outputs in order."""

    def prepare(self, crops: Crops) -> np.ndarray:
        """The graph's input for these crops."""
        if self.card.includes_preprocessing:
            return crops
        images = np.empty((len(crops), 3, *crops.shape[1:3]), np.float32)
        for channel in range(3):  # three passes over planes are faster than one over interleaved values
            np.subtract(crops[..., channel], self._mean[channel], out=images[:, channel])
            images[:, channel] *= self._scale[channel]
        return images

    def predict(self, crops: Crops) -> Prediction:
        """The network's prediction.

        Raises:
            LeanposeError: the file decodes it itself, so that only keypoints come out.
        """
        if self.includes_decoding:
            raise LeanposeError(NO_PREDICTION)
        arrays = self.compute(self.prepare(crops))
        return prediction_of({name: torch.from_numpy(array) for name, array in zip(self._outputs, arrays, strict=True)})

    def predict_keypoints(self, crops: Crops, *, flip_test: bool = False) -> KeypointArrays:
        """See `Backend.predict_keypoints`."""
        if flip_test or not self.includes_decoding:
            return super().predict_keypoints(crops, flip_test=flip_test)
        arrays = dict(zip(self._outputs, self.compute(self.prepare(crops)), strict=True))
        points, scores = (arrays[name] for name in DECODED)
        return np.asarray(points, np.float32), np.asarray(scores, np.float32)
