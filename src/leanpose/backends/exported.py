"""Base of all exported files: a card, one input, and named outputs."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
from pydantic import BaseModel, Field

from leanpose.backends.base import Backend, Crops, KeypointArrays, ModelSpec, Precision
from leanpose.codecs import Prediction, build_codec
from leanpose.errors import LeanposeError
from leanpose.schema import Mean, Std, parse_card
from leanpose.skeleton import Skeleton

KEY = "leanpose"
INPUT = "images"
DECODED = ("keypoints", "scores")
NO_PREDICTION = "This file outputs decoded keypoints; the flip test needs an export with --no-include-decoding."

Shape = Sequence[int | str | None]
"""Shape of a file's input or output; a dynamic size is a word or None."""

TensorInfo = tuple[str, Shape]
"""The name and shape of a file's input or output."""


MAX_SIDE = 2048
"""Maximum input size, in pixels; untrusted files can claim anything."""

_InputSide = Annotated[int, Field(ge=8, le=MAX_SIDE)]


class _Export(BaseModel):
    preprocessing: bool
    decoding: bool
    precision: Precision
    quantization: dict[str, Any] | None = None


class _Card(BaseModel):
    """Required fields of the card of an exported file."""

    model: str
    skeleton: dict[str, Any]
    codec: dict[str, Any]
    mean: Mean
    std: Std
    input_size: tuple[_InputSide, _InputSide]
    export: _Export


@dataclass(frozen=True)
class ExportCard:
    """The metadata of an exported file.

    Attributes:
        spec: preprocessing and decoding.
        includes_preprocessing: the input is uint8 RGB (B, H, W, 3); else float32 (B, 3, H, W), normalized by the
            caller.
        includes_decoding: the outputs are keypoints and scores; else they are the network's prediction.
        precision: the precision in which the file was checked and should be run.
        weights: the rest of the weights' card, such as licence and training data.
        quantization: for an int8 file: its settings and evaluation.
        layout: for a file that leanpose did not export: the order of its input's axes.
        read: converts such a file's outputs to a prediction; None: they have leanpose's names.
        origin: the source of this description.
        guess: assumptions about the keypoints; empty if the file or the user defines them.
    """

    spec: ModelSpec
    includes_preprocessing: bool
    includes_decoding: bool
    precision: Precision = "fp32"
    weights: Mapping[str, Any] | None = None
    quantization: Mapping[str, Any] | None = None
    layout: Literal["nchw", "nhwc"] = "nchw"
    read: Callable[[Sequence[np.ndarray]], Prediction] | None = None
    origin: str = "as the file says"
    guess: str = ""

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
                **({} if self.quantization is None else {"quantization": self.quantization}),
            },
        }
        return json.dumps({**(self.weights or {}), **own}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> ExportCard:
        """Read what `to_json` wrote.

        Raises:
            LeanposeError: something is missing or unknown; `source` names the file.
        """
        try:
            card = parse_card(_Card, text, source)
            export = card.pop("export")
            size, mean, std = (tuple(card[key]) for key in ("input_size", "mean", "std"))
            skeleton, codec = Skeleton.from_dict(card["skeleton"]), build_codec(card["codec"])
            spec = ModelSpec(card["model"], skeleton, codec, size, mean, std)
            included = bool(export["preprocessing"]), bool(export["decoding"])
            return cls(spec, *included, export["precision"], card, export.get("quantization"))
        except (KeyError, TypeError, ValueError, LeanposeError) as error:
            raise LeanposeError(f"{source} has invalid metadata ({error}); export it again.") from error


def named_outputs(prediction: Prediction) -> dict[str, Any]:
    """A prediction's tensors by the names that they have in exported files."""
    values = [getattr(prediction, field.name) for field in fields(prediction)]
    named = zip(prediction.exported_names, values, strict=True)
    return {name: value for name, value in named if value is not None}


def prediction_of(outputs: Mapping[str, Any]) -> Prediction:
    """The prediction from an exported file's outputs by name.

    Raises:
        LeanposeError: they are not the fields of a prediction.
    """
    for kind in get_args(Prediction):
        if kind.exported_names[0] in outputs:
            return kind(*(outputs.get(name) for name in kind.exported_names))
    raise LeanposeError(f"The outputs {', '.join(outputs)} are not the prediction of a pose model.")


def describe_values(values: Sequence[TensorInfo]) -> str:
    """The inputs or outputs of a file, for messages."""
    return ", ".join(f"`{name}` {'×'.join(str(side) for side in shape) or 'scalar'}" for name, shape in values)


class ExportedBackend(Backend):
    """An exported file that a backend has opened.

    Args:
        card: the metadata of the file.
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
        last = self.card.layout == "nhwc"
        images = np.empty(crops.shape if last else (len(crops), 3, *crops.shape[1:3]), np.float32)
        planes = images.transpose(0, 3, 1, 2) if last else images
        for channel in range(3):  # three passes over planes are faster than one over interleaved values
            np.subtract(crops[..., channel], self._mean[channel], out=planes[:, channel])
            planes[:, channel] *= self._scale[channel]
        return images

    def predict(self, crops: Crops) -> Prediction:
        """The network's prediction.

        Raises:
            LeanposeError: the file decodes it itself, so that only keypoints come out.
        """
        if self.includes_decoding:
            raise LeanposeError(NO_PREDICTION)
        arrays = self.compute(self.prepare(crops))
        if self.card.read is not None:
            return self.card.read(arrays)
        return prediction_of({name: torch.from_numpy(array) for name, array in zip(self._outputs, arrays, strict=True)})

    def predict_keypoints(self, crops: Crops, *, flip_test: bool = False) -> KeypointArrays:
        """See `Backend.predict_keypoints`."""
        if flip_test or not self.includes_decoding:
            return super().predict_keypoints(crops, flip_test=flip_test)
        arrays = dict(zip(self._outputs, self.compute(self.prepare(crops)), strict=True))
        points, scores = (arrays[name] for name in DECODED)
        return np.asarray(points, np.float32), np.asarray(scores, np.float32)
