"""Keypoints of label files: parsed, checked, cleaned, and mapped to the skeleton of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from leanpose.data.records import parse_triples
from leanpose.errors import LeanposeError
from leanpose.skeleton import SKELETONS, Skeleton, keypoint_name

FRACTIONS = 1.5
"""Coordinates that are all below this are fractions of the image."""
_FARTHEST = 3.0  # sides of the image that a point may lie outside it; of an unknown image 10⁶ pixels
_MIN_POINTS, _MIN_POINTS_OF_ONE = 4, 3  # points that can show it, of all people and of one


def clean_keypoints(values: Any, count: int, where: str) -> Float[np.ndarray, "K 3"]:
    """The (x, y, v) triples of a record, `count` of them, cleaned as `clean_points` does.

    Raises:
        LeanposeError: their number does not fit the skeleton.
    """
    return clean_points(parse_triples(values, "keypoints", count, where)[None], np.full((1, 2), np.nan), Counter())[0]


def clean_points(
    points: Float[np.ndarray, "N K 3"], sizes: Float[np.ndarray, "N 2"], notes: Counter[str], *, scores: bool = False
) -> Float[np.ndarray, "N K 3"]:
    """The points of many people with flags 0, 1 or 2. What no label can be counts as not labelled, and is noted.

    Args:
        points: x, y, flag as a file has them.
        sizes: (width, height) of each person's image in pixels; NaN where it is not known.
        notes: gets how many points were not finite, at 0, 0 or -1, -1, far outside, or fractions of the image; and how
            many stay that lie outside.
        scores: whether scores stand for flags, as COCO-WholeBody has them behind the body.
    """
    x, y, flags = points[..., 0], points[..., 1], points[..., 2]  # each by itself: axes of 2 or 3 are slow to reduce
    with np.errstate(invalid="ignore"):
        flagged = ~(flags <= 0)
        finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(flags)
        placed = flagged & finite
        corner, marked = placed & (x == 0) & (y == 0), placed & (x == -1) & (y == -1)
        width, height = np.where(np.isfinite(sizes), sizes, np.inf).T[..., None]
        far = placed & (_is_far(x, width) | _is_far(y, height))
        labelled = placed & ~corner & ~far & ~marked
        # Nobody is so small: such points are fractions among pixels, unless the image itself is.
        tiny = np.minimum(width, height) < 10 * FRACTIONS
        near = (x >= 0) & (x <= FRACTIONS) & (y >= 0) & (y <= FRACTIONS) | ~labelled
        fractions = labelled & (near.all(axis=1) & (labelled.sum(axis=1) >= _MIN_POINTS_OF_ONE))[:, None] & ~tiny
        labelled &= ~fractions
        outside = labelled & ((x < -1) | (x > width) | (y < -1) | (y > height))
    for chosen, text in (
        (flagged & ~finite, "labelled points without a finite position count as not labelled"),
        (corner, "labelled points at exactly 0, 0 count as not labelled"),
        (marked, "labelled points at exactly -1, -1 count as not labelled"),
        (far, "labelled points far outside their images count as not labelled"),
        (
            fractions,
            "labelled points of people within 1.5 pixels of 0, 0, as fractions of the image are, count as not labelled",
        ),
        (labelled & (flags > 2), "flags above 2 are taken for visible (2)"),
        (
            labelled & (flags < 2) & (flags != 1) & (not scores),
            "flags between 0 and 2 that are not 1 are taken for 1 or 2",
        ),
        (outside, "labelled points lie outside their images"),
    ):
        notes[text] += int(chosen.sum())
    cleaned = np.zeros(points.shape)
    cleaned[..., 0], cleaned[..., 1] = np.where(labelled, x, 0.0), np.where(labelled, y, 0.0)
    cleaned[..., 2] = np.where(labelled, np.where(flags <= 1, 1.0, 2.0), 0.0)
    return cleaned


def _is_far(values: Float[np.ndarray, "N K"], sides: Float[np.ndarray, "N 1"]) -> Bool[np.ndarray, "N K"]:
    """Whether coordinates lie farther outside of images than a label can, given the images' sides (infinite: not
    known)."""
    known = np.isfinite(sides)
    reach = np.where(known, sides * _FARTHEST, 1e6)
    return (values < -reach) | (values > np.where(known, sides, 0.0) + reach)


def require_pixels(points: Float[np.ndarray, "N K 3"], sizes: Float[np.ndarray, "N 2"], where: object) -> None:
    """Check that coordinates are pixels.

    Raises:
        LeanposeError: all of them lie between 0 and 1, as fractions of an image do.
    """
    xy = np.zeros((0, 2))
    for some in (points[:64], points):  # the first ones nearly always show it
        xy = some[..., :2][np.isfinite(some).all(axis=-1) & (some[..., 2] > 0)]
        if len(xy) and np.abs(xy).max() > FRACTIONS:
            return
    small = np.isfinite(sizes).any() and np.nanmax(sizes) < 10 * FRACTIONS  # images of a few pixels
    if len(xy) >= _MIN_POINTS and not small and xy.any():
        raise LeanposeError(
            f"All labelled keypoints of {where} lie between {xy.min():.3g} and {xy.max():.3g}: they look like "
            "fractions of the image, where pixels are expected; multiply them by its width and height."
        )


def zero_unlabelled(points: Float[np.ndarray, "*N K 3"]) -> Float[np.ndarray, "*N K 3"]:
    """Points (x, y, v) that are not labelled, or not finite, become 0, 0, 0."""
    labelled = np.isfinite(points).all(axis=-1) & (points[..., 2] > 0)
    return np.where(labelled[..., None], points, 0.0)


def map_keypoints(points: Float[np.ndarray, "*N S 3"], indices: tuple[int, ...]) -> Float[np.ndarray, "*N K 3"]:
    """Keypoints of a set in a model's order; `indices` as `Skeleton.indices_in` gives them."""
    if indices == tuple(range(points.shape[-2])):
        return points.astype(np.float32)
    chosen = np.array(indices)
    mapped = np.where(chosen[:, None] >= 0, points[..., np.maximum(chosen, 0), :], 0.0)
    with np.errstate(over="ignore"):  # `read_people` refuses what overflows, with the person's name
        return mapped.astype(np.float32)


def known_skeleton(names: Iterable[str]) -> Skeleton | None:
    """The known skeleton with these keypoints in this order; None if there is none."""
    keypoints = tuple(keypoint_name(name) for name in names)
    return next((known for known in SKELETONS.values() if known.keypoints == keypoints), None)


def skeleton_of_names(
    names: Iterable[str],
    title: str,
    limbs: Sequence[tuple[int, int]] = (),
    pairs: Sequence[tuple[int, int]] | None = None,
) -> Skeleton:
    """The known skeleton with these keypoints in this order, or else a new one.

    Raises:
        LeanposeError: a name occurs twice.
    """
    keypoints = tuple(keypoint_name(name) for name in names)
    values = {"name": title, "keypoints": keypoints, "limbs": limbs, "pairs": pairs}
    return known_skeleton(keypoints) or Skeleton.from_dict(values)


def match_keypoints(title: str, labelled: Skeleton, skeleton: Skeleton) -> tuple[int, ...]:
    """For each keypoint of `skeleton` its index among those of the data set, or -1.

    Raises:
        LeanposeError: they have no name in common.
    """
    indices = skeleton.indices_in(labelled)
    if max(indices) < 0:
        raise LeanposeError(
            f"The data set '{title}' labels {', '.join(labelled.keypoints[:4])} …; none of them is a keypoint of the "
            f"skeleton '{skeleton.name}' ({', '.join(skeleton.keypoints[:4])} …)."
        )
    return indices
