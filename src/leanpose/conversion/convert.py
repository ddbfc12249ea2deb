"""From a paper's own checkpoint to a file that `leanpose.load_model` takes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from leanpose.codecs.heatmap import HeatmapCodec
from leanpose.conversion import recognition
from leanpose.conversion.catalogue import Official, fetch_official, official_checkpoint, official_with
from leanpose.conversion.checkpoint import Checkpoint, read_checkpoint
from leanpose.conversion.layouts import named_as_mmpose
from leanpose.conversion.recognition import RecognisedNetwork, Size
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.models.backbones.base import save_backbone
from leanpose.models.base import PoseModel
from leanpose.models.heatmap_model import HeatmapModel
from leanpose.models.registry import configure_model, create_model, list_models
from leanpose.skeleton import Skeleton, get_skeleton
from leanpose.weights.official import from_official
from leanpose.weights.storage import NoInitWeights, save_model

_DEFAULT_SIZE = (256, 192)


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
) -> Converted:
    """Read an official checkpoint, tell what it is, and write it as a file that `leanpose.load_model` takes.

    A checkpoint of a backbone alone (or any, with `backbone_only`) becomes a file that `create_model(pretrained=…)` and
    a recipe's `pretrained` take. Nothing in the checkpoint is executed.

    Args:
        source: a `.pth` file (or `.safetensors` of another program), or a key of `official_checkpoints()`, which is
            downloaded once to the cache folder.
        path: of the new file; ends in `.safetensors`.
        model: its name in leanpose, where the checkpoint fits several.
        skeleton: its keypoints, where their number does not tell.
        input_size: of the crop (height, width) in pixels, where no weight depends on it and the file does not say.
        stage: 1 or 2, of a file of DWPose's distiller, where that is not clear.
        backbone_only: leave the head away.
        training_data: what it was trained on; None: what is known of the published file.
        licence: its terms; None: as published.

    Raises:
        LeanposeError: the file is not a checkpoint, not harmless or not known, an argument does not fit it, or it
            cannot be downloaded.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise LeanposeError(f"Cannot write {path}: the name must end in .safetensors.")
    if model is not None and model not in list_models(task="pose"):
        raise LeanposeError(f"Unknown model '{model}'; {did_you_mean(model, list_models(task='pose'))}")
    source = _find(source)
    checkpoint = read_checkpoint(source)
    digest = sha256(source.read_bytes()).hexdigest()
    official = official_with(digest)
    tensors, taken = recognition.unwrap_distiller(checkpoint.tensors, stage)
    tensors, renamed = named_as_mmpose(tensors)
    notes = [*checkpoint.notes, *(note for note in (taken, renamed) if note)]
    origin = f"Converted from {source.name} (SHA-256 {digest})"
    published_data, published_terms = ["unspecified"], "unspecified"
    if official is not None:
        origin += f", published as {official.url}"
        published_data, published_terms = list(official.training_data), official.licence
    card = {"training_data": training_data or published_data, "licence": licence or published_terms}

    network = None if backbone_only else recognition.recognise_network(tensors)
    if network is None:
        backbone = recognition.recognise_backbone(tensors)
        if backbone is None or not (backbone_only or recognition.has_only_a_backbone(tensors)):
            raise LeanposeError(
                f"{source} is not recognised from its {len(tensors)} tensors, such as '{next(iter(tensors))}'; supported are {recognition.SUPPORTED}."
            )
        variant, weights = backbone
        save_backbone(weights, path, variant=variant, notes=f"{origin}.", **card)
        notes.append(f"a backbone alone, for `pretrained: {path.name}` in a recipe")
        return Converted(path, variant, "backbone", None, None, official, tuple(notes))

    likely = official.model if official else f"dwpose_{next(iter(network.fits))[-1]}" if taken else None
    name, options = _choose(network, model, likely, source)
    usual = configure_model(name)
    unusual = [f"{key}={value}" for key, value in options.items() if getattr(usual, key) != value]
    notes += [f"other than the usual {name}: {', '.join(unusual)}"] if unusual else []
    chosen, skeleton_note = _skeleton(network, checkpoint, official, skeleton)
    size, size_note = _size(network, checkpoint, official, input_size, source)
    notes += [note for note in (skeleton_note, size_note) if note]
    options = {**options, "input_size": size}
    with NoInitWeights():
        built = create_model(name, skeleton=chosen, **options)
    built.load_state_dict(from_official(name, tensors, skeleton=chosen, **options), strict=True)
    notes += _set_codec(built, checkpoint)
    others = [other for other in network.fits if other != name and other in list_models()]
    if others and model is None:
        notes.append(f"it fits {' and '.join(others)} too, the same network; --model gives it that name")
    metrics = {f"{what}, published": figure for what, figure in official.published.items()} if official else {}
    save_model(built, path, metrics=metrics, notes=f"{origin}. {'; '.join(notes)}.", **card)
    return Converted(path, name, network.family, size, chosen.name, official, tuple(notes))


def _find(source: Path | str) -> Path:
    """The file that is meant: itself, or that of an official checkpoint."""
    path = Path(source)
    if path.suffix == ".onnx":
        raise LeanposeError(f"{path} is an ONNX file; leanpose.conversion.onnx_models.convert_onnx reads those.")
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    return fetch_official(official_checkpoint(str(source)))


def _choose(
    network: RecognisedNetwork, model: str | None, likely: str | None, source: Path
) -> tuple[str, dict[str, Any]]:
    """The model's name, and the settings in which the checkpoint differs from it."""
    fits = {name: options for name, options in network.fits.items() if name in list_models()}
    if model is not None:
        # A model of one's own has its own sizes; whether they fit is seen when the weights are put in.
        return model, fits.get(model, {})
    if not fits:
        raise LeanposeError(f"{source} is a {network.family} of a size that no leanpose model has.")
    if network.ask:
        raise LeanposeError(
            f"{source} matches {' and '.join(fits)}, which compute different things: choose one with --model."
        )
    name = likely if likely in fits else next(iter(fits))
    return name, fits[name]


def _skeleton(
    network: RecognisedNetwork, checkpoint: Checkpoint, official: Official | None, given: str | Path | Skeleton | None
) -> tuple[Skeleton, str]:
    if given is not None:
        chosen = get_skeleton(given)
        if len(chosen) != network.keypoints:
            raise LeanposeError(
                f"The checkpoint predicts {network.keypoints} keypoints, but the skeleton '{chosen.name}' has {len(chosen)}."
            )
        return chosen, f"keypoints: {chosen.name}, as given"
    if official is not None and official.skeleton is not None:
        return get_skeleton(official.skeleton), f"keypoints: {official.skeleton}, as published"
    return recognition.recognise_skeleton(network.keypoints, checkpoint.dataset)


def _size(
    network: RecognisedNetwork, checkpoint: Checkpoint, official: Official | None, given: Size | None, source: Path
) -> tuple[Size, str]:
    """The size of the crop, and a sentence on how it is known where no weight says so."""
    known = network.input_size
    if known is not None and given not in (None, known):
        sizes = (*known, *given)
        raise LeanposeError("The weights are for crops of {}x{}, not {}x{} (height x width).".format(*sizes))
    if size := known or given or (official and official.input_size):
        return size, ""
    size, how = _DEFAULT_SIZE, "the default, since the file does not tell (override with --input-size)"
    width_height = r"(?:input_size|image_size)\s*=\s*(?:np\.array\()?[\[(]\s*(\d+)\s*,\s*(\d+)"
    if match := re.search(width_height, checkpoint.config):
        size, how = (int(match[2]), int(match[1])), "as the file's configuration says"
    elif match := re.search(r"(?<!\d)(\d{2,3})x(\d{2,3})(?!\d)", source.stem):
        size, how = (int(match[1]), int(match[2])), "going by the file's name (--input-size says otherwise)"
    return size, "input size: {}x{}, {}".format(*size, how)


def _set_codec(model: PoseModel, checkpoint: Checkpoint) -> list[str]:
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
