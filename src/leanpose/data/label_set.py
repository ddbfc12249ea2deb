"""The content of a label file in any format: images, and people with keypoints in pixels. Readers return it, writers
write it.

Boxes: a person has the box that the file gives it, by its group or else the smallest rectangle around all of its
points; without one the extent of its labelled keypoints times `BOX_PADDING` stands in for it.
"""

from __future__ import annotations

import os
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from leanpose.data.annotations import AREA_OF_BOX, ImageRef, PoseAnnotation, PoseDataset, padded_boxes
from leanpose.data.coco_boxes import note_other_sizes
from leanpose.data.ground_truth import labelled_dataset
from leanpose.data.image_folder import ImageFolder
from leanpose.data.image_sources import VideoFrames, image_source
from leanpose.data.keypoints import clean_points, map_keypoints, match_keypoints, require_pixels, skeleton_of_names
from leanpose.data.pack_file import is_pack_file
from leanpose.data.readers import READERS, DatasetConfig, in_split
from leanpose.data.summary import start_summary
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.geometry import box_area
from leanpose.skeleton import Skeleton, keypoint_name

PERSON = "person"


@dataclass(frozen=True)
class LabelledImage:
    """An image of a label file.

    Attributes:
        name: as the file has it.
        width, height: in pixels; NaN where the file does not say, or says 0 or less.
        split: `train` or `val`, where the file says it.
    """

    name: str
    width: float = float("nan")
    height: float = float("nan")
    split: str | None = None

    def __post_init__(self) -> None:
        for side in ("width", "height"):
            if not getattr(self, side) > 0:
                object.__setattr__(self, side, float("nan"))


@dataclass(frozen=True)
class LabelledPerson:
    """A person of a label file.

    Attributes:
        image: index among the images.
        points: x, y in pixels and COCO's visibility, in the file's keypoints; zeros where not labelled.
        box: xyxy; None where the file has none.
        category: its name in the file.
        area: in square pixels; NaN where the file does not say.
        crowd: whether it stands for several.
    """

    image: int
    points: Float[np.ndarray, "K 3"]
    box: Float[np.ndarray, " 4"] | None = None
    category: str = PERSON
    area: float = float("nan")
    crowd: bool = False

    @property
    def labelled(self) -> Bool[np.ndarray, " K"]:
        """Which keypoints are labelled."""
        return self.points[:, 2] > 0


@dataclass(frozen=True)
class LabelSet:
    """The content of a label file.

    Attributes:
        path: where it was read.
        skeleton: its keypoints.
        images: all of them, in the file's order.
        people: all that have keypoints.
        left_out: annotations that are skipped, by reason.
        notes: what was changed in reading, as in a `DataSummary`.
        named: whether the file names its keypoints; otherwise they are `keypoint_1` …
        located: whether the images' names are their places, below the file's folder or in the file.
        repeats: labels of the same people by further annotators, only used by the data check.
        videos: of a set whose images are frames of videos: prefix of the images' names → path of the video in the
            file.
    """

    path: Path
    skeleton: Skeleton
    images: list[LabelledImage]
    people: list[LabelledPerson]
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    named: bool = True
    located: bool = False
    repeats: list[LabelledPerson] = field(default_factory=list)
    videos: dict[str, str] = field(default_factory=dict)

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories of its people in order of appearance."""
        return tuple(dict.fromkeys(person.category for person in self.people))

    def people_by_image(self) -> list[list[LabelledPerson]]:
        """The people of each image."""
        people: list[list[LabelledPerson]] = [[] for _ in self.images]
        for person in self.people:
            people[person.image].append(person)
        return people

    @property
    def has_frames(self) -> bool:
        """Whether its images are no files but frames, of videos or in a project of SLEAP."""
        return bool(self.videos) or (self.located and self.path.suffix == ".slp")

    def arrays(self, people: Sequence[LabelledPerson]) -> tuple[Float[np.ndarray, "N K 3"], Float[np.ndarray, "N 2"]]:
        """The points of some of its people, and (width, height) of their images."""
        points = np.array([person.points for person in people], np.float64).reshape(-1, len(self.skeleton), 3)
        sizes = [(self.images[person.image].width, self.images[person.image].height) for person in people]
        return points, np.array(sizes).reshape(-1, 2)

    def of_category(self, category: str | None) -> LabelSet:
        """The people of one category alone.

        Raises:
            LeanposeError: there is none of that name.
        """
        if category is None:
            return self
        if category not in self.categories:
            raise LeanposeError(f"{self.path} has no category '{category}'; {did_you_mean(category, self.categories)}")
        others = Counter(f"of another category ({p.category})" for p in self.people if p.category != category)
        people = [person for person in self.people if person.category == category]
        return replace(self, people=people, left_out=self.left_out + others)

    def relabelled(self, skeleton: Skeleton | None) -> LabelSet:
        """The same with the keypoints of a skeleton that is known better: in its order by name, or where the file names
        none, one for one.

        Raises:
            LeanposeError: the file has no names and another number of keypoints, or no name in common.
        """
        if skeleton is None:
            return self
        if not self.named:
            if len(skeleton) != len(self.skeleton):
                raise LeanposeError(
                    f"{self.path} has {len(self.skeleton)} keypoints without names, '{skeleton.name}' has {len(skeleton)}."
                )
            return replace(self, skeleton=skeleton, named=True)
        indices = match_keypoints(self.path.stem, self.skeleton, skeleton)
        notes, missing = Counter(self.notes), sorted({*range(len(self.skeleton))} - {*indices})
        lost = sum(int(person.labelled[missing].sum()) for person in self.people)
        names = ", ".join(self.skeleton.keypoints[place] for place in missing[:3])
        notes[
            f"labels of keypoints that '{skeleton.name}' lacks ({names}{', …' * (len(missing) > 3)}) are left out"
        ] = lost
        people, repeats = (
            [replace(person, points=map_keypoints(person.points, indices).astype(np.float64)) for person in some]
            for some in (self.people, self.repeats)
        )
        return replace(self, skeleton=skeleton, people=people, repeats=repeats, notes=notes)


def read_labels(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read a data set in the format of an annotation tool; see `leanpose.data.readers.read_people`."""
    load = READERS[config.format].loads
    assert load is not None
    return dataset_of(pkgutil.resolve_name(load)(config.annotation_path(root)), config, skeleton, root)


def dataset_of(labels: LabelSet, config: DatasetConfig, skeleton: Skeleton, root: Path) -> PoseDataset:
    """A data set of the people of a label file, in the keypoints of a model.

    Raises:
        LeanposeError: the images are not found, the file labels no keypoint of the skeleton or names none, or its
            coordinates are fractions.
    """
    given = config.labelled_skeleton(root)
    if not labels.named and given is None:
        raise LeanposeError(
            f"{labels.path} does not name its {len(labels.skeleton)} keypoints; say which `skeleton` it labels."
        )
    labels = labels.of_category(config.category)
    labels = labels.relabelled(given) if not labels.named else labels
    summary = start_summary(config.title, skeleton, labels.skeleton, config.split)
    summary.add(labels.left_out, labels.notes, labels.categories)
    if not labels.people:
        raise LeanposeError(summary.empty_message())
    indices = match_keypoints(config.title, labels.skeleton, skeleton)
    find = images_of(labels, None if config.images is None else root / config.images, config.title)
    has_splits = any(image.split for image in labels.images)
    wanted = [
        (image.split == config.split or config.split == "all") if has_splits else in_split(number, config.split)
        for number, image in enumerate(labels.images)
    ]
    chosen = [person for person in labels.people if wanted[person.image]]
    raw, sizes = labels.arrays(chosen)
    require_pixels(raw, sizes, labels.path)
    points = clean_points(raw, sizes, summary.notes)
    targets, made = map_keypoints(points, indices), padded_boxes(points)
    people, annotated = [], []
    for number, person in enumerate(chosen):
        if person.crowd:
            summary.left_out["of a crowd"] += 1
            continue
        box = made[number] if person.box is None else person.box
        if person.box is None:
            summary.notes["boxes are missing and made from the keypoints"] += 1
        area = person.area if person.area > 0 else float(box_area(box)) * (AREA_OF_BOX if person.box is None else 1.0)
        ref = find(labels.images[person.image].name)
        annotated.append((ref, labels.images[person.image].width, labels.images[person.image].height))
        people.append(PoseAnnotation(ref, box, targets[number], person.image + 1, number + 1, area))
    if isinstance(find, (ImageFolder, VideoFrames)):
        summary.notes.update(find.notes)
    if isinstance(find, VideoFrames):
        summary.notes["images are frames of videos, which a pack (`data.cache`) decodes only once"] += len(
            {person.image for person in people}
        )
    note_other_sizes(annotated, summary.notes)
    images = [
        {"id": number + 1, "file_name": image.name} | size_fields(image)
        for number, image in enumerate(labels.images)
        if wanted[number]
    ]
    return labelled_dataset(summary, people, images, skeleton)


def images_of(labels: LabelSet, source: Path | None, title: str) -> Callable[[str], ImageRef]:
    """A function that finds the images of a label set by their names.

    Args:
        source: their folder or archive, or that of the videos; None: as the file says, or whatever lies next to it.
        title: of the data set, for messages.

    Raises:
        LeanposeError: they are not found.
    """
    folder = labels.path if labels.path.is_dir() else labels.path.parent
    if labels.videos:
        return VideoFrames(labels.videos, labels.path, source)
    if labels.located and source is None and (labels.has_frames or is_pack_file(labels.path)):
        return lambda name: ImageRef(str(labels.path), name)
    if labels.located and source is None:
        return lambda name: ImageRef(os.path.join(folder, name))
    names = [image.name for image in labels.images]
    if source is None:
        try:
            source = image_source(folder / labels.path.name, folder, names)
        except LeanposeError as error:
            raise LeanposeError(
                f"The images of {labels.path} are not found: {error}; say where `images` are."
            ) from error
    return ImageFolder(source, title, names)


def size_fields(image: LabelledImage) -> dict[str, Any]:
    """`width` and `height` of an image's COCO record, where they are known."""
    sizes = {"width": image.width, "height": image.height}
    return {side: int(value) for side, value in sizes.items() if np.isfinite(value)}


@dataclass
class NamedPoints:
    """The points of one person of a file that lists points one by one.

    Attributes:
        image: index of the image.
        points: name → x, y, visibility.
        group: the file's id of the person, by which it is matched with its box.
    """

    image: int
    points: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    group: Any = None
    category: str = PERSON


@dataclass(frozen=True)
class Rectangle:
    """A rectangle of an image that may be a person's box."""

    image: int
    xyxy: tuple[float, float, float, float]
    group: Any = None
    category: str = PERSON


@dataclass
class LabelSetBuilder:
    """Collects the content of a file that lists points and rectangles one by one.

    Attributes:
        path, images, left_out, notes: as in `LabelSet`.
        people: with their points by name.
        rectangles: that may be people's boxes.
    """

    path: Path
    images: list[LabelledImage] = field(default_factory=list)
    people: list[NamedPoints] = field(default_factory=list)
    rectangles: list[Rectangle] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def build(self, names: Iterable[str] | None = None) -> LabelSet:
        """The label set of everything that was collected.

        Args:
            names: of the keypoints, in their order; by default those that occur, in order of appearance.
        """
        names = names or [name for person in self.people for name in person.points]
        skeleton = skeleton_of_names(dict.fromkeys(map(keypoint_name, names)) or ["nothing"], self.path.stem)
        places = {keypoint_name(name): i for i, name in enumerate(skeleton.keypoints)}
        boxes = _boxes_of(self.people, self.rectangles)
        people = []
        for person, box in zip(self.people, boxes, strict=True):
            points = np.zeros((len(skeleton), 3))
            for name, (x, y, visibility) in person.points.items():
                if visibility > 0:
                    points[places[keypoint_name(name)]] = x, y, visibility
            category = box.category if box is not None and person.category == PERSON else person.category
            corners = None if box is None else np.array(box.xyxy, np.float64)
            people.append(LabelledPerson(person.image, points, corners, category))
        unused = len(self.rectangles) - sum(box is not None for box in boxes)
        left_out = self.left_out + Counter({"a rectangle without keypoints": unused})
        return LabelSet(self.path, skeleton, self.images, people, left_out, +self.notes)


def _boxes_of(people: Sequence[NamedPoints], rectangles: Sequence[Rectangle]) -> list[Rectangle | None]:
    """Each person's box: of its group, or else the smallest free rectangle around all of its labelled points."""
    by_group = {(r.image, r.group): r for r in rectangles if r.group is not None}
    boxes = [by_group.get((p.image, p.group)) if p.group is not None else None for p in people]
    taken = {id(box) for box in boxes if box is not None}
    of_image: dict[int, list[Rectangle]] = {}
    for rectangle in rectangles:
        if id(rectangle) not in taken:
            of_image.setdefault(rectangle.image, []).append(rectangle)
    for number, person in enumerate(people):
        free = [r for r in of_image.get(person.image, []) if id(r) not in taken and _holds(r, person)]
        if boxes[number] is None and free:
            boxes[number] = min(free, key=lambda r: (r.xyxy[2] - r.xyxy[0]) * (r.xyxy[3] - r.xyxy[1]))
            taken.add(id(boxes[number]))
    return boxes


def _holds(rectangle: Rectangle, person: NamedPoints) -> bool:
    x1, y1, x2, y2 = rectangle.xyxy
    labelled = [(x, y) for x, y, v in person.points.values() if v > 0]
    return bool(labelled) and all(x1 <= x <= x2 and y1 <= y <= y2 for x, y in labelled)
