"""Boxes and areas of COCO records, and the sizes of their images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from leanpose.data.annotations import ImageRef, padded_boxes
from leanpose.data.coco_file import CocoFile, Record
from leanpose.data.image_files import BrokenImageError
from leanpose.data.images import upright_size
from leanpose.data.records import as_id, parse_box
from leanpose.errors import LeanposeError
from leanpose.geometry import box_area, boxes_from_keypoints, xyxy_to_xywh

_MIN_CORNERS = 4  # boxes that can show that all of them are corners
_OVER = 0.1  # of the image's side: so far, and no nearer, boxes reach over its edge that are corners
_MANY = 0.25  # share of them
_SHOWN = 4  # labelled keypoints of a person whose extent tells how a box is meant
_CLEARLY = 0.1  # of intersection over union
_BETTER = 0.75  # share of people whose boxes fit their keypoints better if they are read otherwise; of real sets 0.1
_SAMPLED = 8  # images of a set whose size is compared with the annotated one

MIN_AREA, MAX_AREA = 1e-3, 10.0
"""Limits of a person's area as a multiple of its box's: outside of them it is in other units."""


def clip_boxes(
    xywh: Float[np.ndarray, "N 4"], sizes: Float[np.ndarray, "N 2"]
) -> tuple[Float[np.ndarray, "N 4"], Bool[np.ndarray, " N"]]:
    """Labelled boxes as xyxy inside their images, the way mmpose does it, and of which something is left.

    The right and bottom edges are those of the last pixel (x + w - 1), at most the image's last pixel.

    Args:
        sizes: (width, height) of each box's image in pixels; NaN where it is not known.
    """
    finite = np.asarray(np.isfinite(xywh).all(axis=1))
    xywh = np.where(finite[:, None], xywh, 0.0)
    low = np.maximum(xywh[:, :2], 0.0)
    high = low + np.maximum(xywh[:, 2:] - 1, 0.0)
    known = np.asarray(np.isfinite(sizes).all(axis=1))
    high = np.where(known[:, None], np.minimum(high, sizes - 1), high)
    return np.concatenate([low, high], axis=1), finite & (high > low).all(axis=1)


def image_size(record: Record) -> tuple[float, float]:
    """Width and height of an image in pixels, from its record; NaN if it has none."""
    sides = as_id(record.get("width")), as_id(record.get("height"))
    width, height = (float(side) if isinstance(side, int | float) and side > 0 else math.nan for side in sides)
    return width, height


def read_boxes(
    file: CocoFile, records: Sequence[Record], points: Float[np.ndarray, "N S 3"], notes: Counter[str]
) -> Float[np.ndarray, "N 4"]:
    """The xywh boxes of all people: from the records, or from the keypoints if a record has none.

    Args:
        points: of the records, in the file's keypoints.
        notes: gets how many boxes were made.

    Raises:
        LeanposeError: a box is garbled.
    """
    given = [record.get("bbox") for record in records]
    missing = [i for i, box in enumerate(given) if box is None or box == []]
    for i in missing:
        given[i] = [0.0] * 4
    try:
        boxes = np.array(given, np.float64)
    except (TypeError, ValueError):
        boxes = np.zeros(0)
    if boxes.shape != (len(given), 4):  # which of them it is, the next line says
        rows = [parse_box(box, file.where(record)) for box, record in zip(given, records, strict=True)]
        boxes = np.array(rows, np.float64).reshape(-1, 4)
    if missing:
        boxes[missing] = xyxy_to_xywh(padded_boxes(points[missing]))
        notes["boxes are missing and made from the keypoints"] += len(missing)
    return boxes


def read_areas(
    file: CocoFile, records: Sequence[Record], xywh: Float[np.ndarray, "N 4"], notes: Counter[str]
) -> Float[np.ndarray, " N"]:
    """The areas of all people: from the records, or of the boxes if an area is missing, 0, or impossible for its box.

    Raises:
        LeanposeError: one is not a number.
    """
    of_box = np.maximum(xywh[:, 2:], 0.0).prod(axis=1)
    stated = [record.get("area") for record in records]
    for record, area in zip(records, stated, strict=True):
        try:
            float(0 if area is None else area)
        except (TypeError, ValueError) as error:
            raise LeanposeError(f"{file.where(record)} has an `area` that is not a number: {area!r}.") from error
    areas = np.array([math.nan if area is None else float(area) for area in stated], np.float64)
    valid = np.isfinite(areas) & (areas > 0)
    given = np.array([area is not None for area in stated], bool)
    notes["areas are 0 or no number (the box's is taken)"] += int((given & ~valid & (of_box > 0)).sum())
    with np.errstate(invalid="ignore"):
        other = valid & (of_box > 0) & ((areas < MIN_AREA * of_box) | (areas > MAX_AREA * of_box))
    notes["areas are in other units than their boxes (the box's is taken)"] += int(other.sum())
    return np.where(valid & ~other, areas, of_box)


def require_width_and_height(
    xywh: Float[np.ndarray, "N 4"], points: Float[np.ndarray, "N K 3"], sizes: Float[np.ndarray, "N 2"], where: object
) -> None:
    """Check that boxes are x, y, width and height.

    Args:
        points: of the people, cleaned.
        sizes: (width, height) of their images in pixels; NaN where it is not known.

    Raises:
        LeanposeError: all of them are corners x1, y1, x2, y2: read as sizes, many would reach far over the edge; or nearly all fit
            the extents of their keypoints better as corners, or as centre and size.
    """
    _require_inside_images(xywh, points, sizes, where)
    _require_best_fit(xywh, points, where)


def _require_inside_images(
    xywh: Float[np.ndarray, "N 4"], points: Float[np.ndarray, "N K 3"], sizes: Float[np.ndarray, "N 2"], where: object
) -> None:
    """Check that boxes are not corners that, read as sizes, reach far over the edges of images.

    Raises:
        LeanposeError: many do, and all are inside as corners.
    """
    with np.errstate(invalid="ignore"):
        known = np.isfinite(sizes).all(axis=1) & np.isfinite(xywh).all(axis=1) & (xywh[:, 2:] > 0).all(axis=1)
        first, last, sizes = xywh[known, :2], xywh[known, 2:], sizes[known]
        over = (first + last > (1 + _OVER) * sizes).any(axis=1)
        corners = (last > first).all(axis=1) & (last <= sizes + 1).all(axis=1)
    if not known.any() or known.sum() < _MIN_CORNERS or over.mean() < _MANY or not corners.all():
        return
    labelled, xy = points[known, :, 2] > 0, points[known, :, :2]
    outside = np.asarray(((xy < first[:, None] - 1) | (xy > last[:, None] + 1)).any(axis=2))
    if labelled.any() and outside[labelled].mean() < _OVER:
        raise LeanposeError(
            f"The boxes of {where} look like corners x1, y1, x2, y2, where x, y, width, height are expected: read so, "
            f"{over.mean():.0%} of them reach over the edge of their images; subtract the first corner from the second one."
        )


def _require_best_fit(xywh: Float[np.ndarray, "N 4"], points: Float[np.ndarray, "N K 3"], where: object) -> None:
    """Check that boxes fit the extents of keypoints best as x, y, width and height.

    Raises:
        LeanposeError: they fit better if they are read otherwise.
    """
    with np.errstate(invalid="ignore"):
        shown = ((points[..., 2] > 0).sum(axis=1) >= _SHOWN) & (xywh[:, 2:] > 0).all(axis=1)
    first, last = xywh[shown, :2], xywh[shown, 2:]
    if len(first) < _MIN_CORNERS:
        return
    extents = boxes_from_keypoints(points[shown])
    fit = _overlap(first, first + last, extents)
    readings = {"corners x1, y1, x2, y2": (first, last), "centre and size": (first - last / 2, first + last / 2)}
    for reading, (low, high) in readings.items():
        share = float((_overlap(low, high, extents) > fit + _CLEARLY).mean())
        if share >= _BETTER:
            raise LeanposeError(
                f"The boxes of {where} look like {reading}, where x, y, width, height are expected: so they fit the keypoints of "
                f"{share:.0%} of the people better."
            )


def _overlap(
    low: Float[np.ndarray, "N 2"], high: Float[np.ndarray, "N 2"], extents: Float[np.ndarray, "N 4"]
) -> Float[np.ndarray, " N"]:
    """Intersection over union of boxes and extents; 0 where a box has none."""
    common = np.concatenate([np.maximum(low, extents[:, :2]), np.minimum(high, extents[:, 2:])], axis=1)
    shared, areas = box_area(common), box_area(np.concatenate([low, high], axis=1)) + box_area(extents)
    return shared / np.maximum(areas - shared, 1e-9)


def note_other_sizes(images: Iterable[tuple[ImageRef, float, float]], notes: Counter[str]) -> None:
    """Compare the sizes of some images with the annotated ones; their pixels are not decoded.

    Args:
        images: of a set, each with its annotated width and height.
    """
    annotated = {str(ref): (ref, width, height) for ref, width, height in images if math.isfinite(width + height)}
    chosen = list(annotated.values())[:: max(1, len(annotated) // _SAMPLED)][:_SAMPLED]
    other = []
    for ref, width, height in chosen:
        try:
            size = upright_size(ref)
        except (BrokenImageError, LeanposeError):  # reported when it is decoded
            continue
        if size != (int(width), int(height)):
            other.append(f"{ref}: {size[0]} × {size[1]}, annotated {width:g} × {height:g}")
    if other:
        notes[f"of {len(chosen)} images looked at have another size than annotated, such as {other[0]}"] += len(other)
