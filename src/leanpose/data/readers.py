"""Where people come from: a data set as a recipe describes it, the one table of formats, and what all readers share."""

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
from leanpose.data.account import Account, empty_set
from leanpose.data.annotations import PoseAnnotation, PoseDataset
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
"""Keys of `DatasetConfig` that mean something whatever the format."""


@dataclass(frozen=True)
class Reader:
    """How data sets of one format are read.

    Attributes:
        function: `module:name` of a function (config, skeleton, root, *, training) → `PoseDataset`. It is named and not
            imported, since readers import `DatasetConfig`, and some stand above this package.
        needs: keys of `DatasetConfig` that must be given.
        takes: other keys that may be, beside those of `EVERY_FORMAT`.
        metric: what the set's official evaluation measures.
        recognises: of formats that are found out from the files: a function (`FileContent`) → bool.
        loads: of formats that can be converted: a function (path) → `LabelSet`.
        writes: of formats that can be converted to: a function (labels, path) → None; its module's `CANNOT_HOLD` says what is lost.
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
        """All keys of `DatasetConfig` that mean something to this format."""
        return {*EVERY_FORMAT, *self.needs, *self.takes}


_ANY = ("images", "skeleton", "category")


def _tool(module: str, name: str, *, writes: bool = True) -> Reader:
    """The reader of an annotation tool's format, whose module has a function of each kind."""
    functions = [f"leanpose.data.{module}:{kind}_{name}" for kind in ("read", "is", "load", "write")]
    read, recognises, loads, write = functions
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
    "csv": _tool("csv_table", "csv_table"),
    "cvat": _tool("cvat", "cvat"),
    "dlc": _tool("deeplabcut", "deeplabcut"),
    "labelme": _tool("labelme", "labelme", writes=False),
    "labelstudio": _tool("label_studio", "label_studio"),
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
    "sleap": _tool("sleap", "sleap", writes=False),
    "ubody": Reader("leanpose.data.ubody:read_ubody", takes=("split_list", "frame_stride")),
    "yolo": _tool("yolo", "yolo"),
    "synthetic": Reader(
        "leanpose.synthetic.dataset:read_synthetic", needs=(), takes=("images", "count", "seed", "size")
    ),
}
"""The formats of data sets by name: the only list of them."""


Side = Annotated[int, Field(ge=1, le=8192)]
"""Of an image that is drawn, in pixels."""


class DatasetConfig(Section):
    """A data set, as a recipe names it.

    Attributes:
        format: `auto` finds it out from the file, or from the files of the folder; `coco` (any COCO keypoint JSON), `coco_wholebody`
            (with feet, face and hands in fields of their own), `ubody` (the same, a file a scene), `crowdpose`, `lsp` (MATLAB
            joints), `mpii` (its MATLAB file or the common JSON), `yolo` (YOLO-pose: a `data.yaml`, and a text file beside each
            image), `cvat`, `labelstudio`, `labelme`, `dlc` (DeepLabCut), `sleap`, `csv`, `synthetic`, `pack` (of `leanpose data pack`: the
            crops too): see docs/data.md.
        name: for messages and reports; otherwise the annotation file's name.
        images: a folder or an uncompressed `.tar` archive; of annotation tools' formats found beside the file where not given.
        annotations: the file of labels; of `yolo` the `data.yaml`, of `ubody` also the folder of the scenes' folders, of `auto`
            and `labelme` also a folder of files.
        bbox_file: COCO result file of a person detector: validation then uses its boxes instead of the labelled ones.
        split: for sets without a split of their own: `val` is every tenth image, `train` the others. Of `ubody` it is every
            tenth video, or those of `split_list`.
        split_list: of `ubody`: the `.npy` file that names the videos of `val`.
        head_sizes: of `mpii` as JSON: a JSON list with `image` and `head_size`; without it PCKh goes by the head's two points.
        empty_hidden_parts: of `coco_wholebody`, for heatmap models: an unlabelled hand, face or foot whose wrist, nose and
            eyes or ankle nobody can see is learnt as empty heatmaps, so that the model does not invent it.
        frame_stride: of `ubody`: take only every so many frames.
        repeat: how many times a training epoch goes through this set, which makes it longer.
        weight: this set's part of a training epoch, in relation to those of the others (all of them then say it); the epoch
            stays as long as all people together.
        labelled_people, labelled_keypoints: in training only this share of the people, and of each one's keypoints, keeps its
            labels, always the same: a study of what a teacher brings back.
        keep_unlabelled: whether people without labels train, too: a teacher may label them.
        skeleton: what the file labels, by name or YAML; otherwise the file's own keypoint names decide.
        category: of files with several kinds of things: the one to read; otherwise all that have keypoints are.
        count, seed, size: of the images (height, width) that `synthetic` draws.
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
        """A data set that the command line names, to measure on.

        Raises:
            LeanposeError: the options do not describe one.
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

    def paths(self, root: Path) -> tuple[Path, Path]:
        """The annotation file, and the folder or archive of images, of a format that needs both."""
        assert self.annotations is not None
        assert self.images is not None
        return root / self.annotations, root / self.images

    def labelled_skeleton(self, root: Path) -> Skeleton | None:
        """The skeleton that the set labels, where `skeleton` says so: by name, or as a YAML file below `root`."""
        if self.skeleton is None:
            return None
        path = root / self.skeleton
        return get_skeleton(path if path.suffix in (".yaml", ".yml") else self.skeleton)


def read_people(config: DatasetConfig, skeleton: Skeleton, root: Path | str = ".", *, training: bool) -> PoseDataset:
    """Read a data set's people in the keypoints of `skeleton`, matched by name; what the set does not label has v = 0.

    People without a labelled keypoint and crowd regions are left out, as the papers' toolbox does in training and with
    labelled boxes alike; `ground_truth` still holds them, since OKS evaluation ignores what is found there.

    Args:
        config: the data set; its relative paths start at `root`.
        skeleton: of the model that will see the people.
        training: whether for training (`repeat` counts) or for evaluation (`bbox_file` counts).

    Raises:
        LeanposeError: a file or folder is missing, cut off or wrong, or no person is left.
    """
    if training and config.bbox_file is not None:
        raise LeanposeError(f"The data set '{config.title}' names detected boxes, but training uses the labelled ones.")
    read = pkgutil.resolve_name(READERS[config.format].function)
    source = config.title if config.annotations is None else Path(root) / config.annotations
    with _without_garbage_collection(), any_damage("data set", source):
        dataset: PoseDataset = read(config, skeleton, Path(root), training=training)
        dataset = _closed(dataset, skeleton)
        if config.annotations is not None:
            dataset = replace(dataset, labels=Path(root) / config.annotations)
        _require_numbers(dataset, source)
    if not dataset.people:
        raise LeanposeError(" ".join(map(empty_set, dataset.accounts)))
    if not training:
        return dataset
    people = _hide_labels(dataset.people, config)
    if not people:
        raise LeanposeError(
            f"Nobody of the data set '{config.title}' keeps a label (labelled_people, labelled_keypoints)."
        )
    (account,) = dataset.accounts
    account.left_out["whose labels are hidden (labelled_people, labelled_keypoints)"] += len(dataset.people) - len(
        people
    )
    close_account(account, people)
    return replace(dataset, people=people * config.repeat)


def _require_numbers(dataset: PoseDataset, source: object) -> None:
    """See that everybody's numbers can be computed with in float32: one that overflows would spoil the whole batch.

    Raises:
        LeanposeError: somebody's cannot.
    """
    people = dataset.people
    if not people:
        return
    points = np.stack([person.keypoints for person in people]).reshape(len(people), -1)
    boxes = np.stack([person.box for person in people])
    others = np.array([(person.area**0.5 if person.area >= 0 else np.nan, person.score) for person in people])
    with np.errstate(invalid="ignore"):
        wrong = [~(np.abs(values) < MAX_COORDINATE).all(axis=1) for values in (points, boxes, others)]
    for values, what in zip(wrong, ("keypoints", "box", "area or score"), strict=True):
        if values.any():
            person = people[int(np.flatnonzero(values)[0])]
            raise LeanposeError(
                f"Person {person.person_id} of image {person.image_id} ({person.image}) of {source} has a number that cannot be "
                f"right: the {what} {'is' if what != 'keypoints' else 'are'} not finite, or above {MAX_COORDINATE:g}."
            )


def _hide_labels(people: list[PoseAnnotation], config: DatasetConfig) -> list[PoseAnnotation]:
    """The people with the labels that a study leaves them; those whom it leaves none only where they are wanted."""
    if config.labelled_people == config.labelled_keypoints == 1:
        return people
    left = []
    for person in people:
        # By the person's own name, so that another order or another split hides the same labels.
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
    """Records of 100,000 people are millions of objects; going through them again and again takes as long as making them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _closed(dataset: PoseDataset, skeleton: Skeleton) -> PoseDataset:
    """The data set with the counts of its people and keypoints in its account."""
    account = dataset.accounts[0] if dataset.accounts else Account(dataset.name, skeleton.keypoints)
    close_account(account, dataset.people)
    return replace(dataset, accounts=(account,))


def close_account(account: Account, people: Sequence[PoseAnnotation]) -> None:
    """Enter who is used, and how many of them have each keypoint."""
    account.used = len(people)
    if people and account.noun == "people":
        points = np.stack([person.keypoints for person in people])
        account.labelled = tuple((points[..., 2] > 0).sum(axis=0).tolist())


def match_keypoints(title: str, labelled: Skeleton, skeleton: Skeleton) -> tuple[int, ...]:
    """For each keypoint of `skeleton` its index among those that the set labels, or -1.

    Raises:
        LeanposeError: they have no name in common.
    """
    indices = skeleton.indices_in(labelled)
    if max(indices) < 0:
        raise LeanposeError(
            f"The data set '{title}' labels {', '.join(labelled.keypoints[:4])} …; none of them is a keypoint of the "
            f"skeleton '{skeleton.name}' ({', '.join(skeleton.keypoints[:4])} …)."
        )
    return indices


def in_split(position: int, split: Split) -> bool:
    """Whether the image at `position` in the set's order belongs to `split`: every tenth is for validation."""
    return split == "all" or (position % 10 == 9) == (split == "val")
