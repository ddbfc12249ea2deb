"""The contact sheet of a check: people with their keypoints, those with findings first."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from leanpose.data.annotations import ImageRef
from leanpose.data.images import BrokenImageError, read_image
from leanpose.data_checks.findings import KINDS, CheckedPerson, CheckReport, Finding
from leanpose.drawing import contact_sheet, draw_person
from leanpose.errors import LeanposeError
from leanpose.geometry import xywh_to_xyxy
from leanpose.skeleton import Skeleton

_CELL = (260, 200)


def draw_contact_sheet(
    report: CheckReport, *, tiles: int = 48, columns: int = 8, seed: int = 0
) -> UInt8[np.ndarray, "H W 3"]:
    """An image of people and their labels: half of the tiles for findings, one kind after the other, the rest drawn
    at random from all people, since what no rule finds is found by looking.

    Raises:
        LeanposeError: there is no image to show.
    """
    by_kind: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
    for finding in report.findings:
        if finding.image is not None:
            by_kind[finding.kind].append(finding)
    share = max(1, tiles // 2 // max(sum(map(bool, by_kind.values())), 1))
    skeletons = {checked.file: checked.skeleton for checked in report.sets}
    wanted = []
    for kind, findings in by_kind.items():
        for finding in findings[:share]:
            name = finding.text if finding.person is not None else str(finding.image).rsplit("/", 1)[-1]
            wanted.append((f"{kind}: {name}", finding.image, finding.person, skeletons[finding.file]))
    everyone = [
        (f"{checked.file.stem} {person.number}", checked.images[person.image_id], person, checked.skeleton)
        for checked in report.sets
        for person in checked.people
        if person.image_id in checked.images and person.points is not None and (person.points[:, 2] > 0).any()
    ]
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(everyone))
    wanted += [everyone[position] for position in order[: max(0, tiles - len(wanted))]]
    shown = [(tile, caption) for caption, *what in wanted if (tile := _tile(*what)) is not None]
    if not shown:
        raise LeanposeError("There is no image to show: none of the data's images was found.")
    return contact_sheet([tile for tile, _ in shown], columns, [caption for _, caption in shown], cell=_CELL)


def _tile(image: ImageRef, person: CheckedPerson | None, skeleton: Skeleton) -> UInt8[np.ndarray, "h w 3"] | None:
    """The part of an image around a person, with its keypoints: hidden ones faint. None where it cannot be read."""
    try:
        pixels = read_image(image)
    except BrokenImageError:
        return None
    if person is None or person.points is None or not person.finite:
        return pixels
    corners = person.points[person.points[:, 2] > 0, :2]
    if person.valid_box is not None:
        corners = np.concatenate([corners, xywh_to_xyxy(np.array(person.valid_box)).reshape(2, 2)])
    if not len(corners):
        return pixels
    # What lies far outside is shown as black next to the image, up to half of its size.
    limit = np.array([pixels.shape[1], pixels.shape[0]])
    low, high = np.clip([corners.min(axis=0), corners.max(axis=0)], -limit / 2, 1.5 * limit)
    margin = 0.2 * max((high - low).max(), 20)
    scores = np.choose(np.clip(person.points[:, 2], 0, 2).astype(int), [0.0, 0.2, 1.0])
    region, size = np.concatenate([low - margin, high + margin]), (2 * _CELL[0], 2 * _CELL[1])
    return draw_person(pixels, region, person.points[:, :2], scores, skeleton, size)
