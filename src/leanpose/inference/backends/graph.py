"""What all exported files have in common: a card, one input, and named outputs."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from leanpose.codecs import build_codec
from leanpose.codecs.base import Coordinates, Heatmaps, Prediction, SimCC
from leanpose.errors import LeanposeError
from leanpose.inference.backends.base import Backend, Crops, KeypointArrays, ModelSpec, Precision
from leanpose.skeleton import Skeleton

KEY = "leanpose"
INPUT = "images"
DECODED = ("keypoints", "scores")
KEYPOINTS_ALONE = "This file gives keypoints, not the prediction that they are read from; for the flip test export with --decode outside."


@dataclass(frozen=True)
class ExportCard:
    """What an exported file says of itself.

    Attributes:
        spec: how to feed and read it.
        normalise_inside: the input is uint8 RGB (B, H, W, 3); else it is float32 (B, 3, H, W), normalised by the caller.
        decode_inside: the outputs are keypoints and scores; else they are the network's prediction.
        precision: in which the file was checked, and is to be run.
        weights: the rest of the weights' card, such as licence and training data.
        quantisation: of a file in whole numbers: how it was made and what was measured.
    """

    spec: ModelSpec
    normalise_inside: bool
    decode_inside: bool
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
                "normalise": _where(self.normalise_inside),
                "decode": _where(self.decode_inside),
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
            inside = (export["normalise"] == "inside", export["decode"] == "inside")
            return cls(spec, *inside, export["precision"], weights=card, quantisation=export.get("quantisation"))
        except (KeyError, TypeError, ValueError, LeanposeError) as error:
            raise LeanposeError(f"{source} has a card that cannot be read ({error!r}); export it again.") from error


def _where(inside: bool) -> str:
    return "inside" if inside else "outside"


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


class GraphBackend(Backend):
    """A file that a run-time has opened.

    Args:
        card: what the file is.
        outputs: the names of its outputs, in order.
    """

    def __init__(self, card: ExportCard, outputs: Sequence[str]) -> None:
        self.card, self.spec, self.precision = card, card.spec, card.precision
        self.keypoints_alone = card.decode_inside
        self._outputs = tuple(outputs)
        self._mean = np.array([255 * m for m in card.spec.mean], np.float32)
        self._scale = np.array([1 / (255 * s) for s in card.spec.std], np.float32)

    @abstractmethod
    def compute(self, images: np.ndarray) -> Sequence[np.ndarray]:
        """Run the graph on its input; the outputs in order."""

    def prepare(self, crops: Crops) -> np.ndarray:
        """The graph's input for these crops."""
        if self.card.normalise_inside:
            return crops
        images = np.empty((len(crops), 3, *crops.shape[1:3]), np.float32)
        for channel in range(3):  # three passes over planes are faster than one over interleaved values
            np.subtract(crops[..., channel], self._mean[channel], out=images[:, channel])
            images[:, channel] *= self._scale[channel]
        return images

    def predict(self, crops: Crops) -> Prediction:
        """What the network writes.

        Raises:
            LeanposeError: the file decodes it itself, so that only keypoints come out.
        """
        import torch

        if self.card.decode_inside:
            raise LeanposeError(KEYPOINTS_ALONE)
        arrays = self.compute(self.prepare(crops))
        return prediction_of({name: torch.from_numpy(array) for name, array in zip(self._outputs, arrays, strict=True)})

    def predict_keypoints(self, crops: Crops, *, flip_test: bool = False) -> KeypointArrays:
        """See `Backend.predict_keypoints`."""
        if flip_test or not self.card.decode_inside:
            return super().predict_keypoints(crops, flip_test=flip_test)
        arrays = dict(zip(self._outputs, self.compute(self.prepare(crops)), strict=True))
        points, scores = (arrays[name] for name in DECODED)
        return np.asarray(points, np.float32), np.asarray(scores, np.float32)
