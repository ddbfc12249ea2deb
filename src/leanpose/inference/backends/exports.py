"""The cache of exported files: each model is exported once for the run-times of this machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import leanpose
from leanpose.files import cache_folder

if TYPE_CHECKING:
    from leanpose.models.base import PoseModel


def model_key(model: PoseModel) -> str:
    """A name for a model with these very weights, codec and sizes, and for this release of leanpose."""
    from leanpose.weights.storage import digest

    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    said = [
        leanpose.__version__,
        model.name,
        repr(model.config),
        model.skeleton.to_dict(),
        model.codec.to_dict(),
        model.mean,
        model.std,
        digest(tensors),
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:24]


def cached_export(model: PoseModel) -> Path:
    """An ONNX file of the model, with normalisation inside and decoding outside; both run-times read it.

    It is made where there is none, which takes ten seconds and more.

    Raises:
        LeanposeError: the packages for exporting are missing, or the model cannot be exported as it is.
    """
    path = cache_folder() / "exports" / f"{model_key(model)}.onnx"
    if not path.is_file():
        from leanpose.export import export_model

        export_model(model, path, batches=(1, 3))
    return path
