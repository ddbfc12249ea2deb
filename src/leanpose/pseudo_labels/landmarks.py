"""Google's MediaPipe landmark models (Apache-2.0) as ONNX files: their crops and their outputs.

They are the face mesh of 468 points (Kartynnik et al., 2019), the hand of 21 (Zhang et al., 2020), BlazePose's body of
33 and a few auxiliary points (Bazarevsky et al., 2020). They look at squares, rotated with the part of the person; the
rules for these and their figures are those with which the models were tried out on labelled faces, hands and feet: see
    `docs/pseudo-labels.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from math import atan2, cos, degrees, radians, sin
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import yaml
from jaxtyping import Float, UInt8

from leanpose.backends.onnx import open_session
from leanpose.errors import LeanposeError
from leanpose.geometry import apply_affine, invert_affine, warp_image, warp_matrix

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Image = UInt8[np.ndarray, "H W 3"]
Point = Float[np.ndarray, " 2"]


@dataclass(frozen=True)
class RotatedBox:
    """A square box in an image, rotated about its centre.

    Attributes:
        x, y: the centre in image pixels.
        side: in image pixels.
        angle: degrees; the direction in the image, clockwise from the right, that points to the right in the crop.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    def matrix(self, size: int) -> Float[np.ndarray, "2 3"]:
        """The affine map from image pixels to the pixels of a crop of `size` × `size`."""
        center, scale = np.array([self.x, self.y]), np.array([self.side, self.side])
        return warp_matrix(center, scale, (size, size), rotation=self.angle)

    def crop(self, image: Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """Cut the box out: linear interpolation, black outside the image."""
        return warp_image(image, self.matrix(size), (size, size))

    def to_image(self, points: Float[np.ndarray, "K 2"], size: int) -> Float[np.ndarray, "K 2"]:
        """Points of a crop of `size` × `size`, in image pixels."""
        return apply_affine(invert_affine(self.matrix(size)), points)


def box_around(points: Float[np.ndarray, "K 2"], angle: float, margin: float) -> RotatedBox:
    """The box around `points` in a frame rotated by `angle` degrees; its side is `margin` × the longer side."""
    c, s = cos(radians(angle)), sin(radians(angle))
    frame = np.array([[c, s], [-s, c]])
    rotated = points @ frame.T
    low, high = rotated.min(axis=0), rotated.max(axis=0)
    x, y = (low + high) / 2 @ frame
    return RotatedBox(float(x), float(y), margin * float((high - low).max()), angle)


def direction(start: Point, end: Point) -> float:
    """The direction from one point to another in degrees, clockwise from the right."""
    return degrees(atan2(float(end[1] - start[1]), float(end[0] - start[0])))


@dataclass(frozen=True)
class ModelFile:
    """One of the files that are needed.

    Attributes:
        name: of the file.
        sha256: the start of its hash, of the file with which the figures in the documentation were measured.
        size: height and width of its input.
        outputs: the points, and the score of the whole part.
        values: numbers that the points' output has for each point, x and y in pixels of the crop first.
        points: how many of them are read.
        logit: whether the score comes before its sigmoid.
    """

    name: str
    sha256: str
    size: int
    outputs: tuple[str, str]
    values: int
    points: int
    logit: bool = False


TABLES = yaml.safe_load(Path(__file__).with_name("landmarks.yaml").read_text(encoding="utf-8"))
FILES = {part: ModelFile(**values) for part, values in TABLES["files"].items()}
"""By what they find: a face's mesh, a hand (left or right alike), BlazePose's 33 points of a body and 6 of its own
use."""


@dataclass(frozen=True)
class Landmarks:
    """What a model found in a box.

    Attributes:
        points: (K, 2) in image pixels; a model always answers, wherever it looks.
        score: 0 … 1, that the part is there at all.
    """

    points: Float[np.ndarray, "K 2"]
    score: float


LandmarkModels = Callable[[str, Image, RotatedBox], Landmarks]
"""Finds the points of a `face` (468), a `hand` (21) or a `body` (39) in a box of an image."""


class OnnxLandmarkModels:
    """The three models, run by onnxruntime on the CPU.

    Args:
        folder: holds the files named in `FILES`.

    Attributes:
        hashes: SHA-256 of each file by its name.

    Raises:
        LeanposeError: a file is missing, or is not that model.
    """

    def __init__(self, folder: Path | str) -> None:
        self.hashes: dict[str, str] = {}
        self._sessions: dict[str, InferenceSession] = {}
        for part, file in FILES.items():
            path = Path(folder) / file.name
            if not path.is_file():
                names = ", ".join(file.name for file in FILES.values())
                raise LeanposeError(f"The landmark model {path} is missing; the folder must hold {names}.")
            self.hashes[file.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            self._sessions[part] = _open(path, file)

    @property
    def unknown(self) -> list[str]:
        """Names of files that are not those with which the documented figures were measured."""
        return [file.name for file in FILES.values() if not self.hashes[file.name].startswith(file.sha256)]

    def __call__(self, part: str, image: Image, box: RotatedBox) -> Landmarks:
        """The points of a part in a box."""
        file, session = FILES[part], self._sessions[part]
        inputs = {session.get_inputs()[0].name: box.crop(image, file.size)[None].astype(np.float32) / 255}
        values, scores = cast("list[np.ndarray]", session.run(list(file.outputs), inputs))
        points = values.reshape(-1, file.values)[: file.points, :2].astype(np.float64)
        score = float(scores.reshape(-1)[0])
        # The models count from the crop's edge, the images here from the centre of their first pixel.
        return Landmarks(
            box.to_image(points - 0.5, file.size), float(1 / (1 + np.exp(-score))) if file.logit else score
        )


def _open(path: Path, file: ModelFile) -> InferenceSession:
    try:
        session = open_session(path, cuda=False)
    except Exception as error:  # onnxruntime has an exception class for each kind of corruption, none of them public
        raise LeanposeError(f"{path} is not an ONNX model that onnxruntime can open; is the file complete?") from error
    inputs = [list(entry.shape[1:]) for entry in session.get_inputs()]
    outputs = {output.name: output.shape[-1] for output in session.get_outputs()}
    points, score = file.outputs
    if inputs != [[file.size] * 2 + [3]] or score not in outputs or outputs.get(points) != file.values * file.points:
        raise LeanposeError(f"{path} is not the model of its name: its inputs or outputs do not match.")
    return session
