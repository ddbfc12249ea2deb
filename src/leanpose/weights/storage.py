"""Weight files with metadata: safetensors with a card inside.

Nothing is unpickled. The card, JSON under the metadata key `leanpose`, holds everything needed to rebuild the model and
to assess it: `card_of` lists its fields.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from leanpose.checksums import CHECKSUM_KEY, checked_card, checksum, digest
from leanpose.codecs.calibration import ScoreCalibration
from leanpose.errors import LeanposeError
from leanpose.files import any_damage, atomic_write, open_safetensors, safetensors_bytes
from leanpose.models.backbones.base import BACKBONE_KEY
from leanpose.models.base import ImageModel, PoseModel, Provenance
from leanpose.models.registry import configure_model, create_model, rough_parameters
from leanpose.schema import Mean, Std, parse_card
from leanpose.skeleton import Skeleton
from leanpose.version import __version__
from leanpose.weights.released import released_path

KEY = "leanpose"


class _Card(BaseModel):
    """Required fields of a card for `load_network`."""

    version: str
    model: str
    config: dict[str, Any]
    mean: Mean
    std: Std
    sha256: str
    skeleton: dict[str, Any] | None = None
    codec: dict[str, Any] | None = None
    classes: list[str] | None = None
    training_data: list[str] = Field(default_factory=list)
    licence: str = ""
    metrics: dict[str, Any] = Field(default_factory=dict)
    notes: str = ""

    @model_validator(mode="after")
    def _of_poses_or_classes(self) -> _Card:
        for field in () if self.classes is not None else ("skeleton", "codec"):
            if getattr(self, field) is None:
                raise ValueError(f"lacks '{field}'")
        return self


_SCALE = ".int8_scale"
"""Suffix of the scale tensor of an int8 weight."""
_MIN_INT8 = 2000
"""Smaller layers stay float16: the many small layers at fine resolutions lose accuracy as int8 (0.4 AP of
`leanpose-body-t`), and take little space as float16."""


def card_of(
    model: ImageModel, *, training_data: list[str], licence: str, metrics: dict[str, float], notes: str = ""
) -> dict[str, Any]:
    """The card of a model: architecture, preprocessing, decoding, provenance and results.

    A pose model has the fields `skeleton` and `codec`, a classifier `classes` instead.
    """
    return {
        "version": __version__,
        "model": model.name,
        "config": dataclasses.asdict(model.config),
        **model.card_fields(),
        "mean": model.mean,
        "std": model.std,
        "input_size": model.input_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_data": training_data,
        "licence": licence,
        "metrics": metrics,
        "notes": notes,
    }


def save_model(
    model: ImageModel,
    path: Path | str,
    *,
    training_data: list[str],
    licence: str,
    metrics: dict[str, float],
    notes: str = "",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model's weights and its card, atomically.

    Args:
        model: the model; it is not changed.
        path: ends in `.safetensors`.
        training_data: the data sets used for training.
        licence: licence of the weights, or the terms that follow from the data.
        metrics: results by name; the name includes the data set.
        notes: other information for users.
        dtype: data type of floating-point tensors in the file: `torch.float32`; `torch.float16` for half the size; or
            `torch.int8` for a quarter: the weights of large convolutions and linear layers as integers with a scale per
            output channel, the rest as float16. They are always loaded as float32.

    Raises:
        LeanposeError: the path has another ending or cannot be written, or a weight is not finite (in that `dtype`).
    """
    path = _require_suffix(path)
    rounded = _rounded_weights(model) if dtype == torch.int8 else {}
    others = torch.float16 if dtype == torch.int8 else dtype
    tensors = {}
    for name, value in (model.state_dict() | rounded).items():
        stored = value.detach().cpu()
        if stored.is_floating_point() and not name.endswith(_SCALE):
            stored = stored.to(others)
        if stored.is_floating_point() and not stored.isfinite().all():
            raise LeanposeError(f"The weights of '{model.name}' are not saved: '{name}' is not finite as {dtype}.")
        tensors[name] = stored.contiguous()
    card = card_of(model, training_data=training_data, licence=licence, metrics=metrics, notes=notes)
    card["sha256"] = digest(tensors)
    _write(tensors, card, path)


def save_calibrated(
    path_or_name: Path | str, path: Path | str, calibration: ScoreCalibration, metrics: Mapping[str, float]
) -> None:
    """Write a copy of a pose model's file with calibrated scores; weights and their precision are unchanged.

    Args:
        path_or_name: as for `load_model`.
        path: path of the copy, ending in `.safetensors`; may be the same file.
        calibration: calibration for the codec in the card; an existing one is replaced.
        metrics: additional results for the card.

    Raises:
        LeanposeError: as `load_model`; the file is a classifier's, or the copy cannot be written.
    """
    path = _require_suffix(path)
    card, tensors = _read_stored(released_path(path_or_name))
    if "codec" not in card:
        raise LeanposeError(f"{path_or_name} contains a classifier, which has no keypoint scores.")
    card["codec"] = {**card["codec"], "calibration": calibration.to_dict()}
    card["metrics"] = {**card.get("metrics", {}), **metrics}
    _write(tensors, card, path)


def _rounded_weights(model: ImageModel) -> dict[str, Tensor]:
    """The weights of large convolutions and linear layers as int8, and beside each its scales: a value is integer times
    scale."""
    rounded: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.weight.numel() >= _MIN_INT8:
            weight = module.weight.detach().cpu().float()
            largest = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
            scale = torch.where(largest > 0, largest / 127, 1.0)
            rounded[f"{name}.weight"] = (weight / scale).round().to(torch.int8)
            rounded[f"{name}.weight{_SCALE}"] = scale
    return rounded


def load_model(path_or_name: Path | str) -> PoseModel:
    """Build the model that a file describes, or a released one by name, with its weights (in eval mode, float32).

    Args:
        path_or_name: a `.safetensors` file of leanpose, a key of `leanpose.weights.RELEASED`, or `hf://USER/NAME`, a
            repository of the Hugging Face hub, with `@REVISION` behind it where not the newest is meant.

    Raises:
        LeanposeError: there is no such file, or it is corrupt, of another program, or of a model this version lacks.
    """
    model = load_network(path_or_name)
    if not isinstance(model, PoseModel):
        raise LeanposeError(f"{path_or_name} contains '{model.name}', a classifier, not a pose model.")
    return model


def load_network(path_or_name: Path | str) -> ImageModel:
    """Build the network that a file describes; see `load_model`."""
    path = released_path(path_or_name)
    with any_damage("file of weights", path):
        return _network(path)


class NoInitWeights(TorchFunctionMode):
    """Skip the initialisation of networks built inside (weights are NaN), for networks whose weights are all loaded."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name.endswith(("normal_", "uniform_")):  # a tensor's own, and all of torch.nn.init
            with torch.no_grad():
                return kwargs.get("tensor", args[0] if args else None).fill_(math.nan)
        return func(*args, **kwargs)


def _network(path: Path) -> ImageModel:
    card, tensors = _read(path)
    try:
        stored = sum(tensor.numel() for tensor in tensors.values())
        if rough_parameters(configure_model(card["model"], **card["config"])) > 10_000_000 + 100 * stored:
            raise LeanposeError("it would have far more parameters than the file holds.")
        skeleton = Skeleton.from_dict(card["skeleton"]) if "skeleton" in card else None
        # Fields that JSON has no tuples for are set right by create_model.
        with NoInitWeights():
            model: ImageModel = create_model(card["model"], skeleton=skeleton, **card["config"])
        model.read_card(card)
    except LeanposeError as error:
        raise LeanposeError(
            f"{path} holds a '{card['model']}' of leanpose {card['version']}, "
            f"which this version ({__version__}) cannot build: {error}"
        ) from error
    model.mean, model.std = tuple(card["mean"]), tuple(card["std"])
    _fill(model, card, tensors, path)
    return model


def load_weights(model: ImageModel, path_or_name: Path | str) -> None:
    """Load a file's weights into an existing model.

    Raises:
        LeanposeError: as `load_model`, or the file is of another model.
    """
    path = released_path(path_or_name)
    card, tensors = _read(path)
    _fill(model, card, tensors, path)


def _fill(model: ImageModel, card: Mapping[str, Any], tensors: dict[str, Tensor], path: Path) -> None:
    """Load a file's weights into a model, which keeps the card's provenance."""
    load_strict(model, tensors, source=str(path), name=card["model"])
    model.provenance = Provenance(
        training_data=tuple(card.get("training_data", ())),
        licence=card.get("licence", ""),
        metrics=card.get("metrics", {}),
        notes=card.get("notes", ""),
        sha256=weights_digest(model),
    )


def weights_digest(model: ImageModel) -> str:
    """SHA-256 of a model's current weights."""
    return digest({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})


def describe(path_or_name: Path | str) -> dict[str, Any]:
    """The card of a file or of a released model, without loading the weights (`card_of` lists its fields).

    Raises:
        LeanposeError: there is no such file, or it is not a file of leanpose.
    """
    path = released_path(path_or_name)
    with open_safetensors(path) as file:
        return _card(file, path)


def load_strict(model: ImageModel, tensors: dict[str, Tensor], *, source: str, name: str) -> None:
    """Load `tensors` into a model.

    Args:
        source: where they come from, and `name`, the model that they are of: for the message.

    Raises:
        LeanposeError: a tensor is missing, of another shape, or one too many.
    """
    expected = model.state_dict()
    for key in sorted(expected.keys() | tensors.keys()):
        there, here = (tuple(side[key].shape) if key in side else "missing" for side in (tensors, expected))
        if there != here:
            other = f"a '{name}' of other sizes" if name == model.name else f"a '{name}'"
            raise LeanposeError(
                f"{source} contains {other}, not this '{model.name}': '{key}' is {there} in the file, {here} in the model."
            )
    model.load_state_dict(tensors)


def _require_suffix(path: Path | str) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise LeanposeError(f"Cannot save a model as {path}: the name must end in .safetensors.")
    return path


def _write(tensors: dict[str, Tensor], card: Mapping[str, Any], path: Path) -> None:
    text = json.dumps(card, ensure_ascii=False)
    content = safetensors_bytes(tensors, {KEY: text, CHECKSUM_KEY: checksum(text.encode())})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _card(file: Any, path: Path) -> dict[str, Any]:
    """The card of an open file, with all required fields."""
    metadata = file.metadata() or {}
    if BACKBONE_KEY in metadata:
        raise LeanposeError(f"{path} contains only a backbone, for `pretrained` of a recipe or of create_model.")
    if KEY not in metadata:
        raise LeanposeError(f"{path} is a safetensors file of another program: it has no leanpose card.")
    return parse_card(_Card, checked_card(metadata, KEY, path), path)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The card and the verified tensors of a file, with int8 ones dequantized."""
    card, tensors = _read_stored(path)
    scales = {key.removesuffix(_SCALE): tensors.pop(key) for key in list(tensors) if key.endswith(_SCALE)}
    return card, tensors | {key: tensors[key].float() * scale for key, scale in scales.items()}


def _read_stored(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The card and the stored tensors of a file."""
    with open_safetensors(path) as file:
        card = _card(file, path)
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
    if digest(tensors) != card["sha256"]:
        raise LeanposeError(f"{path} is corrupt: its weights do not match their checksum (SHA-256).")
    return card, tensors
