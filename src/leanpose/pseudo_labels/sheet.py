"""A contact sheet of people with what was found: the person, then face, hands and feet from near."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.data.coco import clean_keypoints
from leanpose.data.images import BrokenImageError, read_image
from leanpose.drawing import contact_sheet, draw_poses
from leanpose.errors import LeanposeError
from leanpose.geometry import apply_affine
from leanpose.pseudo_labels.crops import TurnedSquare, square_around
from leanpose.pseudo_labels.label import Person
from leanpose.pseudo_labels.writing import part_points
from leanpose.skeleton import COCO17, WHOLEBODY133

_CELL, _COLUMNS = 240, 10
_VIEWS = ("person", "face", "left_hand", "right_hand", "feet")


def draw_sheet(people: Sequence[Person], *, count: int = 24, seed: int = 0) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of people drawn at random from those of whom something was found.

    Raises:
        LeanposeError: nothing was found, or none of the pictures can be read.
    """
    some = [person for person in people if any(part.verdict == "accepted" for part in person.found.values())]
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(some))
    tiles: list[np.ndarray] = []
    captions: list[str] = []
    shown = 0
    for position in order:
        if shown == count:
            break
        person = some[position]
        try:
            pixels = read_image(person.image)
        except BrokenImageError:
            continue
        shown += 1
        points = wholebody_points(person)
        for view in _VIEWS:
            tile = _view(pixels, points, view)
            if tile is not None:
                tiles.append(tile)
                captions.append(f"person {person.record['id']}" if view == "person" else view.replace("_", " "))
    if not tiles:
        raise LeanposeError("There is nothing to show: no face, hand or foot was found.")
    return contact_sheet(tiles, _COLUMNS, captions, cell=(_CELL, _CELL))


def wholebody_points(person: Person) -> Float[np.ndarray, "133 3"]:
    """A person's body labels and the found points, in COCO-WholeBody's order."""
    body = clean_keypoints(person.record["keypoints"], len(COCO17), f"Annotation {person.record['id']}")
    found = part_points(person.found)
    return np.concatenate([body, *(found[key] for key in ("foot", "face", "lefthand", "righthand"))])


def _view(
    pixels: UInt8[np.ndarray, "H W 3"], points: Float[np.ndarray, "133 3"], view: str
) -> UInt8[np.ndarray, "c c 3"] | None:
    """The whole person, or one part from near; None where it was not found."""
    labelled = points[:, 2] > 0
    shown = labelled.copy()
    if view != "person":
        part = list(WHOLEBODY133.parts[view])
        if not labelled[part].any():
            return None
        shown[:] = False
        shown[part] = labelled[part]
        if view == "feet":
            shown[[15, 16]] = labelled[[15, 16]]
    square = square_around(points[shown, :2], 0.0, 1.6 if view == "feet" else 1.3)
    square = TurnedSquare(square.x, square.y, max(square.side, 20.0))
    picture = square.crop(pixels, 2 * _CELL)
    drawn = apply_affine(square.matrix(2 * _CELL), points[:, :2])
    return draw_poses(picture, drawn[None], shown[None].astype(np.float64), WHOLEBODY133)
