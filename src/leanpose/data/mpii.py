"""MPII Human Pose (Andriluka et al., CVPR 2014): the official MATLAB file, and the JSON that most code trains with.

Both count pixels from 1, as MATLAB does. Everything that leaves this file counts from 0, so 1 is taken off every point:
off `center` and `joints` alike (a well-known reader forgets the joints).

The MATLAB file holds `RELEASE.annolist(i).image.name`, the people `.annorect(j)` with the head's rectangle `x1 y1 x2
y2`, `scale`, `objpos.x y` and `annopoints.point(k)` with `id` 0 … 15, `x`, `y`, `is_visible`; `RELEASE.img_train(i)` is
0 for the test images, whose labels are not public, and `RELEASE.single_person{i}` lists the people (from 1) who stand
apart from others. The JSON is a list of people with `image`, `center`, `scale`, `joints` (16 × 2) and `joints_vis`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from leanpose.data.annotations import AREA_OF_BOX, PoseAnnotation, PoseDataset, padded_boxes
from leanpose.data.ground_truth import labelled_dataset
from leanpose.data.image_folder import ImageFolder
from leanpose.data.keypoints import map_keypoints, match_keypoints, zero_unlabelled
from leanpose.data.matlab import load_matlab, matlab_names
from leanpose.data.readers import DatasetConfig, in_split
from leanpose.data.records import record_errors
from leanpose.data.sniffing import FileContent
from leanpose.data.summary import start_summary
from leanpose.errors import LeanposeError
from leanpose.files import load_json
from leanpose.geometry import box_area
from leanpose.skeleton import MPII16, Skeleton

PIXELS_PER_SCALE = 200.0
"""`scale` is the person's height in units of this many pixels."""

LOWERED = 15.0
"""mmpose moves `center` down by this many pixels × `scale`, so that the feet are not cut off."""

HEAD_OF_DIAGONAL = 0.6
"""The head size of PCKh is this part of the diagonal of the head's rectangle."""

HEAD_OF_AXIS = 0.75
"""`upper_neck` and `head_top` are made from the head's rectangle: their distance is 0.8 of its diagonal."""

_HEAD_ENDS = [MPII16.keypoints.index("upper_neck"), MPII16.keypoints.index("head_top")]


@dataclass(frozen=True)
class MpiiPerson:
    """One labelled person.

    Attributes:
        image: name of the image file.
        points: x, y in pixels from 0 and COCO's visibility, in the order of `mpii16`.
        center: (2,) rough middle of the person, in pixels from 0; not finite where the file has none.
        scale: the person's height in units of 200 pixels; NaN where the file has none.
        head_size: in pixels, as PCKh uses it; NaN where the head is not labelled.
        alone: whether the person stands apart from others: only these are measured.
    """

    image: str
    points: Float[np.ndarray, "16 3"]
    center: Float[np.ndarray, " 2"]
    scale: float
    head_size: float
    alone: bool = True

    @property
    def box(self) -> Float[np.ndarray, " 4"] | None:
        """The square (xyxy) that mmpose cuts out, before its padding of 1.25; None without centre and
        scale."""
        side = PIXELS_PER_SCALE * self.scale
        if not (np.isfinite(self.center).all() and 0 < side < np.inf):
            return None
        middle = self.center + np.array([0.0, LOWERED * self.scale])
        box = np.concatenate([middle - side / 2, middle + side / 2])
        return box if (box[2:] > box[:2]).all() else None  # a scale may be less than a rounding


@dataclass(frozen=True)
class MpiiFile:
    """The labelled people of a file.

    Attributes:
        path: where it was read.
        people: in the order of the file.
        odd: (number of the person from 1, kind of finding, text), for the check of a data set.
    """

    path: Path
    people: list[MpiiPerson]
    odd: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def images(self) -> list[str]:
        """The images with labelled people, in the order of the file."""
        return list(dict.fromkeys(person.image for person in self.people))


def load_mpii(path: Path, head_sizes: Path | None = None) -> MpiiFile:
    """Read MPII's MATLAB file or the common JSON.

    Args:
        path: ends in `.mat`, or is JSON.
        head_sizes: a JSON list with `image` and `head_size` (pixels), of an image's people in their order. Without
            it the size follows from `upper_neck` and `head_top`. The MATLAB file needs none.

    Raises:
        LeanposeError: a file is missing, truncated, or no such file.
    """
    if path.suffix == ".mat":
        if head_sizes is not None:
            raise LeanposeError(f"{path} has the heads' rectangles itself; leave `head_sizes` out.")
        return _from_release(load_matlab(path).get("RELEASE"), path)
    return parse_mpii(load_json(path, "annotation file"), path, head_sizes)


def is_mpii(content: Any) -> bool:
    """Whether a JSON file's content is a list of MPII's people."""
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "joints" in content[0]


def is_mpii_file(file: FileContent) -> bool:
    """Whether a file is MPII's MATLAB file or the common JSON."""
    return is_mpii(file.json) or (file.path.suffix == ".mat" and "RELEASE" in matlab_names(file.path))


def parse_mpii(content: Any, path: Path, head_sizes: Path | None = None) -> MpiiFile:
    """The people of a common JSON whose content is read already; see `load_mpii`."""
    if not is_mpii(content):
        raise LeanposeError(f"{path} is not an MPII annotation file, a list of people with `joints` and `joints_vis`.")
    people, odd = [], []
    for number, record in enumerate(content, start=1):
        with record_errors(f"{path} is not an MPII annotation file: person {number}"):
            joints = np.array(record["joints"], np.float64)
            flags = np.array(record["joints_vis"], np.float64).reshape(-1)
            center, scale = np.array(record["center"], np.float64).reshape(2), float(record["scale"])
            image = str(record["image"])
        if joints.shape != (16, 2) or flags.shape != (16,):
            raise LeanposeError(f"{path}: person {number} has no 16 × 2 numbers in `joints` and 16 in `joints_vis`.")
        wrong = flags[~np.isin(flags, (0, 1))]
        if wrong.size:
            odd.append((number, "visibility", f"has the flag {wrong[0]:g} in joints_vis, which is neither 0 nor 1"))
        # This form does not say what is hidden, only what is labelled.
        points = np.concatenate([joints - 1.0, np.where(flags > 0, 2.0, 0.0)[:, None]], axis=1)
        people.append(MpiiPerson(image, zero_unlabelled(points), center - 1.0, scale, _head_size(points)))
    if head_sizes is not None:
        people = _with_head_sizes(people, head_sizes)
    return MpiiFile(path, people, odd)


def _head_size(points: Float[np.ndarray, "16 3"]) -> float:
    """The size of a head whose rectangle is not at hand, from the two points that were made of it."""
    neck, top = points[_HEAD_ENDS]
    return HEAD_OF_AXIS * float(np.linalg.norm(top[:2] - neck[:2])) if neck[2] > 0 and top[2] > 0 else np.nan


def _with_head_sizes(people: list[MpiiPerson], path: Path) -> list[MpiiPerson]:
    content = load_json(path, "file of head sizes")
    with record_errors(f"{path} is not a list of `image` and `head_size`: it"):
        rows = [(str(record["image"]), float(record["head_size"])) for record in content]
    sizes: dict[str, list[float]] = defaultdict(list)
    for image, size in rows:
        sizes[image].append(size)
    for image, count in Counter(person.image for person in people).items():
        if len(sizes[image]) != count:
            raise LeanposeError(f"{path} has {len(sizes[image])} head sizes for the {count} people of {image}.")
    return [replace(person, head_size=sizes[person.image].pop(0)) for person in people]


def _from_release(release: Any, path: Path) -> MpiiFile:
    """The labelled people of the training images in MPII's own struct."""
    annolist = _structs(_field(release, "annolist"))
    if not annolist:
        raise LeanposeError(f"{path} is not an MPII annotation file: it has no RELEASE.annolist.")
    train, apart = _field(release, "img_train"), _field(release, "single_person")
    with record_errors(f"{path}: img_train"):
        train = [1.0] * len(annolist) if train is None else np.reshape(train, -1).tolist()
    alone = [None] * len(annolist) if apart is None else apart if isinstance(apart, list) else [apart]
    if len(train) != len(annolist) or len(alone) != len(annolist):
        raise LeanposeError(
            f"{path} is corrupt: {len(annolist)} images, {len(train)} img_train, {len(alone)} single_person."
        )
    people: list[MpiiPerson] = []
    odd: list[tuple[int, str, str]] = []
    for number, (image, trains, chosen) in enumerate(zip(annolist, train, alone, strict=True), start=1):
        if not trains:
            continue
        with record_errors(f"{path}: image {number}"):
            indices = None if chosen is None else {int(i) for i in np.reshape(chosen, -1)}
            name = str(_field(image["image"], "name"))
            for position, rectangle in enumerate(_structs(image.get("annorect")), start=1):
                marks = _structs(_field(rectangle.get("annopoints"), "point"))
                if not marks:
                    continue
                points, problem = _marked(marks)
                if problem:
                    odd.append((len(people) + 1, "keypoint count", problem))
                place = rectangle.get("objpos")
                center = np.array([_number(_field(place, axis)) for axis in ("x", "y")]) - 1.0
                x1, y1, x2, y2 = (_number(rectangle.get(name)) for name in ("x1", "y1", "x2", "y2"))
                diagonal, free = float(np.hypot(x2 - x1, y2 - y1)), indices is None or position in indices
                head_size = HEAD_OF_DIAGONAL * diagonal if np.isfinite(diagonal) else _head_size(points)
                people.append(MpiiPerson(name, points, center, _number(rectangle.get("scale")), head_size, free))
    return MpiiFile(path, people, odd)


def _structs(value: Any) -> list[dict[str, Any]]:
    """The structs of a field that may be missing, empty, one or many."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _field(value: Any, name: str) -> Any:
    """A field of a struct; None where there is no such struct or field."""
    found = _structs(value)
    return found[0].get(name) if found else None


def _marked(marks: list[dict[str, Any]]) -> tuple[Float[np.ndarray, "16 3"], str]:
    """A person's points, and an error in them (empty if there is none)."""
    points, problem = np.zeros((16, 3)), ""
    for mark in marks:
        number = int(mark["id"])
        if not 0 <= number < 16:
            problem = f"has a point with the id {number}, which MPII does not know"
        elif points[number, 2] > 0:
            problem = f"has two points with the id {number}"
        else:
            # Empty for the two ends of the head, which were not looked at, and in places a letter for a number.
            visible = str(mark.get("is_visible", "")).strip()
            points[number] = float(mark["x"]) - 1.0, float(mark["y"]) - 1.0, 1.0 if visible in ("0", "0.0") else 2.0
    return zero_unlabelled(points), problem


def _number(value: Any) -> float:
    """A number; NaN where it is missing or empty."""
    array = np.asarray(np.nan if value is None else value, np.float64)
    return float(array.item()) if array.size == 1 else np.nan


def read_mpii(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read MPII; see `leanpose.data.readers.read_people`.

    Training uses all people with a labelled joint, evaluation only those who stand apart from others, as the official
    one does. `val` is every tenth of the training images, since the test images' labels are not public.
    """
    path, image_path = config.annotation_path(root), config.image_path(root)
    file = load_mpii(path, None if config.head_sizes is None else root / config.head_sizes)
    folder = ImageFolder(image_path, config.title)
    labelled = config.labelled_skeleton(root) or MPII16
    indices = match_keypoints(config.title, labelled, skeleton)
    summary = start_summary(config.title, skeleton, labelled, config.split)
    numbers = {name: number for number, name in enumerate(file.images, start=1)}
    people, images = [], {}
    for person_id, person in enumerate(file.people, start=1):
        number, box = numbers[person.image], person.box
        if not in_split(number - 1, config.split):
            continue
        if box is None or not (training or person.alone):
            summary.left_out[
                "without centre and scale" if box is None else "close to others (not measured officially)"
            ] += 1
            continue
        # There are no masks: as for LSP, but a person of one joint has no extent.
        area = AREA_OF_BOX * (box_area(padded_boxes(person.points[None])).item() or box_area(box).item())
        images[number] = {"id": number, "file_name": person.image}
        keypoints, head = map_keypoints(person.points, indices), person.head_size
        people.append(PoseAnnotation(folder(person.image), box, keypoints, number, person_id, area, head_size=head))
    return labelled_dataset(summary, people, images.values(), skeleton)
