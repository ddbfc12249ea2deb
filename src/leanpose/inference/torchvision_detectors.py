"""torchvision's detectors as person detectors: Faster R-CNN, SSD, RetinaNet, FCOS … (BSD 3-Clause)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from leanpose.device import choose_device
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.inference.detector_outputs import Detections
from leanpose.inference.detectors import TORCHVISION, Detector, check_threshold

if TYPE_CHECKING:
    from torch import nn

PERSON = 1  # of COCO's 91 numbers with the background, and of 2 where the detector knows people alone
CLASSES = (91, 2)


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

    def __call__(self, images: Sequence[UInt8[np.ndarray, "H W 3"]]) -> list[Detections]:
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
        rows = np.flatnonzero((detected["labels"] == PERSON) & (scores >= self.threshold) & real)
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
    for classes in CLASSES:
        model = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)
        own = model.state_dict()
        # Batch norm that is frozen, as in torchvision's own weights, has no such counter.
        needed = {key for key in own if not key.endswith("num_batches_tracked")}
        fits = needed <= state.keys() <= own.keys() and all(own[key].shape == state[key].shape for key in needed)
        if fits:
            model.load_state_dict(state, strict=False)
            return model
    raise LeanposeError(
        f"The weights in {path} are not those of torchvision's {name} with {CLASSES[0]} or {CLASSES[1]} classes."
    )
