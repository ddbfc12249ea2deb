"""The contact sheet of a check: people with their keypoints, those with findings first."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from jaxtyping import UInt8

from leanpose.data.annotations import ImageRef
from leanpose.data.images import BrokenImageError, read_image
from leanpose.data_checks.findings import KINDS, CheckedPerson, CheckedSet, CheckReport, Finding
from leanpose.drawing import contact_sheet, draw_poses
from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton

_CELL = (260, 200)


def draw_contact_sheet(
    report: CheckReport, *, tiles: int = 48, columns: int = 8, seed: int = 0
) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of people and their labels: half of the tiles for findings, one kind after the other, the rest drawn
    at random from all people, since what no rule finds is found by looking.

    Raises:
        LeanposeError: there is no image to show.
    """
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        if finding.image is not None:
            by_kind[finding.kind].append(finding)
    pictures, captions = [], []
    skeletons = {checked.file: checked.skeleton for checked in report.sets}
    share = max(1, tiles // 2 // max(len(by_kind), 1))
    for kind in [kind for kind in KINDS if kind in by_kind]:
        for finding in by_kind[kind][:share]:
            assert finding.image is not None
            tile = _tile(finding.image, finding.person, skeletons[finding.file])
            if tile is not None:
                pictures.append(tile)
                captions.append(f"{kind}: {_number(finding)}")
    everyone = [(checked, p) for checked in report.sets for p in checked.people if _is_shown(checked, p)]
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(everyone))
    for position in order[: max(0, tiles - len(pictures))]:
        checked, person = everyone[position]
        tile = _tile(checked.images[person.image_id], person, checked.skeleton)
        if tile is not None:
            pictures.append(tile)
            captions.append(f"{checked.file.stem[-16:]} {person.number}")
    if not pictures:
        raise LeanposeError("There is no image to show: none of the data's images was found.")
    return contact_sheet(pictures, columns, captions, cell=_CELL)


def _number(finding: Finding) -> str:
    return str(finding.person.number) if finding.person is not None else str(finding.image).rsplit("/", 1)[-1]


def _is_shown(checked: CheckedSet, person: CheckedPerson) -> bool:
    return person.image_id in checked.images and person.points is not None and bool((person.points[:, 2] > 0).any())


def _tile(image: ImageRef, person: CheckedPerson | None, skeleton: Skeleton) -> UInt8[np.ndarray, "h w 3"] | None:
    """The part of an image around a person, with its keypoints: hidden ones faint. None where it cannot be read."""
    try:
        pixels = read_image(image)
    except BrokenImageError:
        return None
    if person is None or person.points is None or not np.isfinite(person.points).all():
        return pixels
    labelled = person.points[person.points[:, 2] > 0, :2]
    corners = labelled
    if person.valid_box is not None:
        x, y, w, h = person.valid_box
        corners = np.concatenate([labelled, [[x, y], [x + w, y + h]]])
    if not len(corners):
        return pixels
    margin = 0.2 * max(np.ptp(corners, axis=0).max(), 20)
    limit = np.array([pixels.shape[1], pixels.shape[0]])
    # What lies far outside is shown as black beside the image, up to half of its size.
    low = np.maximum(np.floor(corners.min(axis=0) - margin), -limit // 2).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0) + margin), limit + limit // 2).astype(int)
    if (high <= low).any():
        return pixels
    canvas = np.zeros((high[1] - low[1], high[0] - low[0], 3), np.uint8)
    start, stop = np.maximum(low, 0), np.minimum(high, limit)
    if (stop > start).all():
        part = pixels[start[1] : stop[1], start[0] : stop[0]]
        top, left = start[1] - low[1], start[0] - low[0]
        canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
    return _draw(canvas, person.points, low, skeleton)


def _draw(canvas: np.ndarray, points: np.ndarray, low: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Draw at the size of a cell, so that thin lines stay visible."""
    import cv2

    scale = min(2 * _CELL[0] / canvas.shape[0], 2 * _CELL[1] / canvas.shape[1])
    size = max(1, round(canvas.shape[1] * scale)), max(1, round(canvas.shape[0] * scale))
    canvas = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    scores = np.choose(np.clip(points[:, 2], 0, 2).astype(int), [0.0, 0.2, 1.0])
    return draw_poses(canvas, ((points[:, :2] - low + 0.5) * scale - 0.5)[None], scores[None], skeleton)
