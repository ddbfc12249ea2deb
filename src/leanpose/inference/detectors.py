"""Person detectors: ONNX files of the RTMDet and YOLOX kinds through onnxruntime, or the whole image.

Both kinds are published under permissive licences. What a file is follows from its own inputs and outputs:

- RTMDet with its box selection inside (as MMDeploy exports it): `dets` (B, N, 5) of x1, y1, x2, y2, score in input
  pixels, and `labels` (B, N) with 0 = person; BGR, normalised (Lyu et al., arXiv 2212.07784);
- YOLOX as its authors export it: one output (B, cells, 5 + classes) of centre, size, objectness and class scores on
  grids of stride 8, 16, 32; BGR 0..255 (Ge et al., arXiv 2107.08430, §2.1).

Images are shrunk or enlarged to fit the input, keeping their aspect, and padded at the right and the bottom with 114.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from jaxtyping import Float, Float32, UInt8

from leanpose.errors import LeanposeError
from leanpose.inference.backends.base import thread_count

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Kind = Literal["rtmdet", "yolox", "yolox-selected"]
Detections = tuple[Float[np.ndarray, "P 4"], Float[np.ndarray, " P"]]

PADDING = 114
RTMDET_MEAN, RTMDET_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # BGR
RTMDET_SIZE = (320, 320)  # of the nano person detector; used where the file leaves the size open
YOLOX_SIZE = (640, 640)
EXPECTED = (
    "expected one image input (batch, 3, height, width) of float and either the outputs `dets` (batch, boxes, 5) and "
    "`labels` (RTMDet with box selection) or one output (batch, cells, 5 + classes) (YOLOX)."
)


class Detector(ABC):
    """Finds people: a list of RGB images in; for each its boxes (P, 4) xyxy in pixels and scores (P,), best first."""

    name: str

    @abstractmethod
    def __call__(self, images: Sequence[UInt8[np.ndarray, "H W 3"]]) -> list[Detections]:
        """Boxes and scores of the people in each image."""

    @staticmethod
    def load(path: str | Path, *, threshold: float = 0.3, input_size: tuple[int, int] | None = None) -> OnnxDetector:
        """Open an ONNX person detector.

        Args:
            path: the file.
            threshold: people below this score are left out.
            input_size: (height, width) for files that take any size; 320×320 for RTMDet, 640×640 for YOLOX by default.

        Raises:
            LeanposeError: the file is missing, is no ONNX model, or is a model of another kind.
        """
        return OnnxDetector(path, threshold=threshold, input_size=input_size)


class WholeImage(Detector):
    """No detector: one box around the whole image, with score 1."""

    name = "the whole image"

    def __call__(self, images: Sequence[UInt8[np.ndarray, "H W 3"]]) -> list[Detections]:
        """One box for each image."""
        return [(np.array([[0, 0, i.shape[1], i.shape[0]]], np.float64), np.ones(1)) for i in images]


class OnnxDetector(Detector):
    """A detector that runs through onnxruntime; `Detector.load` opens it."""

    def __init__(self, path: str | Path, *, threshold: float = 0.3, input_size: tuple[int, int] | None = None) -> None:
        if not 0 <= threshold <= 1:
            raise LeanposeError(f"A detection threshold lies between 0 and 1, not at {threshold}.")
        self.threshold = threshold
        self._session = _open_session(Path(path))
        self._input = self._session.get_inputs()[0].name
        self.kind, file_size = _recognise(self._session, Path(path))
        free_size = RTMDET_SIZE if self.kind == "rtmdet" else YOLOX_SIZE
        if file_size is not None and input_size not in (None, file_size):
            raise LeanposeError(f"The detector {path} takes images of {file_size[0]}×{file_size[1]} only.")
        self.input_size: tuple[int, int] = file_size or input_size or free_size
        if any(side <= 0 or side % 32 for side in self.input_size):
            raise LeanposeError(f"A detector's input height and width are multiples of 32, not {self.input_size}.")
        self.name = f"{Path(path).name} ({'RTMDet' if self.kind == 'rtmdet' else 'YOLOX'})"

    def __call__(self, images: Sequence[UInt8[np.ndarray, "H W 3"]]) -> list[Detections]:
        """Boxes and scores of the people in each image, best first, clipped to the image."""
        return [self._detect(image) for image in images]

    def _detect(self, image: UInt8[np.ndarray, "H W 3"]) -> Detections:
        pixels, factor = letterbox(image, self.input_size)
        if self.kind == "rtmdet":
            pixels = (pixels - np.array(RTMDET_MEAN, np.float32)) / np.array(RTMDET_STD, np.float32)
        batch = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
        names = None if self.kind == "yolox" else ["dets", "labels"]
        outputs = cast("list[np.ndarray]", self._session.run(names, {self._input: batch}))
        if self.kind == "yolox":
            boxes, scores = decode_yolox(outputs[0][0], self.input_size, self.threshold)
        else:
            boxes, scores = _selected(outputs[0][0], outputs[1][0], self.threshold)
        size = np.array([image.shape[1], image.shape[0]] * 2, np.float64)
        boxes = np.clip(boxes.astype(np.float64) / factor, 0, size)
        real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        order = np.argsort(-scores[real], kind="stable")
        return boxes[real][order], scores[real][order].astype(np.float64)


def letterbox(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> tuple[Float32[np.ndarray, "h w 3"], float]:
    """Fit an RGB image into (height, width), padded at the right and the bottom with 114.

    Returns:
        BGR float32 0..255, as these detectors were trained on, and the factor from image to input pixels.
    """
    import cv2

    factor = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (min(size[axis], max(1, int(image.shape[axis] * factor + 0.5))) for axis in (0, 1))
    canvas = np.full((*size, 3), PADDING, np.uint8)
    canvas[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return canvas[..., ::-1].astype(np.float32), factor


def decode_yolox(
    raw: Float[np.ndarray, "N C"], input_size: tuple[int, int], threshold: float, *, overlap: float = 0.45
) -> Detections:
    """People among YOLOX's cells, in input pixels, after non-maximum suppression.

    A cell's box has its centre at (cell + offset) × stride and the size exp(value) × stride; its score is objectness
    times the score of class 0. Exports that have decoded the boxes already hold pixels in place of offsets.

    Args:
        raw: centre, size, objectness and class scores of all cells, finest grid first.
        input_size: (height, width) of the input.
        threshold: lowest score of a person.
        overlap: of two boxes that overlap by more than this IoU, the better one stays.
    """
    import cv2

    cells, strides = _grid(input_size, _strides(len(raw), input_size))
    raw = raw.astype(np.float64)
    # Offsets stay within a few cells; the middle decoded centre lies at half the input.
    if np.median(np.abs(raw[:, :2])) > 32:
        centres, sides = raw[:, :2], raw[:, 2:4]
    else:
        centres, sides = (raw[:, :2] + cells) * strides, np.exp(np.minimum(raw[:, 2:4], 20.0)) * strides
    scores = raw[:, 4] * raw[:, 5]
    candidates = np.flatnonzero((scores >= threshold) & (raw[:, 5:].argmax(axis=1) == 0))
    corners, sides, scores = (centres - sides / 2)[candidates], sides[candidates], scores[candidates]
    kept = cv2.dnn.NMSBoxes(np.hstack([corners, sides]).tolist(), scores.tolist(), threshold, overlap)
    rows = np.asarray(kept, dtype=int).reshape(-1)
    return np.hstack([corners, corners + sides])[rows], scores[rows]


def _strides(cells: int, input_size: tuple[int, int]) -> tuple[int, ...] | None:
    """The strides of YOLOX's grids, found by the number of cells; None where no set of them gives it."""
    for strides in ((8, 16, 32), (8, 16, 32, 64)):
        if sum((input_size[0] // s) * (input_size[1] // s) for s in strides) == cells:
            return strides
    return None


def _grid(
    input_size: tuple[int, int], strides: tuple[int, ...] | None
) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N 1"]]:
    """The column and row of every cell, and its stride."""
    cells, sizes = [], []
    for stride in strides or ():
        rows, columns = np.mgrid[: input_size[0] // stride, : input_size[1] // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        sizes.append(np.full((rows.size, 1), stride))
    return np.concatenate(cells).astype(np.float64), np.concatenate(sizes).astype(np.float64)


def _selected(boxes: Float[np.ndarray, "N 5"], labels: np.ndarray, threshold: float) -> Detections:
    """People among boxes that the network has selected itself."""
    person = (labels == 0) & (boxes[:, 4] >= threshold)
    return boxes[person, :4], boxes[person, 4]


def _open_session(path: Path) -> InferenceSession:
    if not path.is_file():
        raise LeanposeError(f"There is no detector file {path}.")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = thread_count()
    # Threads that spin while they wait take the cores from the pose model's threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has an exception class for each kind of damage, none of them public
        raise LeanposeError(
            f"The detector {path} is no ONNX model that onnxruntime can open; is the file whole?"
        ) from error


def _recognise(session: InferenceSession, path: Path) -> tuple[Kind, tuple[int, int] | None]:
    """The kind of a detector and its fixed input size, None where the file leaves it open."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = list(inputs[0].shape) if len(inputs) == 1 else []
    image_input = len(shape) == 4 and shape[1] == 3 and inputs[0].type == "tensor(float)"
    height, width = shape[2:] if image_input else (None, None)
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    if image_input and {output.name for output in outputs} == {"dets", "labels"}:
        # MMDeploy exports YOLOX to the same two outputs, but without RTMDet's normalisation; only the name tells.
        return ("yolox-selected" if "yolox" in path.name.lower() else "rtmdet"), size
    if image_input and len(outputs) == 1 and len(outputs[0].shape) == 3:
        _, cells, columns = outputs[0].shape
        fits = size is None or not isinstance(cells, int) or _strides(cells, size) is not None
        if fits and isinstance(columns, int) and columns > 5:
            return "yolox", size
    describe = (
        ", ".join(f"`{v.name}` {'×'.join(str(side) for side in v.shape) or 'scalar'}" for v in values)
        for values in (inputs, outputs)
    )
    raise LeanposeError(
        "The file {} is no person detector that is known here: it has the inputs {} and the outputs {}; {}".format(
            path, *describe, EXPECTED
        )
    )
