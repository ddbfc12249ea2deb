"""The bundled weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanpose.checksums import checked_card
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import open_safetensors
from leanpose.models.registry import list_models
from leanpose.weights.hub import HubAddress, download, is_hub_address

FOLDER = Path(__file__).parent / "files"


@dataclass(frozen=True)
class Release:
    """One file of released weights; its card (`leanpose.weights.describe`) has the details.

    Attributes:
        name: its name for `load_model` and of its file in the package.
        licence: licence of the weights.
        summary: one line for the list of models.
        commercial: whether no training data is known to be for research or non-commercial use only.
    """

    name: str
    licence: str
    summary: str
    commercial: bool = False

    @property
    def path(self) -> Path:
        """Where it lies."""
        return FOLDER / f"{self.name}.safetensors"

    @property
    def card(self) -> dict[str, Any]:
        """The metadata of the file, read without torch."""
        with open_safetensors(self.path, "np") as file:
            return json.loads(checked_card(file.metadata(), "leanpose", self.path))


_RESEARCH_DATA = (
    "research use only (terms of LSP and LSP Extended, and of AI Challenger's images); COCO annotations CC BY 4.0, its "
    "images under their Flickr licences; PaddleDetection Apache-2.0, without a separate statement on the weights"
)

_RELEASES = (
    Release(
        "leanpose-body-s",
        _RESEARCH_DATA,
        "19 body points at 256x192, from PP-TinyPose and 9,059 people; the default (docs/results/body_s.md)",
    ),
    Release(
        "leanpose-body-t",
        _RESEARCH_DATA,
        "19 body points at 128x96, a quarter of the cost, for browsers and small boards (docs/results/body_s.md)",
    ),
    Release(
        "leanpose-body-movenet",
        "research use only (terms of LSP and LSP Extended); COCO annotations CC BY 4.0, COCO images under their Flickr licences; MoveNet Lightning Apache-2.0",
        "19 body points at 192x160, from MoveNet's features (docs/results/body_movenet.md)",
    ),
    Release(
        "leanpose-body-tokenpose",
        "research use only (terms of LSP and LSP Extended); COCO annotations CC BY 4.0, COCO images under their Flickr licences",
        "19 body points at 128x96, trained from scratch: for attention plots, and as a teacher (docs/results/body_movenet.md)",
    ),
    Release(
        "leanpose-wholebody-s",
        f"{_RESEARCH_DATA}; MediaPipe's models Apache-2.0",
        "133 points of body, feet, face and hands at 256x192, from leanpose-body-s (docs/results/wholebody_s.md)",
    ),
)
RELEASED: dict[str, Release] = {release.name: release for release in _RELEASES}
"""Released weights by the name that `load_model` takes."""


def released_path(path_or_name: Path | str) -> Path:
    """The file of a released name, a path or a hub address, from which it is downloaded.

    Raises:
        LeanposeError: it is none of these, does not look like a file of leanpose, or cannot be fetched.
    """
    if str(path_or_name) in RELEASED:
        return RELEASED[str(path_or_name)].path
    if is_hub_address(path_or_name):
        return download(HubAddress.parse(str(path_or_name)))
    path = Path(path_or_name)
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl"):
        raise LeanposeError(
            f"{path} may contain code and is not opened; convert it to .safetensors with `leanpose convert`."
        )
    if path.suffix in (".onnx", ".xml", ".tflite"):
        raise LeanposeError(
            f"{path} is not a weight file: a .safetensors file is needed here. (.onnx and .xml files work for predict, "
            "eval and as teachers.)"
        )
    if path.is_dir():
        raise LeanposeError(f"{path} is a folder, not a weight file.")
    if path.exists() or path.suffix == ".safetensors" or len(path.parts) > 1:
        return path
    if str(path) in list_models():
        raise LeanposeError(
            f"No weights are released for '{path}'; create_model('{path}') builds it randomly initialised."
        )
    raise LeanposeError(f"There are no released weights '{path}'; {did_you_mean(str(path), RELEASED)}")
