"""Pose models of other programs: RTMPose as MMDeploy exports it and rtmlib runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leanpose.codecs import SimCCCodec
from leanpose.errors import LeanposeError
from leanpose.inference.backends.base import ModelSpec
from leanpose.inference.backends.graph import ExportCard
from leanpose.skeleton import COCO17, WHOLEBODY133, Skeleton

Shaped = tuple[str, Sequence[int | str | None]]

SPLIT = 2.0  # bins per pixel of every RTMPose that is published
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def recognise(
    inputs: Sequence[Shaped], outputs: Sequence[Shaped], path: Path, skeleton: Skeleton | None
) -> tuple[ExportCard, list[str]]:
    """What a file without a card is, from the names and shapes of its inputs and outputs.

    Known is one form: a float input (B, 3, H, W), normalised with ImageNet's mean and deviation, and two outputs, rows of
    bins along x (B, K, 2 W) and along y (B, K, 2 H).

    Args:
        skeleton: the names of the K keypoints; where it is None, K says it.

    Returns:
        A card, and names for the outputs in their order.

    Raises:
        LeanposeError: the file is of another form, or K says nothing.
    """
    shape = list(inputs[0][1]) if len(inputs) == 1 else []
    rows = [list(of) for _, of in outputs]
    whole = len(shape) == 4 and shape[1] == 3 and all(isinstance(side, int) for side in shape[2:])
    if not whole or len(rows) != 2 or any(len(row) != 3 for row in rows):
        raise LeanposeError(_unknown(inputs, outputs, path))
    height, width = int(shape[2] or 0), int(shape[3] or 0)
    keypoints = rows[0][1]
    found = [row[2] for row in rows]
    bins = [int(width * SPLIT), int(height * SPLIT)]
    if found == bins:
        names = ["simcc_x", "simcc_y"]
    elif found == bins[::-1]:
        names = ["simcc_y", "simcc_x"]
    else:
        raise LeanposeError(_unknown(inputs, outputs, path))
    if not isinstance(keypoints, int) or rows[1][1] != keypoints:
        raise LeanposeError(_unknown(inputs, outputs, path))
    chosen = _skeleton(keypoints, skeleton, path)
    sigma = (round((width / 8) ** 0.5, 2), round((height / 8) ** 0.5, 2))
    codec = SimCCCodec((height, width), sigma=sigma, simcc_split_ratio=SPLIT)
    spec = ModelSpec(path.stem, chosen, codec, (height, width), IMAGENET["mean"], IMAGENET["std"])
    return ExportCard(spec, normalise_inside=False, decode_inside=False), names


def _skeleton(keypoints: int, given: Skeleton | None, path: Path) -> Skeleton:
    if given is not None:
        if len(given) != keypoints:
            raise LeanposeError(
                f"{path} finds {keypoints} keypoints, but the skeleton '{given.name}' has {len(given)}."
            )
        return given
    if keypoints == 17:
        return COCO17
    if keypoints == 133:
        return WHOLEBODY133
    raise LeanposeError(f"{path} finds {keypoints} keypoints and does not name them; give a skeleton with their names.")


def _unknown(inputs: Sequence[Shaped], outputs: Sequence[Shaped], path: Path) -> str:
    have, give = (
        ", ".join(f"`{name}` {'×'.join(str(side) for side in shape) or 'scalar'}" for name, shape in values)
        for values in (inputs, outputs)
    )
    return (
        f"{path} is no pose model that is known here: it has no card of leanpose, the inputs {have} and the outputs {give}; "
        "expected a file that `leanpose export` wrote, or an RTMPose with the outputs `simcc_x` and `simcc_y`."
    )
