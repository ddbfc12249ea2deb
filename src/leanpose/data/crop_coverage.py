"""How much of augmented crops lies outside of the packed coarse crops, from their geometry alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from leanpose.data.annotations import PoseAnnotation
from leanpose.data.augmentation import Augmentation
from leanpose.data.pack_file import CropLookup
from leanpose.errors import LeanposeError
from leanpose.geometry import PADDING, apply_affine, bbox_to_center_scale, invert_affine, warp_matrix
from leanpose.skeleton import Skeleton

if TYPE_CHECKING:
    from leanpose.data.dataset import TopDownDataset

MAX_OUTSIDE = 0.02
"""The share of the pixels that may be missing (black) before it is worth a warning."""

_AS_FINE = 0.9
"""A crop with this share of the pixels, in length, that a model's would have counts as no coarser: AP hardly
differs."""

_PEOPLE, _VIEWS = 1000, 1000  # looked at; of few people more views each
_ROWS, _COLUMNS = 16, 12  # of the points that stand for a view's pixels


def outside_share(
    people: Sequence[PoseAnnotation],
    crops: CropLookup,
    augmentation: Augmentation,
    skeleton: Skeleton,
    input_size: tuple[int, int],
    padding: float = PADDING,
) -> float:
    """The share of the pixels of augmented views that are inside of their images but not of the packed crops.

    Args:
        people: in the keypoints of `skeleton`.
        crops: of these people; those without one do not count.
        augmentation: how views vary.
        input_size, padding: of the views, as a model sees them.

    Returns:
        The mean over some of the people, evenly taken from all; 0 if there are no crops.
    """
    chosen = np.flatnonzero(crops.sources >= 0)
    chosen = chosen[:: -(-len(chosen) // _PEOPLE) or 1]
    height, width = input_size
    rows, columns = np.mgrid[0:_ROWS, 0:_COLUMNS].reshape(2, -1)
    grid = np.stack([(columns + 0.5) / _COLUMNS * width, (rows + 0.5) / _ROWS * height], axis=1) - 0.5
    rng, shares = np.random.default_rng(0), []
    for index in chosen.tolist():
        region, whole = _edges(crops, index)
        for _ in range(-(-_VIEWS // len(chosen))):
            center, scale, rotation, flip = augmentation.sample(rng, people[index], skeleton, input_size, padding)
            points = apply_affine(
                invert_affine(warp_matrix(center, scale, input_size, rotation=rotation, flip=flip)), grid
            )
            shares.append((_inside(points, whole) & ~_inside(points, region)).mean())
    return float(np.mean(shares)) if shares else 0.0


def coarser_share(
    people: Sequence[PoseAnnotation], crops: CropLookup, input_size: tuple[int, int], padding: float = PADDING
) -> float:
    """The share of the people whose packed crop is coarser than both a model's crop and the image."""
    chosen = np.flatnonzero(crops.sources >= 0)
    if not len(chosen):
        return 0.0
    _, scales = bbox_to_center_scale(np.stack([people[i].box for i in chosen.tolist()]), input_size, padding)
    packed = np.array([crops.caches[crops.sources[i]].index["scale"][crops.rows[i], 0] for i in chosen])
    return float((packed < np.minimum(1.0, input_size[1] / scales[:, 0]) * _AS_FINE).mean())


def require_whole_views(
    people: Sequence[PoseAnnotation], crops: CropLookup, input_size: tuple[int, int], padding: float = PADDING
) -> None:
    """Check that packed crops show a model all that it would see of the images without augmentation, as finely.

    Raises:
        LeanposeError: they do not.
    """
    chosen = np.flatnonzero(crops.sources >= 0)
    if not len(chosen):
        return
    centers, scales = bbox_to_center_scale(np.stack([people[i].box for i in chosen.tolist()]), input_size, padding)
    low, high = centers - scales / 2 - 0.5, centers + scales / 2 - 0.5
    regions, wholes = map(np.stack, zip(*(_edges(crops, i) for i in chosen.tolist()), strict=True))
    views = np.concatenate([np.maximum(low, wholes[:, :2]), np.minimum(high, wholes[:, 2:])], axis=1)
    beyond = np.concatenate([regions[:, :2] - views[:, :2], views[:, 2:] - regions[:, 2:]], axis=1).max(axis=1) > 1.0
    if beyond.any() or coarser_share(people, crops, input_size, padding) > 0:
        config = crops.caches[int(crops.sources[chosen[0]])].config
        (h, w), (height, width) = config.input_size, input_size
        raise LeanposeError(
            f"The pack {crops.caches[int(crops.sources[chosen[0]])].path} was made for {h}×{w} crops with padding "
            f"{config.padding:g}, which are smaller or coarser than this model's input of {height}×{width} with padding "
            f"{padding:g}: evaluate on the images, or on a pack made for the model (`leanpose data pack --model`)."
        )


def _edges(crops: CropLookup, index: int) -> tuple[Float[np.ndarray, " 4"], Float[np.ndarray, " 4"]]:
    """The edges (xyxy) of a person's coarse crop and of the image."""
    pack, row = crops.caches[int(crops.sources[index])], int(crops.rows[index])
    size = pack.images[int(pack.index["image"][row])]
    return pack.regions([row])[0], np.array([0, 0, size["width"], size["height"]]) - 0.5


def _inside(points: Float[np.ndarray, "N 2"], edges: Float[np.ndarray, " 4"]) -> Bool[np.ndarray, " N"]:
    return np.all((points >= edges[:2]) & (points <= edges[2:]), axis=1)


def coverage_warnings(dataset: TopDownDataset) -> Iterator[str]:
    """Whether a data set's packed crops cover or resolve less than training would use."""
    people, crops, size, padding = dataset.people, dataset.coarse_crops, dataset.input_size, dataset.padding
    if dataset.augmentation is not None:
        share = outside_share(people, crops, dataset.augmentation, dataset.skeleton, size, padding)
        if share > MAX_OUTSIDE:
            yield (
                f"Warning: {share:.1%} of the pixels of this recipe's augmented crops are outside the packed crops and "
                "black; pack with a larger --margin."
            )
    if coarser := coarser_share(people, crops, size, padding):
        yield (
            f"Warning: {coarser:.0%} of the packed crops have a lower resolution than the training crops of "
            f"{size[0]}×{size[1]}."
        )
