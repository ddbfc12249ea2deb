"""What can be wrong with a data set, and how bad each thing is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from leanpose.data.sample import ImageRef
from leanpose.skeleton import Skeleton

Level = Literal["broken", "odd", "suspect"]

KINDS: dict[str, tuple[Level, str]] = {
    "file": ("broken", "annotation file that cannot be used"),
    "image missing": ("broken", "image that is not there"),
    "image broken": ("broken", "image that cannot be decoded"),
    "image id": ("broken", "person of an image that the file does not list"),
    "id twice": ("broken", "id that two images or two people share"),
    "keypoint count": ("broken", "person whose number of keypoints does not fit the skeleton"),
    "visibility": ("broken", "visibility flag other than 0, 1, 2"),
    "not finite": ("broken", "coordinate that is no finite number"),
    "box": ("broken", "box without extent or outside its image"),
    "split leak": ("broken", "image that is in two splits"),
    "image size": ("odd", "image whose size differs from the annotated one"),
    "box over edge": ("odd", "box that reaches over the image's edge"),
    "keypoint outside": ("odd", "labelled keypoint outside its image"),
    "keypoint off box": ("odd", "labelled keypoint far outside its person's box"),
    "keypoint total": ("odd", "num_keypoints that differs from the labelled ones"),
    "part": ("odd", "part whose flag or box contradicts its keypoints"),
    "image twice": ("odd", "image that occurs twice"),
    "left/right": ("suspect", "left and right that look exchanged"),
}
"""Every kind of finding: its level, and what one such thing is. `broken` things stop or spoil training, `odd` ones are
worth a look, `suspects` may be right."""


@dataclass(frozen=True)
class Person:
    """One annotated person as the checks see it.

    Attributes:
        number: the annotation's id.
        image_id: of its image.
        points: x, y, visibility as the file has them; None where their number does not fit.
        box: xywh as the file has it; None where the format has none.
    """

    number: int
    image_id: int
    points: Float[np.ndarray, "K 3"] | None
    box: list[float] | None


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: a key of `KINDS`.
        file: the annotation file.
        text: what exactly, as a sentence fragment that names the place.
        image: to look at, where there is one.
        person: whom it concerns.
    """

    kind: str
    file: Path
    text: str
    image: ImageRef | None = None
    person: Person | None = None

    @property
    def level(self) -> Level:
        return KINDS[self.kind][0]


@dataclass
class CheckedSet:
    """One annotation file and its images.

    Attributes:
        file: the annotation file.
        format: `coco`, `coco_wholebody`, `lsp` or `mpii`.
        skeleton: what it labels.
        images: image id → reference; empty where the images were not found.
        sizes: image id → annotated (width, height).
        people: all of them but crowds.
        source: where the images were found.
    """

    file: Path
    format: str
    skeleton: Skeleton
    images: dict[int, ImageRef]
    sizes: dict[int, tuple[float, float]]
    people: list[Person]
    source: Path | None = None


@dataclass
class CheckReport:
    """The result of a check.

    Attributes:
        sets: the annotation files that were read.
        findings: everything that is wrong, in the order in which it was found.
        skipped: files that hold no keypoints, with the reason.
    """

    sets: list[CheckedSet] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)

    def count(self, level: Level, file: Path | None = None) -> int:
        """How many findings there are of a level, of one file or of all."""
        return sum(f.level == level and file in (None, f.file) for f in self.findings)
