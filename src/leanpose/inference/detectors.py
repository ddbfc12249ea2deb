"""Person detectors: ONNX files of the RTMDet and YOLOX kinds through onnxruntime, torchvision's (BSD 3-Clause), or none.

All are published under permissive licences. What an ONNX file is follows from what it answers (see
`leanpose.inference.detector_outputs.kind_of`): with the selection of boxes inside or without, decoded or not.

- RTMDet (Lyu et al., arXiv 2212.07784) sees BGR, normalised;
- YOLOX (Ge et al., arXiv 2107.08430) sees BGR 0..255. Where the outputs are such as both may have, a file with `yolox`
  in its name is one.

Images are shrunk or enlarged to fit the input, keeping their aspect, and padded at the right and the bottom with 114.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float32, UInt8

from leanpose.backends.exported import describe_values
from leanpose.backends.onnx import open_session, values_of
from leanpose.device import choose_device
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.inference.detector_outputs import Detections, Kind, kind_of, people

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from torch import nn

TORCHVISION = "torchvision:"
TORCHVISION_PERSON = 1  # of COCO's 91 numbers with the background, and of 2 where the detector knows people alone
TORCHVISION_CLASSES = (91, 2)
PADDING = 114
RTMDET_MEAN, RTMDET_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # BGR
RTMDET_SIZE = (320, 320)  # of the nano person detector; used where the file leaves the size open
YOLOX_SIZE = (640, 640)
EXPECTED = (
    "expected one image input (batch, 3, height, width) of float and, from RTMDet, `dets` (batch, boxes, 5) and "
    "`labels`, or boxes (batch, boxes, 4) and scores, or maps of class scores and distances; or, from YOLOX, one "
    "output (batch, cells, 5 + classes)."
)


class Detector(ABC):
    """Finds people: a list of RGB images in; for each its boxes (P, 4) xyxy in pixels and scores (P,), best first."""

    name: str

    @abstractmethod
    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Detections]:
        """Boxes and scores of the people in each image."""

    @staticmethod
    def load(
        path: str | Path, *, threshold: float = 0.3, input_size: tuple[int, int] | None = None, device: str = "auto"
    ) -> Detector:
        """Open an ONNX person detector, or one of torchvision's.

        Args:
            path: the file; or `torchvision:NAME`, whose weights torchvision downloads once, or
                `torchvision:NAME:FILE` with weights of your own.
            threshold: people below this score are left out.
            input_size: (height, width) for ONNX files that take any size; 320×320 for RTMDet, 640×640 for YOLOX by
                default.
            device: `"auto"` (a GPU where there is one and the backend can use it), `"cpu"`, `"cuda"`, …

        Raises:
            LeanposeError: the file is missing, is no ONNX model, or is a model of another kind; torchvision has no
                detector of that name, or its weights cannot be had.
        """
        if str(path).startswith(TORCHVISION):
            if input_size is not None:
                raise LeanposeError(f"The detector {path} scales images itself; leave out the input size.")
            name, _, file = str(path).removeprefix(TORCHVISION).partition(":")
            return TorchvisionDetector(name, weights=file or None, threshold=threshold, device=device)
        return OnnxDetector(path, threshold=threshold, input_size=input_size, device=device)


class WholeImage(Detector):
    """No detector: one box around the whole image, with score 1."""

    name = "the whole image"

    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Detections]:
        """One box for each image."""
        return [(np.array([[0, 0, i.shape[1], i.shape[0]]], np.float64), np.ones(1)) for i in images]


class OnnxDetector(Detector):
    """A detector that runs through onnxruntime; `Detector.load` opens it.

    Images go through one by one: on a CPU a batch of 2 to 8 was no faster (0.99 to 1.03 times), and the usual files
    with the selection of boxes inside fail on more than one.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threshold: float = 0.3,
        input_size: tuple[int, int] | None = None,
        device: str = "auto",
    ) -> None:
        check_threshold(threshold)
        self.threshold = threshold
        self._session = _open_session(Path(path), device)
        self._names = [output.name for output in self._session.get_outputs()]
        shape, file_size = _image_input(self._session, Path(path))
        self._input = self._session.get_inputs()[0].name
        yolox = "yolox" in Path(path).name.lower() or (len(self._names) == 1 and len(shape) == 3)
        if file_size is not None and input_size not in (None, file_size):
            raise LeanposeError(f"The detector {path} takes images of {file_size[0]}×{file_size[1]} only.")
        self.input_size: tuple[int, int] = file_size or input_size or (YOLOX_SIZE if yolox else RTMDET_SIZE)
        if any(side <= 0 or side % 32 for side in self.input_size):
            raise LeanposeError(f"A detector's input height and width are multiples of 32, not {self.input_size}.")
        self._normalised = not yolox
        self.kind: Kind = self._find_kind(Path(path))
        self.name = f"{Path(path).name} ({'YOLOX' if yolox else 'RTMDet'})"

    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Detections]:
        """Boxes and scores of the people in each image, best first, clipped to the image."""
        return [self._detect(image) for image in images]

    def _detect(self, image: UInt8[np.ndarray, "H W 3"]) -> Detections:
        pixels, factor = letterbox(image, self.input_size)
        boxes, scores = people(self.kind, self._run(pixels), self.input_size, self.threshold)
        size = np.array([image.shape[1], image.shape[0]] * 2, np.float64)
        boxes = np.clip(boxes.astype(np.float64) / factor, 0, size)
        real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        order = np.argsort(-scores[real], kind="stable")
        return boxes[real][order], scores[real][order].astype(np.float64)

    def _run(self, pixels: Float32[np.ndarray, "h w 3"]) -> dict[str, np.ndarray]:
        """All outputs for one letterboxed image."""
        if self._normalised:
            pixels = (pixels - np.array(RTMDET_MEAN, np.float32)) / np.array(RTMDET_STD, np.float32)
        batch = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
        return dict(
            zip(self._names, cast("list[np.ndarray]", self._session.run(None, {self._input: batch})), strict=True)
        )

    def _find_kind(self, path: Path) -> Kind:
        """The kind of the file, by what it answers for a grey image: shapes in files are often left open."""
        try:
            outputs = self._run(np.full((*self.input_size, 3), PADDING, np.float32))
        except Exception as error:  # onnxruntime has an exception class for each kind of failure, none of them public
            raise _unknown(self._session, path) from error
        kind = kind_of(outputs, self.input_size)
        if kind is None:
            raise _unknown(self._session, path)
        return kind


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


def check_threshold(threshold: float) -> None:
    """Refuse a lowest score that is no score.

    Raises:
        LeanposeError: it lies outside 0..1.
    """
    if not 0 <= threshold <= 1:
        raise LeanposeError(f"A detection threshold lies between 0 and 1, not at {threshold}.")


def _open_session(path: Path, device: str) -> InferenceSession:
    if not path.is_file():
        raise LeanposeError(f"There is no detector file {path}.")
    import onnxruntime  # takes a moment to load

    cuda = device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    try:
        return open_session(path, cuda=cuda)
    except Exception as error:  # onnxruntime has an exception class for each kind of damage, none of them public
        raise LeanposeError(
            f"The detector {path} is no ONNX model that onnxruntime can open; is the file whole?"
        ) from error


def _image_input(session: InferenceSession, path: Path) -> tuple[list[int | str], tuple[int, int] | None]:
    """The shape of a file's first output, and the size of the images it takes, None where it leaves it open.

    Raises:
        LeanposeError: its input is no image.
    """
    inputs = session.get_inputs()
    shape = list(inputs[0].shape) if len(inputs) == 1 else []
    if len(shape) != 4 or shape[1] != 3 or inputs[0].type != "tensor(float)":
        raise _unknown(session, path)
    height, width = shape[2:]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return list(session.get_outputs()[0].shape), size


def _unknown(session: InferenceSession, path: Path) -> LeanposeError:
    inputs, outputs = values_of(session)
    return LeanposeError(
        f"The file {path} is no person detector that is known here: it has the inputs {describe_values(inputs)} and the "
        f"outputs {describe_values(outputs)}; {EXPECTED}"
    )


class TorchvisionDetector(Detector):
    """One of torchvision's detectors; `Detector.load("torchvision:NAME")` opens it.

    Args:
        name: such as `fasterrcnn_mobilenet_v3_large_320_fpn` or `ssdlite320_mobilenet_v3_large`.
        weights: a file of its state (`.pth`, read as tensors alone, or `.safetensors`), for COCO's 91 classes or for
            people alone (2, with the background). Without one torchvision downloads its own, once.
        threshold: people below this score are left out.
        device: `"auto"` (a GPU where there is one), `"cpu"`, `"cuda"`, …
        model: the network itself, ready, in place of `weights`.

    Raises:
        LeanposeError: the name or the file is no such detector's, or the weights cannot be downloaded.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | Path | None = None,
        threshold: float = 0.3,
        device: str = "auto",
        model: nn.Module | None = None,
    ) -> None:
        from torchvision import models

        check_threshold(threshold)
        known = models.list_models(module=models.detection)
        if name not in known:
            raise LeanposeError(f"torchvision has no detector '{name}'; {did_you_mean(name, known)}")
        self.threshold = threshold
        self.device = choose_device(device)
        if model is None:
            model = _downloaded(name) if weights is None else _from_file(name, Path(weights))
        self._model = model.to(self.device).eval()
        self.name = f"{TORCHVISION}{name}"

    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Detections]:
        """Boxes and scores of the people in each image, best first; the images make up one batch."""
        import torch

        if not images:
            return []
        batch = [
            torch.from_numpy(np.ascontiguousarray(image)).to(self.device).permute(2, 0, 1).float().div_(255)
            for image in images
        ]
        with torch.inference_mode():
            detected = self._model(batch)
        return [self._people({key: value.cpu().numpy() for key, value in one.items()}) for one in detected]

    def _people(self, detected: dict[str, Any]) -> Detections:
        boxes, scores = detected["boxes"].astype(np.float64), detected["scores"].astype(np.float64)
        real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & np.isfinite(boxes).all(axis=1)
        rows = np.flatnonzero((detected["labels"] == TORCHVISION_PERSON) & (scores >= self.threshold) & real)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        return boxes[rows], scores[rows]


def _downloaded(name: str) -> nn.Module:
    """The detector with torchvision's own weights, from its cache or its host."""
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]
    try:
        # Reads the file as tensors alone, so it is known to hold no code when torchvision itself reads it again below.
        weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # no network, a proxy's page, a hash that differs: each library has its own exception
        raise LeanposeError(
            f"The weights of torchvision's {name} could not be downloaded ({' '.join(str(error).split())}); "
            f"give a file as {TORCHVISION}{name}:FILE.pth."
        ) from error
    return models.get_model(name, weights=weights, weights_backbone=None)


def _from_file(name: str, path: Path) -> nn.Module:
    """The detector with the state in a file."""
    import torch
    from torchvision import models

    if not path.is_file():
        raise LeanposeError(f"There is no file of weights {path} for torchvision's {name}.")
    state: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, or with more in it than tensors
        raise LeanposeError(f"{path} is no file of weights that can be read as tensors alone.") from error
    state = state.get("model", state) if isinstance(state, dict) else {}  # torchvision's training script wraps it
    for classes in TORCHVISION_CLASSES:
        model = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)
        own = model.state_dict()
        # Batch norm that is frozen, as in torchvision's own weights, has no such counter.
        needed = {key for key in own if not key.endswith("num_batches_tracked")}
        fits = needed <= state.keys() <= own.keys() and all(own[key].shape == state[key].shape for key in needed)
        if fits:
            model.load_state_dict(state, strict=False)
            return model
    raise LeanposeError(
        f"The weights in {path} are not those of torchvision's {name} with {TORCHVISION_CLASSES[0]} or {TORCHVISION_CLASSES[1]} classes."
    )
