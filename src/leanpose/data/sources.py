"""Where people come from: one description for every kind of data set, and one function that reads it."""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leanpose.data.images import tar_members
from leanpose.data.sample import ImageRef, PoseDataset
from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton, get_skeleton

Split = Literal["all", "train", "val"]

PLUGIN_READERS = {"synthetic": "leanpose.synthetic.dataset:read_synthetic"}
"""Readers that stand above this package and are therefore named, not imported: (source, skeleton, root) -> people."""


class DatasetConfig(BaseModel):
    """A data set, as a recipe names it.

    Attributes:
        format: `coco` (any COCO keypoint JSON), `coco_wholebody` (with feet, face and hands in fields of their own), `ubody`
            (the same, a file a scene), `crowdpose`, `lsp` (MATLAB joints), `mpii` (its MATLAB file or the common JSON),
            `synthetic`; for classifiers `image_folder` (`images` holds a folder for each class).
        name: for messages and reports; otherwise the annotation file's name.
        images: a folder or an uncompressed `.tar` archive.
        annotations: the JSON or `.mat` file; of `ubody` also the folder of the scenes' folders.
        boxes: COCO result file of a person detector: validation then uses its boxes instead of the labelled ones.
        split: for sets without a split of their own: `val` is every tenth image, `train` the others. Of `ubody` it is every
            tenth video, or those of `split_list`.
        split_list: of `ubody`: the `.npy` file that names the videos of `val`.
        head_sizes: of `mpii` as JSON: a JSON list with `image` and `head_size`; without it PCKh goes by the head's two points.
        every: of `ubody`: take only every so many frames.
        repeat: how many times a training epoch goes through this set.
        skeleton: what the file labels, by name or YAML; otherwise the file's own keypoint names decide.
        count, seed, size, poses: of the images (height, width) that `synthetic` draws; all kinds of poses when empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["coco", "coco_wholebody", "ubody", "crowdpose", "lsp", "mpii", "synthetic", "image_folder"]
    name: str | None = None
    images: Path | None = None
    annotations: Path | None = None
    boxes: Path | None = None
    split: Split = "all"
    split_list: Path | None = None
    head_sizes: Path | None = None
    every: int = Field(default=1, ge=1)
    repeat: int = Field(default=1, ge=1)
    skeleton: str | None = None
    count: int = Field(default=1000, ge=1)
    seed: int = Field(default=0, ge=0)
    size: tuple[int, int] = (256, 192)
    poses: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_paths(self) -> DatasetConfig:
        if self.format == "image_folder":
            if self.images is None or self.annotations is not None:
                raise ValueError(
                    "a data set of format 'image_folder' needs `images`, the folder of the classes' folders, alone"
                )
            if self.repeat != 1 or self.skeleton is not None:
                raise ValueError("`repeat` and `skeleton` are for people, not for the format 'image_folder'")
        elif self.format != "synthetic" and (self.images is None or self.annotations is None):
            raise ValueError(f"a data set of format '{self.format}' needs both `images` and `annotations`")
        if self.boxes is not None and self.format not in ("coco", "coco_wholebody", "crowdpose"):
            raise ValueError(f"`boxes` of a detector are read for COCO's formats, not for '{self.format}'")
        if self.skeleton is not None and self.format in ("coco_wholebody", "ubody"):
            raise ValueError(f"`skeleton` says what a file labels; the format '{self.format}' says it already")
        if self.head_sizes is not None and self.format != "mpii":
            raise ValueError(f"`head_sizes` are for the format 'mpii', not for '{self.format}'")
        if self.format != "ubody" and (self.split_list is not None or self.every > 1):
            raise ValueError(f"`split_list` and `every` are for the format 'ubody', not for '{self.format}'")
        return self

    @property
    def title(self) -> str:
        """The name to show."""
        if self.format == "image_folder" and self.images is not None:
            return self.name or self.images.name
        return self.name or (self.annotations.stem if self.annotations else f"{self.format}_{self.count}_{self.seed}")


def read_people(source: DatasetConfig, skeleton: Skeleton, root: Path | str = ".", *, training: bool) -> PoseDataset:
    """Read a data set's people in the keypoints of `skeleton`, matched by name; what the set does not label has v = 0.

    People without a labelled keypoint and crowd regions are left out, as the papers' toolbox does in training and with
    labelled boxes alike; `ground_truth` still holds them, since OKS evaluation ignores what is found there.

    Args:
        source: the data set; its relative paths start at `root`.
        skeleton: of the model that will see the people.
        training: whether for training (`repeat` counts) or for evaluation (`boxes` count).

    Raises:
        LeanposeError: a file or folder is missing, cut off or wrong, or no person is left.
    """
    root = Path(root)
    if training and source.boxes is not None:
        raise LeanposeError(f"The data set '{source.title}' names detected boxes, but training uses the labelled ones.")
    if source.format == "image_folder":
        raise LeanposeError(
            f"The data set '{source.title}' is pictures by class (image_folder), which label no keypoints; they are for "
            f"classifiers such as deit_tiny."
        )
    if source.format in PLUGIN_READERS:
        people = pkgutil.resolve_name(PLUGIN_READERS[source.format])(source, skeleton, root)
    elif source.format == "lsp":
        from leanpose.data.lsp import read_lsp

        people = read_lsp(source, skeleton, root)
    elif source.format == "mpii":
        from leanpose.data.mpii import read_mpii

        people = read_mpii(source, skeleton, root, training=training)
    elif source.format == "ubody":
        from leanpose.data.ubody import read_ubody

        people = read_ubody(source, skeleton, root)
    else:
        from leanpose.data.coco import read_coco

        people = read_coco(source, skeleton, root)
    if not people.people:
        raise LeanposeError(
            f"The data set '{source.title}' is empty: {source.annotations} holds no person with a valid box and a "
            f"labelled keypoint."
        )
    if training and source.repeat > 1:
        return PoseDataset(people.name, people.people * source.repeat, people.ground_truth)
    return people


def source_skeleton(source: DatasetConfig, root: Path, default: Skeleton) -> Skeleton:
    """The skeleton that a set labels: the one that the source names, or `default`."""
    if source.skeleton is None:
        return default
    path = root / source.skeleton
    return get_skeleton(path if path.suffix in (".yaml", ".yml") else source.skeleton)


def match_keypoints(title: str, labelled: Skeleton, wanted: Skeleton) -> tuple[int, ...]:
    """For each keypoint of `wanted` its index among those that the set labels, or -1.

    Raises:
        LeanposeError: they have no name in common.
    """
    indices = wanted.indices_in(labelled)
    if max(indices) < 0:
        raise LeanposeError(
            f"The data set '{title}' labels {', '.join(labelled.keypoints[:4])} …; none of them is a keypoint of the "
            f"skeleton '{wanted.name}' ({', '.join(wanted.keypoints[:4])} …)."
        )
    return indices


def in_split(position: int, split: Split) -> bool:
    """Whether the image at `position` in the set's order belongs to `split`: every tenth is for validation."""
    return split == "all" or (position % 10 == 9) == (split == "val")


class ImageFolder:
    """Turns a set's file names into references, in a folder or an archive.

    Raises:
        LeanposeError: the folder or archive is not there.
    """

    def __init__(self, path: Path, title: str) -> None:
        self.path = path
        self.archive = path.suffix == ".tar"
        self.members = tar_members(path) if self.archive else {}
        # An archive may hold its images in a folder that the annotation file does not name.
        self.names = {name.rsplit("/", 1)[-1]: name for name in self.members}
        if not self.archive and not path.is_dir():
            raise LeanposeError(f"The image folder {path} of the data set '{title}' does not exist.")

    def __call__(self, file_name: str) -> ImageRef:
        if not self.archive:
            return ImageRef(str(self.path / file_name))
        if file_name in self.members:
            return ImageRef(str(self.path), file_name)
        return ImageRef(str(self.path), self.names.get(file_name.rsplit("/", 1)[-1], file_name))
