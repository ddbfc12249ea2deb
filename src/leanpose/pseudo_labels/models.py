"""MediaPipe's landmark models as ONNX files: an image and a square in, points of the image and a score out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.errors import LeanposeError
from leanpose.pseudo_labels.crops import TurnedSquare

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


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
    """

    name: str
    sha256: str
    size: int
    outputs: tuple[str, str]
    values: int
    points: int


FACE = ModelFile("mediapipe_face_landmark_468.onnx", "297b43d79961cd73", 192, ("conv2d_21", "conv2d_31"), 3, 468)
HAND = ModelFile("mediapipe_hand_landmark_lite.onnx", "540cba296ab79b74", 224, ("Identity", "Identity_1"), 3, 21)
BODY = ModelFile("mediapipe_pose_landmark_lite.onnx", "5906b4c3325f4b12", 256, ("Identity", "Identity_1"), 5, 39)
FILES = (FACE, HAND, BODY)


@dataclass(frozen=True)
class Landmarks:
    """What a model found in a square.

    Attributes:
        points: (K, 2) in image pixels; a model always answers, wherever it looks.
        score: 0 … 1, that the part is there at all.
    """

    points: Float[np.ndarray, "K 2"]
    score: float


class LandmarkModels(Protocol):
    """Who finds the points of a face (468), a hand (21) and a body (39) in a square of an image."""

    def face(self, image: UInt8[np.ndarray, "H W 3"], square: TurnedSquare) -> Landmarks: ...

    def hand(self, image: UInt8[np.ndarray, "H W 3"], square: TurnedSquare) -> Landmarks: ...

    def body(self, image: UInt8[np.ndarray, "H W 3"], square: TurnedSquare) -> Landmarks: ...


class OnnxLandmarkModels:
    """The three models, run by onnxruntime on the CPU.

    Args:
        folder: holds the files named in `FILES`.
        threads: of each model.

    Attributes:
        hashes: SHA-256 of each file by its name.

    Raises:
        LeanposeError: a file is missing, or is not that model.
    """

    def __init__(self, folder: Path | str, *, threads: int = 1) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise LeanposeError(f"There is no folder {folder} of landmark models; it must hold {_names()}.")
        self.hashes: dict[str, str] = {}
        self._sessions: dict[str, InferenceSession] = {}
        for file in FILES:
            path = folder / file.name
            if not path.is_file():
                raise LeanposeError(f"The landmark model {path} is missing; the folder must hold {_names()}.")
            self.hashes[file.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            self._sessions[file.name] = _open(path, file, threads)

    @property
    def unknown(self) -> list[str]:
        """Names of files that are not those with which the documented figures were measured."""
        return [file.name for file in FILES if not self.hashes[file.name].startswith(file.sha256)]

    def face(self, image: UInt8[np.ndarray, "H W 3"], square: TurnedSquare) -> Landmarks:
        """The mesh of a face, 468 points."""
        points, logit = self._run(FACE, image, square)
        return Landmarks(points, float(1 / (1 + np.exp(-logit))))

    def hand(self, image: UInt8[np.ndarray, "H W 3"], square: TurnedSquare) -> Landmarks:
        """The 21 points of a hand, left or right alike."""
        return Landmarks(*self._run(HAND, image, square))

    def body(self, image: UInt8[np.ndarray, "H W 3"], square: TurnedSquare) -> Landmarks:
        """BlazePose's 33 points of a body, and 6 of its own use."""
        return Landmarks(*self._run(BODY, image, square))

    def _run(
        self, file: ModelFile, image: UInt8[np.ndarray, "H W 3"], square: TurnedSquare
    ) -> tuple[Float[np.ndarray, "K 2"], float]:
        session = self._sessions[file.name]
        pixels = square.crop(image, file.size)[None].astype(np.float32) / 255
        values, score = cast(
            "list[np.ndarray]", session.run(list(file.outputs), {session.get_inputs()[0].name: pixels})
        )
        points = values.reshape(-1, file.values)[: file.points, :2].astype(np.float64)
        # The models count from the crop's edge, the images here from the centre of their first pixel.
        return square.to_image(points - 0.5, file.size), float(score.reshape(-1)[0])


def _names() -> str:
    return ", ".join(file.name for file in FILES)


def _open(path: Path, file: ModelFile, threads: int) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception class for each kind of damage, none of them public
        raise LeanposeError(f"{path} is no ONNX model that onnxruntime can open; is the file whole?") from error
    inputs = session.get_inputs()
    shapes = {output.name: output.shape for output in session.get_outputs()}
    if (
        len(inputs) != 1
        or list(inputs[0].shape[1:]) != [file.size, file.size, 3]
        or any(name not in shapes for name in file.outputs)
        or shapes[file.outputs[0]][-1] != file.values * file.points
    ):
        raise LeanposeError(f"{path} is another model than its name says: its inputs or outputs do not fit.")
    return session
