"""Person detectors: the bundled RTMDet-nano, ONNX files in onnxruntime, torchvision's (BSD 3-Clause), or none.

The package's detector (`files/`) is OpenMMLab's RTMDet-nano of people (Lyu et al., arXiv 2212.07784, Apache-2.0). What
another ONNX file is follows from its outputs: `leanpose.inference.detector_layouts`.
"""

from __future__ import annotations

import copy
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float, Float32, UInt8

from leanpose.backends.base import first_line
from leanpose.backends.exported import MAX_SIDE, TensorInfo, describe_values
from leanpose.backends.onnx import open_session, values_of
from leanpose.checksums import file_checksum
from leanpose.device import choose_device
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import require_honest_archive
from leanpose.inference.detector_layouts import (
    TORCHVISION_PERSON,
    DetectorFile,
    Layout,
    Outputs,
    first_image,
    recognise,
)
from leanpose.inference.detector_outputs import Detections
from leanpose.inference.detector_pixels import PADDING, RTMDET_PIXELS, YOLO_PIXELS, place
from leanpose.memory import is_out_of_memory, limited_memory

if TYPE_CHECKING:
    from torch import nn

LOG = logging.getLogger(__name__)
PACKAGED = {"rtmdet-nano": Path(__file__).parent / "files" / "rtmdet_nano_person.onnx"}
CHECKSUMS = {PACKAGED["rtmdet-nano"]: "9077b0b7"}  # next to the files, which are as their authors made them
DEFAULT, WHOLE_IMAGE = "rtmdet-nano", "whole-image"
TORCHVISION = "torchvision:"
TORCHVISION_CLASSES = (91, 2)  # COCO's numbers with the background, or people alone with it
THRESHOLD = 0.3  # lowest score of a detection, by default
DEFAULT_SIZE = (640, 640)  # of files that do not say theirs
_MAX_BATCH = 16  # images that a file may take, whether there are so many or not
ATTEMPTS = 4  # to find the range and size with which a file's outputs stay of one kind
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
SETTINGS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_, **FLOATS}
EXPECTED = (
    "expected one image input (batch, 3, height, width) of float and the outputs of RTMDet, YOLOX, YOLOv5 to YOLO26, "
    "DETR, RT-DETR, or corners, scores and labels (docs/detectors.md)."
)


class Detector(ABC):
    """A person detector: a list of RGB images in; for each its boxes (P, 4) xyxy in pixels and scores (P,), best
    first."""

    name: str
    description = ""
    """The recognised layout of a file and its preprocessing."""

    @abstractmethod
    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Detections]:
        """Boxes and scores of the people in each image."""

    def for_callers(self, count: int) -> Detector | None:
        """The same detector for this many concurrent threads, each call computing on its caller's thread.

        None if there is no benefit, or if it is not known to be thread-safe.
        """
        del count
        return None

    @staticmethod
    def load(
        path: str | Path | Detector,
        *,
        threshold: float = THRESHOLD,
        input_size: tuple[int, int] | None = None,
        device: str = "auto",
    ) -> Detector:
        """Open the package's person detector, an ONNX file, or one of torchvision's; a `Detector` is returned as it is.

        Args:
            path: `rtmdet-nano` or `auto` (the package's), an ONNX file, `whole-image` (no detector: one box around the
                whole image); or `torchvision:NAME`, whose weights torchvision downloads once, or
                `torchvision:NAME:FILE` with weights of your own.
            threshold: minimum score of a person.
            input_size: (height, width) for ONNX files that take any size; by default 320×320 for RTMDet, 800×800 for
                DETR, 640×640 for others.
            device: `"auto"` (a GPU if there is one and the backend can use it), `"cpu"`, `"cuda"`, …

        Raises:
            LeanposeError: the file is missing, is not an ONNX model, or is a model of another kind; torchvision has no
                detector of that name, or its weights are not available.
        """
        if isinstance(path, Detector):
            return path
        named = str(path)
        if named == WHOLE_IMAGE:
            return WholeImage()
        if named.startswith(TORCHVISION):
            if input_size is not None:
                raise LeanposeError(f"The detector {path} scales images itself; do not give an input size.")
            name, _, file = named.removeprefix(TORCHVISION).partition(":")
            return TorchvisionDetector(name, weights=Path(file) if file else None, threshold=threshold, device=device)
        file = PACKAGED.get(DEFAULT if named == "auto" else named, Path(path))
        if file.suffix != ".onnx" and not file.is_file():
            known = ("auto", *PACKAGED, WHOLE_IMAGE)
            raise LeanposeError(
                f"There is no detector '{named}' and no file of that name; {did_you_mean(named, known)}"
            )
        if file in CHECKSUMS and file_checksum(file) != CHECKSUMS[file]:
            raise LeanposeError(f"{file} is corrupt: its checksum differs; reinstall leanpose.")
        return OnnxDetector(file, threshold=threshold, input_size=input_size, device=device)


class WholeImage(Detector):
    """No detector: one box around the whole image, with score 1."""

    name = "the whole image"

    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Detections]:
        """One box for each image."""
        return [(np.array([[0, 0, i.shape[1], i.shape[0]]], np.float64), np.ones(1)) for i in images]

    def for_callers(self, count: int) -> WholeImage:
        """Itself: nothing is computed."""
        del count
        return self


class OnnxDetector(Detector):
    """A detector that runs through onnxruntime; `Detector.load` opens it.

    What kind it is follows from its outputs on a grey image (`leanpose.inference.detector_layouts`), and is logged
    once. Images go through one by one: on a CPU a batch of 2 to 8 was no faster (0.99 to 1.03 times), and the usual
    files with the selection of boxes inside fail on more than one.

    Attributes:
        layout: how images go in and what the outputs hold.
        input_size: (height, width).
    """

    def __init__(
        self,
        path: Path,
        *,
        threshold: float = THRESHOLD,
        input_size: tuple[int, int] | None = None,
        device: str = "auto",
    ) -> None:
        import onnxruntime  # takes a moment to load

        self.threshold = _checked(threshold)
        if input_size is not None and any(side <= 0 or side % 32 for side in input_size):
            raise LeanposeError(f"A detector's input height and width are multiples of 32, not {input_size}.")
        self._cuda = device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        self._path, self._session = path, open_session(path, cuda=self._cuda)
        inputs, outputs = values_of(self._session)
        self._names = [name for name, _ in outputs]
        self._settings = [value for value in self._session.get_inputs() if _is_setting(value)]
        images = [value for value in self._session.get_inputs() if not _is_setting(value)]
        shape = list(images[0].shape) if len(images) == 1 else []
        if len(shape) not in (3, 4) or shape[-3] != 3 or images[0].type not in FLOATS:
            raise _unknown(path, inputs, outputs)
        self._image, self._batch = images[0], shape[0] if len(shape) == 4 and isinstance(shape[0], int) else 1
        file_size = (shape[-2], shape[-1]) if isinstance(shape[-2], int) and isinstance(shape[-1], int) else None
        if file_size is not None and input_size not in (None, file_size):
            raise LeanposeError(f"The detector {path} takes images of {file_size[0]}×{file_size[1]} only.")
        with nullcontext() if self._cuda else limited_memory(path):
            self.layout, self.input_size, given = self._recognise(path, file_size or input_size)
        self.name = f"{path.name} ({self.layout.name})"
        size = "×".join(map(str, self.input_size))
        self.description = f"outputs {given}: {self.layout.content}; pixels {self.layout.pixels}; input {size}"
        LOG.info("%s: %s", self.name, self.description)

    def _recognise(self, path: Path, size: tuple[int, int] | None) -> tuple[Layout, tuple[int, int], str]:
        """What it answers for a grey image: shapes in files are often left open, and values tell more than shapes.

        Args:
            path: for messages.
            size: of the input, where it is given.

        Returns:
            The layout, the (height, width) of the input, and the outputs in words.

        Raises:
            LeanposeError: it is none that is known here.
        """
        inputs, outputs = values_of(self._session)
        metadata = self._session.get_modelmeta().custom_metadata_map
        exported = [int(number) for number in re.findall(r"\d+", metadata.get("imgsz", ""))]  # by Ultralytics
        size = size or ((exported[0], exported[1]) if len(exported) == 2 else None)
        if size is not None and not all(8 <= side <= MAX_SIDE for side in size):
            raise LeanposeError(
                f"The detector {path} expects images of {size[0]}×{size[1]} pixels, which is implausible."
            )
        if not 1 <= self._batch <= _MAX_BATCH:
            raise LeanposeError(f"The detector {path} expects {self._batch} images at once, which is implausible.")
        pixels = RTMDET_PIXELS if len(outputs) > 1 else YOLO_PIXELS
        for _ in range(ATTEMPTS):
            self.input_size = size or pixels.size
            grey, *_ = place(np.full((*self.input_size, 3), PADDING, np.uint8), pixels, self.input_size)
            try:
                answer = self._run(grey)
            except Exception as error:  # onnxruntime's are not public: one class for each kind of failure
                if is_out_of_memory(error):
                    raise LeanposeError(
                        f"The detector {path} gets too little memory for an image of "
                        f"{self.input_size[0]}×{self.input_size[1]} pixels: it takes more than a network of its size should, or there is too little left."
                    ) from error
                if size is not None or self.input_size == DEFAULT_SIZE:
                    raise LeanposeError(
                        f"The detector {path} cannot be run on an image of {self.input_size[0]}×{self.input_size[1]} pixels: {first_line(error)}"
                    ) from error
                size = DEFAULT_SIZE  # a size that looks open in the file may be fixed inside
                continue
            outputs = [(name, list(value.shape)) for name, value in answer.items()]
            one, batched = first_image(answer, self._batch)
            file = DetectorFile(path.stem, [value.name for value in self._settings], metadata, self.input_size)
            layout = recognise(file, one, batched=batched)
            if layout is None:
                raise _unknown(path, inputs, outputs)
            if layout.pixels == pixels:
                layout.decode(one, self.input_size, self.threshold)
                return layout, self.input_size, describe_values(outputs)
            pixels = layout.pixels  # again with the range and size of this kind
        raise _unknown(path, inputs, outputs)

    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Detections]:
        """Boxes and scores of the people in each image, best first, clipped to the image.

        Raises:
            LeanposeError: the outputs hold values that the recognised kind never has.
        """
        detections = []
        for image in images:
            pixels, factors, shift = place(image, self.layout.pixels, self.input_size)
            outputs, _ = first_image(self._run(pixels), self._batch)
            boxes, scores = self.layout.decode(outputs, self.input_size, self.threshold)
            boxes = (boxes.astype(np.float64) - np.tile(shift, 2)) / np.tile(factors, 2)
            detections.append(_in_order(np.clip(boxes, 0, image.shape[1::-1] * 2), scores))
        return detections

    def for_callers(self, count: int) -> OnnxDetector | None:
        """See `Detector.for_callers`; on a GPU None."""
        del count  # onnxruntime computes in the calling thread
        if self._cuda:
            return None
        other = copy.copy(self)
        other._session = open_session(self._path, cuda=False, threads=1)
        return other

    def _run(self, pixels: Float32[np.ndarray, "h w 3"]) -> Outputs:
        """All outputs for one placed image, which fills the batch."""
        array = np.ascontiguousarray(pixels.transpose(2, 0, 1), FLOATS[self._image.type])
        batch = np.repeat(array[None], self._batch, axis=0) if len(self._image.shape) == 4 else array
        values = {self._image.name: batch, **{v.name: self._setting(v) for v in self._settings}}
        outputs = cast("list[np.ndarray]", self._session.run(self._names, values))
        return dict(zip(self._names, outputs, strict=True))

    def _setting(self, value: Any) -> np.ndarray:
        """An input next to the image: the size that boxes shall refer to (width, height), or which pixels count
        (all)."""
        height, width = self.input_size
        kind = SETTINGS[value.type]
        if len(value.shape) == 2:
            return np.array([[width, height]] * self._batch, kind)
        return np.ones((self._batch, height, width), kind)


def _unknown(path: Path, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> LeanposeError:
    return LeanposeError(
        f"The file {path} is not a known person detector: it has the inputs {describe_values(inputs)} and the "
        f"outputs {describe_values(outputs)}; {EXPECTED}"
    )


def _is_setting(value: Any) -> bool:
    """Whether an input next to the image is one that is known: RT-DETR's sizes, or DETR's mask of pixels."""
    sizes = len(value.shape) == 2 and value.shape[1] == 2 and "size" in value.name.lower()
    mask = len(value.shape) == 3 and "mask" in value.name.lower()
    return (sizes or mask) and value.type in SETTINGS


def _checked(threshold: float) -> float:
    if not 0 <= threshold <= 1:
        raise LeanposeError(f"A detection threshold must be between 0 and 1, not {threshold}.")
    return threshold


def _in_order(boxes: Float[np.ndarray, "N 4"], scores: Float[np.ndarray, " N"]) -> Detections:
    """Those that are boxes, the best first."""
    real = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1) & np.isfinite(boxes).all(axis=1))
    rows = real[np.argsort(-scores[real], kind="stable")]
    return boxes[rows], scores[rows].astype(np.float64)


class TorchvisionDetector(Detector):
    """One of torchvision's detectors; `Detector.load("torchvision:NAME")` opens it.

    Args:
        name: such as `fasterrcnn_mobilenet_v3_large_320_fpn` or `ssdlite320_mobilenet_v3_large`.
        weights: a file of its state (`.pth`, read as tensors alone, or `.safetensors`), for COCO's 91 classes or for
            people alone (2, with the background). Without one torchvision downloads its own, once.
        threshold: people below this score are left out.
        device: `"auto"` (a GPU where there is one), `"cpu"`, `"cuda"`, …
        model: the network itself, ready, instead of `weights`.

    Raises:
        LeanposeError: the name or the file is no such detector's, or the weights cannot be downloaded.
    """

    def __init__(
        self, name: str, *, weights: Path | None = None, threshold: float = THRESHOLD, device: str = "auto",
        model: nn.Module | None = None,
    ) -> None:  # fmt: skip
        from torchvision import models

        self.threshold = _checked(threshold)
        known = models.list_models(module=models.detection)
        if name not in known:
            raise LeanposeError(f"torchvision has no detector '{name}'; {did_you_mean(name, known)}")
        self.device = choose_device(device)
        if model is None:
            model = _downloaded(name) if weights is None else _from_file(name, weights)
        self._model = model.to(self.device).eval()
        self.name = f"{TORCHVISION}{name}"

    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Detections]:
        """Boxes and scores of the people in each image, best first; the images make up one batch."""
        import torch

        if not images:
            return []
        arrays = [torch.from_numpy(np.ascontiguousarray(image)) for image in images]
        batch = [array.to(self.device).permute(2, 0, 1).float().div_(255) for array in arrays]
        with torch.inference_mode():
            detected = self._model(batch)
        people = []
        for one in detected:
            boxes, scores, labels = (one[key].double().cpu().numpy() for key in ("boxes", "scores", "labels"))
            person = (labels == TORCHVISION_PERSON) & (scores >= self.threshold)
            people.append(_in_order(boxes[person], scores[person]))
        return people


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
    from safetensors.torch import load_file
    from torchvision import models

    if not path.is_file():
        raise LeanposeError(f"There is no weight file {path} for torchvision's {name}.")
    require_honest_archive(path, "file of weights")
    state: Any
    try:
        tensors_alone = path.suffix == ".safetensors"
        state = load_file(path) if tensors_alone else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # corrupt, or with more in it than tensors
        raise LeanposeError(f"{path} is not a weight file that can be read as tensors alone.") from error
    state = state.get("model", state) if isinstance(state, dict) else {}  # torchvision's training script wraps it
    for classes in TORCHVISION_CLASSES:
        model = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)
        own = model.state_dict()
        # Batch norm that is frozen, as in torchvision's own weights, has no such counter.
        needed = {key for key in own if not key.endswith("num_batches_tracked")}
        if needed <= state.keys() <= own.keys() and all(own[key].shape == state[key].shape for key in needed):
            model.load_state_dict(state, strict=False)
            return model
    raise LeanposeError(f"The weights in {path} are not of {name} with 91 or 2 classes.")
