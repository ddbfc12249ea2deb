"""Pose models that leanpose did not export: known families in `foreign.yaml`, or described by a YAML file next to the
model.

A description names the kind of the outputs, the keypoints and the input's pixels; sizes are read from the graph.
`docs/teachers.md` lists its keys.
"""

from __future__ import annotations

import ast
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from leanpose.backends.base import ModelSpec
from leanpose.backends.exported import KEY, MAX_SIDE, ExportCard, Shape, TensorInfo, describe_values
from leanpose.choices import Decoding, Encoding
from leanpose.codecs import Codec, CoordinateCodec, Coordinates, HeatmapCodec, Heatmaps, Prediction, SimCC, SimCCCodec
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import load_yaml
from leanpose.models.backbones import MEAN, STD
from leanpose.schema import Mean, Section, Std, validate
from leanpose.skeleton import COCO17, MPII16, OF_DATASET, SKELETONS, WHOLEBODY133, Skeleton, get_skeleton

Triple = tuple[float, float, float]
RAW: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
"""Mean and standard deviation of an input that takes raw pixels, 0..255."""
BY_COUNT = {len(skeleton): skeleton for skeleton in (COCO17, MPII16, WHOLEBODY133)}
"""Skeletons by number of keypoints, for files that do not name them; other numbers are unknown or ambiguous."""
MAX_CROPS = 64  # maximum of a fixed batch size
SMALL = 128  # heatmaps of crops up to this side are trained with a narrower Gaussian (PP-TinyPose)


class PoseFile(Section):
    """The description of a file; one subclass per output representation.

    Attributes:
        skeleton: a known skeleton's name, the names of all keypoints in the order of the outputs, or names by index of
            those to use.
    """

    kind: str
    skeleton: str | tuple[str, ...] | dict[int, str] | None = None
    layout: Literal["nchw", "nhwc"] = "nchw"
    mean: Mean | None = None
    """Mean of the RGB input on a 0..1 scale, like `std`; None: ImageNet's, or raw pixels if the input has integers."""
    std: Std | None = None
    outputs: tuple[int | str, ...] = (0,)
    """Names or indices of the outputs to read."""

    @abstractmethod
    def codec(self, size: tuple[int, int], shapes: Sequence[list[int]]) -> tuple[Codec, int]:
        """The codec for crops of this (height, width), and the number of keypoints in the outputs.

        Args:
            shapes: shapes of the outputs, without the batch axis.

        Raises:
            ValueError, IndexError: they do not fit.
        """

    @abstractmethod
    def read(self, outputs: Sequence[Tensor], indices: Sequence[int], size: tuple[int, int]) -> Prediction:
        """The prediction of the keypoints at these indices."""


class HeatmapFile(PoseFile):
    """One heatmap per keypoint, in the layout of the input."""

    kind: Literal["heatmaps"]  # pyright: ignore[reportIncompatibleVariableOverride]
    encoding: Encoding = "udp"
    decoding: Decoding = "dark"
    blur_kernel_size: int | None = Field(default=None, ge=1)
    """None: 5, or 3 for crops of at most 128 pixels."""

    def codec(self, size: tuple[int, int], shapes: Sequence[list[int]]) -> tuple[Codec, int]:
        (sides,) = shapes
        keypoints, height, width = sides if self.layout == "nchw" else (sides[2], *sides[:2])
        small = max(size) <= SMALL
        blur, sigma = self.blur_kernel_size or (3 if small else 5), 1.0 if small else 2.0
        return HeatmapCodec(size, (height, width), sigma, self.encoding, self.decoding, blur), keypoints

    def read(self, outputs: Sequence[Tensor], indices: Sequence[int], size: tuple[int, int]) -> Prediction:
        maps = outputs[0] if self.layout == "nchw" else outputs[0].permute(0, 3, 1, 2)
        return Heatmaps(maps[:, indices].float())


class SimCCFile(PoseFile):
    """Two outputs: bins along x, bins along y."""

    kind: Literal["simcc"]  # pyright: ignore[reportIncompatibleVariableOverride]
    outputs: tuple[int | str, ...] = (0, 1)

    def codec(self, size: tuple[int, int], shapes: Sequence[list[int]]) -> tuple[Codec, int]:
        (keypoints, x), (others, y) = shapes
        if keypoints != others or x * size[0] != y * size[1]:
            raise ValueError
        sigma = (round((size[1] / 8) ** 0.5, 2), round((size[0] / 8) ** 0.5, 2))
        return SimCCCodec(size, sigma, simcc_split_ratio=x / size[1]), keypoints

    def read(self, outputs: Sequence[Tensor], indices: Sequence[int], size: tuple[int, int]) -> Prediction:
        x, y = (output[:, indices].float() for output in outputs)
        return SimCC(x, y)


class CoordinateFile(PoseFile):
    """One output with `values` numbers per keypoint, in any shape; a second one may hold one score for all keypoints."""

    kind: Literal["coordinates"]  # pyright: ignore[reportIncompatibleVariableOverride]
    values: int = Field(default=2, ge=2)
    """Numbers per keypoint; the coordinates come first."""
    order: Literal["xy", "yx"] = "xy"
    unit: Literal["pixels", "fraction"]
    half_pixel: bool = False
    """Whether coordinates are measured from the crop's edge, so that the first pixel's centre is at 0.5."""
    score: int | None = Field(default=None, ge=2)
    """Index of the score among the values; None: the second output, or without one a constant 1."""
    score_logit: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.score is not None and (self.score >= self.values or len(self.outputs) > 1):
            raise ValueError("a score is one of the `values`, or else the second of the `outputs`")
        return self

    def codec(self, size: tuple[int, int], shapes: Sequence[list[int]]) -> tuple[Codec, int]:
        keypoints, rest = divmod(math.prod(shapes[0]), self.values)
        if rest:
            raise ValueError
        return CoordinateCodec(size, flip_shift=True), keypoints  # a pixel's mirror image is at width - 1 - x

    def read(self, outputs: Sequence[Tensor], indices: Sequence[int], size: tuple[int, int]) -> Prediction:
        points, *whole = (output.float().flatten(1) for output in outputs)
        points = points.unflatten(1, (-1, self.values))[:, indices]
        sides = points.new_tensor(size[::-1])
        xy = points[..., :2] if self.order == "xy" else points[..., :2].flip(-1)
        xy = (xy / sides if self.unit == "pixels" else xy) - self.half_pixel * 0.5 / sides
        score = points[..., self.score] if self.score is not None else whole[0].expand(xy.shape[:2]) if whole else None
        return Coordinates(xy, None, score.sigmoid() if score is not None and self.score_logit else score)


KINDS: dict[str, type[PoseFile]] = {"heatmaps": HeatmapFile, "simcc": SimCCFile, "coordinates": CoordinateFile}


class Family(NamedTuple):
    """An entry of `foreign.yaml`.

    Attributes:
        shapes: shapes of the input and all outputs. A number matches itself, B any size, another letter one size
            throughout, optionally with a factor: `2W`.
        file: the description of its files.
    """

    shapes: list[list[int | str]]
    file: PoseFile

    def fits(self, shapes: Sequence[Shape]) -> bool:
        """Whether a file has these shapes."""
        if [len(shape) for shape in shapes] != [len(shape) for shape in self.shapes]:
            return False
        numbers: dict[str, int] = {}

        def expected(pattern: int | str, side: int) -> int:
            """The size that a pattern requires; a new letter is bound to the given size."""
            if isinstance(pattern, int):
                return pattern
            return int(pattern[:-1] or 1) * numbers.setdefault(pattern[-1], side)

        pairs = [pair for shape in zip(self.shapes, shapes, strict=True) for pair in zip(*shape, strict=True)]
        return all(p == "B" or (isinstance(side, int) and expected(p, side) == side) for p, side in pairs)


@cache
def families() -> dict[str, Family]:
    """The known families by name."""
    known = load_yaml(Path(__file__).with_name("foreign.yaml"), "table of families")
    return {name: Family([v.pop("input"), *v.pop("shapes")], parse(v, name)) for name, v in known.items()}


def parse(values: dict[str, Any], origin: str) -> PoseFile:
    """A description from plain values.

    Raises:
        LeanposeError: a key is unknown or missing, or a value does not fit.
    """
    if not isinstance(values.get("kind"), str) or values["kind"] not in KINDS:
        raise LeanposeError(f"{origin} needs the `kind` of the outputs; {did_you_mean(str(values.get('kind')), KINDS)}")
    return validate(KINDS[values["kind"]], values, origin)


NAMES = ("keypoint_names", "keypoints", "kpt_names")
"""Metadata keys that list a file's keypoints."""


def named_in(metadata: Mapping[str, str]) -> Skeleton | tuple[str, ...] | None:
    """The keypoints according to a file's metadata: a known skeleton or data set (`skeleton`, `dataset_name`), or their
    names, as a list or separated by commas; None: not stated."""
    for key in ("skeleton", "dataset_name"):
        name = metadata.get(key, "").strip()
        if name in SKELETONS or name in OF_DATASET:
            return SKELETONS.get(name) or OF_DATASET[name]
    for key in NAMES:
        text = metadata.get(key, "")
        try:
            names = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            names = [name.strip() for name in text.split(",")]
        if isinstance(names, dict):  # index → name, or the only class → its names
            values = [names[index] for index in sorted(names, key=str)] if len(names) == 1 else list(names.values())
            names = values[0] if len(values) == 1 and isinstance(values[0], (list, tuple)) else values
        if (
            isinstance(names, (list, tuple))
            and len(names) > 1
            and all(isinstance(name, str) and name for name in names)
        ):
            return tuple(names)
    return None


def read_card(
    metadata: Mapping[str, str],
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    dtype: np.dtype,
    path: Path,
    skeleton: Skeleton | None,
) -> tuple[ExportCard, list[str]]:
    """The card of a file, and the names of its outputs in order.

    A file without leanpose's card is described by a YAML file of the same name, or must be of a known family.

    Args:
        metadata: the file's metadata, which may hold leanpose's card or name the keypoints.
        inputs, outputs: names and shapes of the graph's inputs (one) and outputs.
        dtype: data type of the input.
        path: the file.
        skeleton: the keypoints of a file without a card; None: those of its description.

    Raises:
        LeanposeError: the card is corrupt or names other keypoints than `skeleton`, the file is neither described nor of
            a known family, or its keypoints have no names.
    """
    names = [name for name, _ in outputs]
    if KEY in metadata:
        card = ExportCard.from_json(metadata[KEY], str(path))
        if skeleton is not None and skeleton.keypoints != card.spec.skeleton.keypoints:
            raise LeanposeError(
                f"{path} names its keypoints itself, those of '{card.spec.skeleton.name}'; leave the skeleton "
                f"'{skeleton.name}' out."
            )
        return card, names
    described = path.with_suffix(".yaml")
    if described.is_file():
        file, origin = parse(load_yaml(described, "description"), str(described)), f"as {described.name} says"
    else:
        shapes = [shape for _, shape in (*inputs, *outputs)]
        name, file = next(((name, f.file) for name, f in families().items() if f.fits(shapes)), (None, None))
        if file is None:
            raise LeanposeError(
                f"{path} is not a known pose model: it has no card of leanpose, the inputs "
                f"{describe_values(inputs)} and the outputs {describe_values(outputs)}; if it is one, describe it in "
                f"{described.name} next to it (docs/teachers.md)."
            )
        origin = f"recognised as {name} by its shapes"
    known = skeleton or file.skeleton or named_in(metadata)
    return _card(file, inputs[0][1], outputs, dtype, path, known, origin), names


def _card(
    file: PoseFile,
    shape: Shape,
    outputs: Sequence[TensorInfo],
    dtype: np.dtype,
    path: Path,
    said: Keypoints,
    origin: str,
) -> ExportCard:
    """The card of a file according to its description."""
    integer, names = np.issubdtype(dtype, np.integer), [name for name, _ in outputs]
    crops = shape[0] if shape and isinstance(shape[0], int) else 1
    match list(shape[1:]) if 1 <= crops <= MAX_CROPS else [], file.layout:
        case ([3, int(h), int(w)], "nchw") if not integer:
            size = h, w
        case [int(h), int(w), 3], "nhwc":
            size = h, w
        case _:
            raise LeanposeError(
                f"{path} takes {'×'.join(map(str, shape))} {dtype}, which does not fit {file.layout}: expected any "
                f"number of crops, or a fixed one up to {MAX_CROPS}, three colours, and a fixed height and width "
                "(python -m onnxruntime.tools.make_dynamic_shape_fixed sets them); integers must be nhwc."
            )
    if not all(8 <= side <= MAX_SIDE for side in size):
        raise LeanposeError(
            f"{path} expects crops of {size[0]}x{size[1]} pixels, which is implausible for a pose model."
        )
    mean, std = (file.mean or MEAN, file.std or STD) if not integer else RAW
    if integer and (file.mean or RAW[0], file.std or RAW[1]) != RAW:
        raise LeanposeError(f"{path} has an integer input, raw pixels: remove mean and std.")
    try:
        places = [place if isinstance(place, int) else names.index(place) for place in file.outputs]
        shapes = [[side for side in outputs[place][1][1:] if isinstance(side, int)] for place in places]
        if [len(shape) for shape in shapes] != [len(outputs[place][1]) - 1 for place in places]:
            raise ValueError
        if crops > 1 and any(outputs[place][1][0] == 1 for place in places):
            raise ValueError  # of several crops one answer
        codec, count = file.codec(size, shapes)
    except (ValueError, IndexError) as error:
        raise LeanposeError(
            f"The outputs of {path} are not {file.kind} of crops of {size[0]}x{size[1]}: it has "
            f"{describe_values(outputs)}, of which {', '.join(map(str, file.outputs))} should be read, with fixed sizes."
        ) from error
    named, indices = keypoints_of(said, count, path)
    guess = "" if said is not None else "guessed from their number (override with --skeleton)"
    spec = ModelSpec(path.stem, named, codec, size, mean, std)

    def read(arrays: Sequence[np.ndarray]) -> Prediction:
        return file.read([torch.from_numpy(arrays[place]) for place in places], indices, size)

    return ExportCard(
        spec, bool(integer), includes_decoding=False, layout=file.layout, read=read, origin=origin, guess=guess
    )


Keypoints = str | tuple[str, ...] | dict[int, str] | Skeleton | None
"""A statement of a file's keypoints: a skeleton or its name, the names of all, or of some by index; None: none."""


def keypoints_of(said: Keypoints, count: int, path: Path) -> tuple[Skeleton, list[int]]:
    """The skeleton of a file, and the index of each of its keypoints in the outputs.

    The names of a known skeleton, in any order, select that skeleton.

    Raises:
        LeanposeError: the keypoints are not stated and cannot be guessed from their number, or the stated number differs
            from that of the outputs.
    """
    if said is None and count not in BY_COUNT:
        raise LeanposeError(
            f"{path} predicts {count} keypoints without names; give a skeleton (`--skeleton`, one of "
            f"{', '.join(SKELETONS)} or a YAML file), or describe the file in {path.stem}.yaml next to it (docs/teachers.md)."
        )
    if said is None or isinstance(said, (str, Skeleton)):
        skeleton = BY_COUNT[count] if said is None else get_skeleton(said)
        if len(skeleton) != count:
            raise LeanposeError(
                f"{path} predicts {count} keypoints, but the skeleton '{skeleton.name}' has {len(skeleton)}."
            )
        return skeleton, list(range(count))
    names = said if isinstance(said, dict) else dict(enumerate(said))
    if max(names, default=count) >= count or (len(names) != count and not isinstance(said, dict)):
        raise LeanposeError(
            f"{path} predicts {count} keypoints, but its skeleton names {len(names)}, up to {max(names)}."
        )
    places = {name: index for index, name in names.items()}
    known = next((s for s in SKELETONS.values() if set(s.keypoints) == places.keys()), None)
    if known is None:
        sigmas = {
            k: sigma for s in reversed(SKELETONS.values()) for k, sigma in zip(s.keypoints, s.sigmas, strict=True)
        }
        limbs = [[WHOLEBODY133.keypoints[end] for end in limb] for limb in WHOLEBODY133.limbs]
        known = Skeleton.from_dict({
            "name": path.stem, "keypoints": list(places), "sigmas": [sigmas.get(name, 0.05) for name in places],
            "limbs": [limb for limb in limbs if set(limb) <= places.keys()],
        })  # fmt: skip
    return known, [places[name] for name in known.keypoints]
