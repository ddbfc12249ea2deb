"""From an official checkpoint to a file of leanpose that describes itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leanpose.codecs.heatmap import HeatmapCodec
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.models.base import PoseModel
from leanpose.models.heatmap_model import HeatmapModel
from leanpose.models.registry import configure_model, create_model, list_models
from leanpose.skeleton import Skeleton, get_skeleton
from leanpose.weights.backbone_file import save_backbone
from leanpose.weights.catalogue import Official, fetch_official, official_checkpoint, official_with
from leanpose.weights.checkpoint import Checkpoint, read_checkpoint
from leanpose.weights.download import Progress, sha256_of
from leanpose.weights.landmarks import skeleton_of
from leanpose.weights.official import from_official
from leanpose.weights.onnx_features import features_of_onnx
from leanpose.weights.recognition import (
    SUPPORTED,
    Recognised,
    backbone_of,
    describe_unknown,
    recognise,
    unwrap_distiller,
)
from leanpose.weights.storage import save_model

Size = tuple[int, int]
_DEFAULT_SIZE = (256, 192)
_SUFFIXES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".onnx")


@dataclass(frozen=True)
class Converted:
    """What a conversion has made.

    Attributes:
        path: of the new file.
        model: the name that it can be built by; timm's name for a backbone.
        family: whose network it is.
        input_size: of the crop (height, width); None for a backbone.
        skeleton: the name of its keypoints; None for a backbone.
        official: which published file it was, if it is known.
        notes: what a user should know, a sentence each.
    """

    path: Path
    model: str
    family: str
    input_size: Size | None
    skeleton: str | None
    official: Official | None
    notes: tuple[str, ...]


def convert(
    source: Path | str,
    path: Path | str,
    *,
    model: str | None = None,
    skeleton: str | Path | Skeleton | None = None,
    input_size: Size | None = None,
    stage: int | None = None,
    backbone_only: bool = False,
    training_data: list[str] | None = None,
    licence: str | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Converted:
    """Read an official checkpoint, tell what it is, and write it as a file that `leanpose.load_model` takes.

    A checkpoint of a backbone alone (or any, with `backbone_only`) becomes a file that `create_model(pretrained=…)` and
    a recipe's `pretrained` take, and so do the features of a person detector's or MoveNet's ONNX file. Nothing in the checkpoint is
    executed.

    Args:
        source: a `.pth` file (or `.safetensors` of another program), the `.onnx` file of an RTMDet or MoveNet, or a key of `official_checkpoints()`, which is
            downloaded once to the cache folder.
        path: of the new file; ends in `.safetensors`.
        model: its name in leanpose, where the checkpoint fits several.
        skeleton: its keypoints, where their number does not tell.
        input_size: of the crop (height, width) in pixels, where no weight depends on it and the file does not say.
        stage: 1 or 2, of a file of DWPose's distiller, where that is not clear.
        backbone_only: leave the head away.
        training_data: what it was trained on; None: what is known of the published file.
        licence: its terms; None: as published.
        progress: told how many bytes of a download are there.

    Raises:
        LeanposeError: the file is no checkpoint, not harmless or not known, an argument does not fit it, or it cannot be
            downloaded.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise LeanposeError(f"Cannot write {path}: the name must end in .safetensors.")
    if model is not None and model not in list_models(task="pose"):
        raise LeanposeError(f"Unknown model '{model}'; {did_you_mean(model, list_models(task='pose'))}")
    source = _find(source, progress)
    if source.suffix == ".onnx":
        return _convert_onnx(source, path, training_data, licence)
    checkpoint = read_checkpoint(source)
    digest = sha256_of(source)
    official = official_with(digest)
    tensors, taken = unwrap_distiller(checkpoint.tensors, stage)
    notes = [*checkpoint.notes, *([taken] if taken else [])]
    card = {
        "training_data": training_data or (list(official.training_data) if official else ["unspecified"]),
        "licence": licence or (official.licence if official else "unspecified"),
    }
    origin = f"Converted from {source.name} (SHA-256 {digest})"
    if official is not None:
        origin += f", published as {official.url}"

    found = None if backbone_only else recognise(tensors)
    if found is None:
        backbone = backbone_of(tensors)
        bare = not any(key.startswith(("head.", "keypoint_head.")) for key in tensors) or _classifies(tensors)
        if backbone is None or not (
            backbone_only or bare or (model is None and _pretrained_only(backbone[0], tensors))
        ):
            raise LeanposeError(
                f"{source} is not known: it looks like {describe_unknown(tensors)}; supported are {SUPPORTED}."
            )
        variant, weights = backbone
        save_backbone(weights, path, variant=variant, notes=f"{origin}.", **card)
        notes.append(f"a backbone alone, for `pretrained: {path.name}` in a recipe")
        return Converted(path, variant, "backbone", None, None, official, tuple(notes))

    likely = official.model if official else f"dwpose_{next(iter(found.fits))[-1]}" if taken else None
    name, options = _choose(found, model, likely, source)
    chosen, how = _skeleton(found, checkpoint, official, skeleton)
    size, size_note = _size(found, checkpoint, official, input_size, source)
    notes += [*_differences(name, options), how, *([size_note] if size_note else [])]
    options = {**options, "input_size": size}
    built = create_model(name, skeleton=chosen, **options)
    built.load_state_dict(from_official(name, tensors, skeleton=chosen, **options), strict=True)
    notes += _read_as_trained(built, found, checkpoint)
    others = [other for other in found.fits if other != name and other in list_models()]
    if others and model is None:
        notes.append(f"it fits {' and '.join(others)} too, the same network; --model gives it that name")
    metrics = {f"{what}, published": figure for what, figure in official.published.items()} if official else {}
    save_model(built, path, metrics=metrics, notes=f"{origin}. {'; '.join(notes)}.", **card)
    return Converted(path, name, found.family, size, chosen.name, official, tuple(notes))


def _convert_onnx(source: Path, path: Path, training_data: list[str] | None, licence: str | None) -> Converted:
    """Keep the features of a person detector or of MoveNet as a backbone."""
    found = features_of_onnx(source)
    save_backbone(
        found.weights,
        path,
        variant=found.variant,
        training_data=training_data or ["unspecified"],
        licence=licence or "unspecified",
        notes=f"From {source.name} (SHA-256 {sha256_of(source)}): {found.origin}.",
    )
    notes = (
        found.origin,
        f"a backbone alone, for `pretrained: {path.name}` and `backbone: {found.variant}` in a recipe",
    )
    return Converted(path, found.variant, "backbone", None, None, None, notes)


def _classifies(tensors: Mapping[str, Any]) -> bool:
    """Whether the head is that of a classifier of pictures."""
    return any(key in tensors for key in ("head.fc.weight", "fc.weight", "classifier.weight"))


def _pretrained_only(variant: str, tensors: Mapping[str, Any]) -> bool:
    """Whether it is one of the CSPNeXts from which RTMPose starts: trained with a heatmap head that no model here has."""
    return variant.startswith("cspnext") and "head.final_layer.weight" in tensors and "head.mlp.1.weight" not in tensors


def _find(source: Path | str, progress: Progress) -> Path:
    """The file that is meant: itself, or that of an official checkpoint."""
    path = Path(source)
    if path.exists() or path.suffix in _SUFFIXES or len(path.parts) != 1:
        return path
    return fetch_official(official_checkpoint(str(source)), progress)


def _choose(found: Recognised, model: str | None, likely: str | None, source: Path) -> tuple[str, dict[str, Any]]:
    """The model's name, and the settings in which the checkpoint differs from it."""
    fits = {name: options for name, options in found.fits.items() if name in list_models()}
    if model is None:
        if found.ask:
            raise LeanposeError(
                f"{source} fits {' and '.join(fits)}, which compute different things, and does not say which it is: choose by --model."
            )
        name = likely if likely in fits else next(iter(fits))
        return name, fits[name]
    if model in fits:
        return model, fits[model]
    # A model of one's own has its own sizes; whether they fit is seen when the weights are put in.
    return model, {}


def _differences(name: str, options: dict[str, Any]) -> list[str]:
    """A sentence on the settings that are not those by which the name is known."""
    usual = configure_model(name)
    other = [f"{key}={value}" for key, value in options.items() if getattr(usual, key) != value]
    return [f"other than the usual {name}: {', '.join(other)}"] if other else []


def _skeleton(
    found: Recognised, checkpoint: Checkpoint, official: Official | None, given: str | Path | Skeleton | None
) -> tuple[Skeleton, str]:
    if given is not None:
        chosen = get_skeleton(given)
        if len(chosen) != found.keypoints:
            raise LeanposeError(
                f"The checkpoint finds {found.keypoints} keypoints, but the skeleton '{chosen.name}' has {len(chosen)}."
            )
        return chosen, f"keypoints: {chosen.name}, as given"
    if official is not None and official.skeleton is not None:
        return get_skeleton(official.skeleton), f"keypoints: {official.skeleton}, as published"
    return skeleton_of(found.keypoints, checkpoint.dataset)


def _size(
    found: Recognised, checkpoint: Checkpoint, official: Official | None, given: Size | None, source: Path
) -> tuple[Size, str]:
    """The size of the crop, and a sentence on how it is known where no weight says so."""
    if found.input_size is not None:
        if given is not None and given != found.input_size:
            raise LeanposeError(
                "The checkpoint's weights are for crops of {}x{}, not {}x{} (height x width).".format(
                    *found.input_size, *given
                )
            )
        return found.input_size, ""
    if given is not None:
        return given, ""
    if official is not None and official.input_size is not None:
        return official.input_size, ""
    shown = "input size: {}x{}, {}"
    match = re.search(r"(?:input_size|image_size)\s*=\s*(?:np\.array\()?[\[(]\s*(\d+)\s*,\s*(\d+)", checkpoint.config)
    if match:
        size = (int(match[2]), int(match[1]))
        return size, shown.format(*size, "as the file's configuration says")
    match = re.search(r"(?<!\d)(\d{2,3})x(\d{2,3})(?!\d)", source.stem)
    if match:
        size = (int(match[1]), int(match[2]))
        return size, shown.format(*size, "going by the file's name (--input-size says otherwise)")
    return _DEFAULT_SIZE, shown.format(
        *_DEFAULT_SIZE, "the usual one, since the file does not say (--input-size says otherwise)"
    )


def _read_as_trained(model: PoseModel, found: Recognised, checkpoint: Checkpoint) -> list[str]:
    """Set how the heatmaps of mmpose's convolutional networks are read, where the file's configuration says so."""
    codec = model.codec
    if not isinstance(model, HeatmapModel) or not isinstance(codec, HeatmapCodec):
        return []
    if re.search(r"UDPHeatmap|use_udp\s*=\s*True|'UDP'", checkpoint.config):
        model.codec = replace(codec, encoding="udp")
        return ["heatmaps: UDP, as the file's configuration says"]
    if re.search(r"unbiased\s*=\s*True|post_process\s*=\s*'unbiased'", checkpoint.config):
        return ["heatmaps: unbiased, as the file's configuration says"]
    model.codec = replace(codec, encoding="msra", decoding="quarter")
    return ["heatmaps: drawn and read as in the papers of SimpleBaseline and HRNet"]
