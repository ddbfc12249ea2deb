"""Reading data sets: their configuration in recipes, the table of formats, and code shared by all readers."""

from __future__ import annotations

import gc
import pkgutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from leanpose.choices import SetMetric, Split
from leanpose.data.annotations import PoseAnnotation, PoseDataset, stack_keypoints
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import any_damage
from leanpose.schema import Section, validate
from leanpose.skeleton import Skeleton, get_skeleton

MAX_COORDINATE = 1e6
"""Pixels from the corner: no image is larger, and float32 still tells a tenth of a pixel there."""

EVERY_FORMAT = (
    "format",
    "name",
    "split",
    "repeat",
    "weight",
    "labelled_people",
    "labelled_keypoints",
    "keep_unlabelled",
)
"""Keys of `DatasetConfig` for all formats."""


@dataclass(frozen=True)
class Reader:
    """How data sets of one format are read.

    Attributes:
        function: `module:name` of a function (config, skeleton, root, *, training) → `PoseDataset` with one
            `DataSummary`. It is named and not imported, since readers import `DatasetConfig`, and some stand above this
            package.
        needs: keys of `DatasetConfig` that must be given.
        takes: other allowed keys, in addition to those of `EVERY_FORMAT`.
        metric: the metric of the format's official evaluation.
        recognises: for formats detected from files: a function (`FileContent`) → bool.
        loads: for formats that can be converted: a function (path) → `LabelSet`.
        writes: for formats that can be written: a function (labels, path) → None; its module's `CANNOT_HOLD` lists what
            is lost.
    """

    function: str
    needs: tuple[str, ...] = ("images", "annotations")
    takes: tuple[str, ...] = ()
    metric: SetMetric = "coco"
    recognises: str | None = None
    loads: str | None = None
    writes: str | None = None

    @property
    def keys(self) -> set[str]:
        """All keys of `DatasetConfig` for this format."""
        return {*EVERY_FORMAT, *self.needs, *self.takes}


_ANY = ("images", "skeleton", "category")


def _tool(name: str, *, read: str = "leanpose.data.label_set:read_labels", writes: bool = True) -> Reader:
    """The reader of an annotation tool's format: its module has the functions `is_NAME`, `load_NAME`, `write_NAME`."""
    recognises, loads, write = (f"leanpose.data.{name}:{kind}_{name}" for kind in ("is", "load", "write"))
    return Reader(read, ("annotations",), _ANY, "coco", recognises, loads, write if writes else None)


READERS = {
    "auto": Reader("leanpose.data.sets:read_auto", needs=("annotations",), takes=(*_ANY, "bbox_file", "head_sizes")),
    "coco": Reader(
        "leanpose.data.coco:read_coco",
        takes=("bbox_file", "skeleton", "category"),
        recognises="leanpose.data.coco_labels:is_coco",
        loads="leanpose.data.coco_labels:load_coco_labels",
        writes="leanpose.data.coco_labels:write_coco_labels",
    ),
    "coco_wholebody": Reader(
        "leanpose.data.coco:read_coco_wholebody",
        takes=("bbox_file", "empty_hidden_parts"),
        recognises="leanpose.data.coco_labels:is_coco_wholebody",
        loads="leanpose.data.coco_labels:load_coco_labels",
    ),
    "crowdpose": Reader("leanpose.data.coco:read_crowdpose", takes=("bbox_file", "skeleton"), metric="crowdpose"),
    "csv": _tool("csv_table"),
    "cvat": _tool("cvat"),
    "dlc": _tool("deeplabcut"),
    "labelme": _tool("labelme", writes=False),
    "labelstudio": _tool("label_studio"),
    "lsp": Reader("leanpose.data.lsp:read_lsp", takes=("skeleton",), recognises="leanpose.data.lsp:is_lsp"),
    "mpii": Reader(
        "leanpose.data.mpii:read_mpii",
        takes=("head_sizes", "skeleton"),
        metric="mpii",
        recognises="leanpose.data.mpii:is_mpii_file",
    ),
    "pack": Reader(
        "leanpose.data.pack:read_pack",
        needs=("annotations",),
        recognises="leanpose.data.pack:is_pack",
        loads="leanpose.data.pack:load_pack",
    ),
    "sleap": _tool("sleap", writes=False),
    "ubody": Reader("leanpose.data.ubody:read_ubody", takes=("split_list", "frame_stride")),
    "yolo": _tool("yolo", read="leanpose.data.yolo:read_yolo"),
    "synthetic": Reader(
        "leanpose.synthetic.dataset:read_synthetic", needs=(), takes=("images", "count", "seed", "size")
    ),
}
"""The formats of data sets by name: the only list of them."""


Side = Annotated[int, Field(ge=1, le=8192)]
"""Maximum side of a rendered image, in pixels."""


class DatasetConfig(Section):
    """A data set, as a recipe names it.

    Attributes:
        format: `auto` detects it from the file, or from the files of the folder; `coco` (any COCO keypoint JSON),
            `coco_wholebody` (with feet, face and hands in separate fields), `ubody` (the same, one file per scene),
            `crowdpose`, `lsp` (MATLAB joints), `mpii` (its MATLAB file or the common JSON), `yolo` (YOLO-pose: a
            `data.yaml`, and a text file next to each image), `cvat`, `labelstudio`, `labelme`, `dlc` (DeepLabCut),
            `sleap`, `csv`, `synthetic`, `pack` (of `leanpose data pack`: the crops too): see docs/data.md.
        name: for messages and reports; otherwise the annotation file's name.
        images: a folder or an uncompressed `.tar` archive; for annotation tools' formats, by default found next to the
            file.
        annotations: the annotation file; for `yolo` the `data.yaml`, for `ubody` also the folder of the scenes'
            folders, for `auto` and `labelme` also a folder of files.
        bbox_file: COCO result file of a person detector: validation then uses its boxes instead of the ground-truth
            boxes.
        split: for sets without a split of their own: `val` is every tenth image, `train` the others. For `ubody` it is
            every tenth video, or those of `split_list`.
        split_list: for `ubody`: the `.npy` file that names the videos of `val`.
        head_sizes: for `mpii` as JSON: a JSON list with `image` and `head_size`; without it PCKh uses the head's two
            points.
        empty_hidden_parts: for `coco_wholebody` and heatmap models: an unlabelled hand, face or foot whose wrist, nose
            and eyes or ankle are invisible is trained with empty heatmaps, so that the model does not hallucinate it.
        frame_stride: for `ubody`: use every N-th frame.
        repeat: number of times that the set is repeated per training epoch, which makes the epoch longer.
        weight: sampling weight of this set in a training epoch, relative to those of the others (then all sets need
            one); the epoch is as long as all people together.
        labelled_people, labelled_keypoints: in training only this fraction of the people, and of each one's keypoints,
            keeps its labels, always the same: for studies of label efficiency.
        keep_unlabelled: whether people without labels are used in training: a teacher may label them.
        skeleton: skeleton of the file, by name or YAML; by default the file's own keypoint names decide.
        category: category to read, if the file has several; by default all that have keypoints.
        count, seed, size: of the images (height, width) that `synthetic` renders.
    """

    format: str
    name: str | None = None
    images: Path | None = None
    annotations: Path | None = None
    bbox_file: Path | None = None
    split: Split = "all"
    split_list: Path | None = None
    head_sizes: Path | None = None
    empty_hidden_parts: bool = False
    frame_stride: int = Field(default=1, ge=1)
    repeat: int = Field(default=1, ge=1, le=10_000)
    weight: float | None = Field(default=None, gt=0, le=1e6)
    labelled_people: float = Field(default=1.0, ge=0, le=1)
    labelled_keypoints: float = Field(default=1.0, ge=0, le=1)
    keep_unlabelled: bool = False
    skeleton: str | None = None
    category: str | None = None
    count: int = Field(default=1000, ge=1, le=10_000_000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    size: tuple[Side, Side] = (256, 192)

    @classmethod
    def from_options(cls, **options: Any) -> DatasetConfig:
        """A data set for evaluation, from command-line options.

        Raises:
            LeanposeError: the options are not valid.
        """
        return validate(cls, options, "This cannot be measured", prefix="data.")

    @model_validator(mode="after")
    def _check_keys(self) -> DatasetConfig:
        if self.format not in READERS:
            raise ValueError(f"unknown format '{self.format}'; {did_you_mean(self.format, READERS).rstrip('.')}")
        reader = READERS[self.format]
        missing = [f"`{key}`" for key in reader.needs if getattr(self, key) is None]
        if missing:
            raise ValueError(f"a data set of format '{self.format}' needs {' and '.join(missing)}")
        for key, field in type(self).model_fields.items():
            if key not in reader.keys and getattr(self, key) != field.default:
                formats = ", ".join(name for name, other in READERS.items() if key in other.keys)
                raise ValueError(f"`{key}` is for {formats}, not for the format '{self.format}'")
        return self

    @property
    def title(self) -> str:
        """The name to show."""
        return self.name or (self.annotations.stem if self.annotations else f"{self.format}_{self.count}_{self.seed}")

    def annotation_path(self, root: Path) -> Path:
        """The annotation file or folder, of a format that needs one."""
        assert self.annotations is not None
        return root / self.annotations

    def image_path(self, root: Path) -> Path:
        """The folder or archive of images, of a format that needs one."""
        assert self.images is not None
        return root / self.images

    def labelled_skeleton(self, root: Path) -> Skeleton | None:
        """The set's skeleton, if `skeleton` is given: by name, or as a YAML file below `root`."""
        if self.skeleton is None:
            return None
        path = root / self.skeleton
        return get_skeleton(path if path.suffix in (".yaml", ".yml") else self.skeleton)


def read_people(config: DatasetConfig, skeleton: Skeleton, root: Path | str = ".", *, training: bool) -> PoseDataset:
    """Read a data set's people in the keypoints of `skeleton`, matched by name; keypoints that the set lacks have v = 0.

    People without a labelled keypoint and crowd regions are skipped, as in mmpose, in training and with ground-truth
    boxes alike; `ground_truth` still holds them, since OKS evaluation ignores predictions there.

    Args:
        config: the data set; its relative paths start at `root`.
        skeleton: of the model.
        training: whether for training (`repeat` counts) or for evaluation (`bbox_file` counts).

    Raises:
        LeanposeError: a file or folder is missing, truncated or wrong, or no person is left.
    """
    if training and config.bbox_file is not None:
        raise LeanposeError(
            f"The data set '{config.title}' has a bbox_file, which is only for evaluation; training uses ground-truth boxes."
        )
    read = pkgutil.resolve_name(READERS[config.format].function)
    source = config.title if config.annotations is None else Path(root) / config.annotations
    with _without_garbage_collection(), any_damage("data set", source):
        dataset: PoseDataset = read(config, skeleton, Path(root), training=training)
        if config.annotations is not None:
            dataset = replace(dataset, labels=Path(root) / config.annotations)
        _require_finite(dataset.people, source)
    (summary,) = dataset.summaries
    summary.count_used(stack_keypoints(dataset.people))
    if not dataset.people:
        raise LeanposeError(summary.empty_message())
    if not training:
        return dataset
    people = _hide_labels(dataset.people, config)
    if not people:
        raise LeanposeError(
            f"The data set '{config.title}' has no labels left after labelled_people and labelled_keypoints."
        )
    hidden = len(dataset.people) - len(people)
    summary.left_out["whose labels are hidden (labelled_people, labelled_keypoints)"] += hidden
    summary.count_used(stack_keypoints(people))
    return replace(dataset, people=people * config.repeat)


def _require_finite(people: Sequence[PoseAnnotation], source: object) -> None:
    """Check that all coordinates fit float32: one that overflows would spoil the whole batch.

    Raises:
        LeanposeError: those of a person do not.
    """
    if not people:
        return
    points = stack_keypoints(people).reshape(len(people), -1)
    boxes = np.stack([person.box for person in people])
    others = np.array([(person.area**0.5 if person.area >= 0 else np.nan, person.score) for person in people])
    with np.errstate(invalid="ignore"):
        wrong = [~(np.abs(values) < MAX_COORDINATE).all(axis=1) for values in (points, boxes, others)]
    for values, what in zip(wrong, ("keypoints", "box", "area or score"), strict=True):
        if values.any():
            person = people[int(np.flatnonzero(values)[0])]
            raise LeanposeError(
                f"Person {person.person_id} of image {person.image_id} ({person.image}) of {source} has a number that "
                f"cannot be right: the {what} {'is' if what != 'keypoints' else 'are'} not finite, or above {MAX_COORDINATE:g}."
            )


def _hide_labels(people: list[PoseAnnotation], config: DatasetConfig) -> list[PoseAnnotation]:
    """The people with their remaining labels; those without any only with `keep_unlabelled`."""
    if config.labelled_people == config.labelled_keypoints == 1:
        return people
    left = []
    for person in people:
        # By the person's ids, so that another order or another split hides the same labels.
        drawn = np.random.default_rng(zlib.crc32(f"{person.image_id} {person.person_id}".encode()))
        keypoints = person.keypoints.copy()
        if drawn.random() >= config.labelled_people:
            keypoints[:, 2] = 0
        keypoints[drawn.random(len(keypoints)) >= config.labelled_keypoints, 2] = 0
        if config.keep_unlabelled or (keypoints[:, 2] > 0).any():
            left.append(replace(person, keypoints=keypoints))
    return left


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Records of 100,000 people are millions of objects; garbage collection would take as long as creating them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def in_split(position: int, split: Split) -> bool:
    """Whether the image at `position` in the set's order belongs to `split`: every tenth is for validation."""
    return split == "all" or (position % 10 == 9) == (split == "val")
