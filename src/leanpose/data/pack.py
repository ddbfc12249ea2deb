"""Packs (`leanpose.data.pack_file`) as data sets."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np

from leanpose.data.annotations import ImageRef, PoseAnnotation, PoseDataset, ignored_regions
from leanpose.data.ground_truth import labelled_dataset
from leanpose.data.keypoints import map_keypoints, match_keypoints
from leanpose.data.label_digest import LabelDigest
from leanpose.data.label_set import LabelledImage, LabelledPerson, LabelSet
from leanpose.data.pack_file import PackFile, is_pack_file, open_pack
from leanpose.data.readers import DatasetConfig, in_split
from leanpose.data.sniffing import FileContent
from leanpose.data.summary import start_summary
from leanpose.skeleton import Skeleton

LOG = logging.getLogger(__name__)
NO_IMAGE = "whose image could not be read when they were packed"
NO_CROP = "whose box lies outside their image"


def is_pack(file: FileContent) -> bool:
    """Whether a file is a pack."""
    return file.path.is_file() and is_pack_file(file.path)


def load_pack(path: Path) -> LabelSet:
    """The labels of a pack's people; its images are what it holds of them.

    Raises:
        LeanposeError: it is corrupt.
    """
    pack = open_pack(path)
    _warn_of_changed_labels(pack)
    rows = pack.rows
    sizes = pack.images[["width", "height"]].tolist()
    images = [
        LabelledImage(name, float(w) if w else np.nan, float(h) if h else np.nan)
        for name, (w, h) in zip(pack.image_names, sizes, strict=True)
    ]
    columns = (pack.index[field][rows] for field in ("image", "box", "area"))
    people = [
        LabelledPerson(int(image), points.astype(np.float64), box, area=float(area))
        for image, box, area, points in zip(*columns, pack.keypoints[rows], strict=True)
    ]
    nowhere = np.zeros((len(pack.skeleton), 3))
    people += [
        LabelledPerson(
            int(region["image"]), nowhere, region["box"], area=float(region["area"]), crowd=bool(region["crowd"])
        )
        for region in pack.ignored
    ]
    return LabelSet(path, pack.skeleton, images, people, _without_crop(pack), packing_notes(pack), located=True)


def read_pack(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read a pack's people; see `leanpose.data.readers.read_people`. `PoseAnnotation.row` says where their crops
    are."""
    pack = open_pack(config.annotation_path(root))
    _warn_of_changed_labels(pack)
    summary = start_summary(config.title, skeleton, pack.skeleton, config.split)
    indices = match_keypoints(config.title, pack.skeleton, skeleton)
    shown = [number for number, size in enumerate(pack.images["height"].tolist()) if size]
    wanted = {number for place, number in enumerate(shown) if in_split(place, config.split)}
    rows = np.array([row for row in pack.rows.tolist() if int(pack.index["image"][row]) in wanted], int)
    points, entries = map_keypoints(pack.keypoints[rows], indices), pack.index[rows]
    refs = {number: ImageRef(str(pack.path), pack.image_names[number]) for number in wanted}
    image_ids, person_ids = _ids(entries)
    columns = (entries[field].tolist() for field in ("image", "area", "head_size"))
    people = [
        PoseAnnotation(refs[image], box, person_points, image_id, person_id, area, head_size=head_size, row=row)
        for image, area, head_size, box, person_points, image_id, person_id, row in zip(
            *columns, entries["box"], points, image_ids, person_ids, rows.tolist(), strict=True
        )
    ]
    if config.split == "all":
        summary.left_out.update(_without_crop(pack))
    summary.notes.update(packing_notes(pack))
    ids = dict(zip(image_ids, entries["image"].tolist(), strict=True))
    images = [
        {"id": image_id, "file_name": pack.image_names[number]}
        | {side: int(pack.images[side][number]) for side in ("width", "height")}
        for image_id, number in ids.items()
    ]
    id_of = {number: image_id for image_id, number in ids.items()}
    ignored = pack.ignored[np.isin(pack.ignored["image"], list(id_of))]
    image_ids = [id_of[number] for number in ignored["image"].tolist()]
    regions = ignored_regions(image_ids, ignored["box"], ignored["area"].tolist(), ignored["crowd"].tolist())
    return labelled_dataset(summary, people, images, skeleton, regions)


def _warn_of_changed_labels(pack: PackFile) -> None:
    """Warn where label files have other content now than when they were packed."""
    folder = pack.path.parent
    changed = [path for path, size, checksum in pack.labels if LabelDigest(path, size, checksum).changed(folder)]
    if changed:
        more = f" and {len(changed) - 1} others" if len(changed) > 1 else ""
        LOG.warning(
            f"The labels in {changed[0]}{more} have changed since {pack.path} was packed from them: pack it again to use them."
        )


def _ids(entries: np.ndarray) -> tuple[list[int], list[int]]:
    """The ids of people's images and their own: the sets' own ones, or others where two sets have the same."""
    images, ids = (len(np.unique(entries[["image", *more]])) for more in ([], ["image_id"]))
    same = images == ids == len(np.unique(entries["image_id"]))
    image_ids = entries["image_id"] if same else entries["image"].astype(np.int64) + 1
    unique = len(np.unique(entries["person_id"])) == len(entries)
    person_ids = entries["person_id"] if unique else np.arange(1, len(entries) + 1)
    return image_ids.tolist(), person_ids.tolist()


def packing_notes(pack: PackFile) -> Counter[str]:
    """Notes for a data summary: who was left out when a pack was made, and what was changed in reading the labels."""
    notes = Counter(pack.notes)
    if pack.left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(pack.left_out).most_common())
        notes[f"were left out when it was packed ({reasons})"] = sum(pack.left_out.values())
    return notes


def _without_crop(pack: PackFile) -> Counter[str]:
    """The people of a pack who have no crop, by reason."""
    images = pack.index["image"][pack.index["length"] == 0]
    unread = int((pack.images["height"][images] == 0).sum())
    return Counter({NO_IMAGE: unread, NO_CROP: len(images) - unread})
