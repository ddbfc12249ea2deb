"""Finding the data sets of a folder, their formats, their splits and their images."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanpose.choices import Split
from leanpose.data.annotations import PoseDataset
from leanpose.data.deeplabcut import is_prediction
from leanpose.data.image_sources import image_source
from leanpose.data.label_set import LabelSet
from leanpose.data.mixing import distinct
from leanpose.data.readers import READERS, DatasetConfig, read_people
from leanpose.data.sniffing import FileContent
from leanpose.errors import LeanposeError
from leanpose.files import any_damage, files_below
from leanpose.schema import validate
from leanpose.skeleton import LSP14, MPII16, Skeleton, get_skeleton, join_skeletons

SUFFIXES = (".json", ".mat", ".xml", ".csv", ".h5", ".hdf5", ".slp", ".yaml", ".yml")
"""Suffixes of files that may hold labels."""

_READ = (
    "what is read is coco, coco_wholebody, cvat, csv, dlc, labelme, labelstudio, lsp, mpii, sleap, yolo (docs/data.md)"
)


def format_of(path: Path) -> str | None:
    """The format of a file of labels, or of a folder of Labelme's files; None where it is none that is known.

    Raises:
        LeanposeError: it cannot be read, or is truncated.
    """
    content = FileContent(path)
    with any_damage("file", path):
        for name, reader in READERS.items():
            if reader.recognises is not None and pkgutil.resolve_name(reader.recognises)(content):
                return name
    return None


def unknown_format(path: Path) -> str:
    """The message for a file that is of no known format."""
    if path.is_file() and is_prediction(FileContent(path)):
        return "predictions of DeepLabCut, which are no labels (those are in CollectedData_….csv)"
    if path.suffix == ".csv" and FileContent(path).start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "a table in UTF-16, which is to be saved in UTF-8"
    hint = " (a table has the columns file, person, name, x, y)" if path.suffix == ".csv" else ""
    return f"no labelled keypoints in a known format{hint}"


def label_files(path: Path) -> list[Path]:
    """The files that may hold labels: `path` itself, or those of the folder; of a YOLO data set its `data.yaml` alone,
    and of DeepLabCut's two files of one table the `.csv`.

    Raises:
        LeanposeError: there is no such path, or no such file.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise LeanposeError(f"There is no {path}.")
    files = [p for p in files_below(path) if p.suffix.lower() in SUFFIXES and p.is_file()]
    files = [file for file in files if not (file.suffix in (".h5", ".hdf5") and file.with_suffix(".csv").is_file())]
    if not files:
        kinds = ", ".join(SUFFIXES)
        raise LeanposeError(f"There is no file of labels ({kinds}) in {path}; {_READ}.")
    return files


def find_sets(path: Path) -> list[tuple[Path, str]]:
    """The files with labelled keypoints that a path means, each with its format. Labelme's files of a folder are one
    set.

    Raises:
        LeanposeError: there are none, or one is truncated.
    """
    if path.is_dir() and format_of(path) == "labelme":
        return [(path, "labelme")]
    found: dict[Path, str] = {}
    for file in label_files(path):
        kind = format_of(file)
        if kind == "labelme" and path.is_dir():
            file = file.parent
        if kind is not None:
            found[file] = kind
    if not found:
        if path.is_file():
            raise LeanposeError(f"{path} holds {unknown_format(path)}; {_READ}.")
        raise LeanposeError(f"No file with labelled keypoints is in {path}; {_READ}.")
    return list(found.items())


def load_labels(path: Path, kind: str | None = None) -> LabelSet:
    """All labels of a file.

    Args:
        kind: its format; None: detected.

    Raises:
        LeanposeError: the format is not known, or cannot be read whole.
    """
    if kind is None:
        ((path, kind),) = _only(find_sets(path), path)
    loads = READERS[kind].loads
    if loads is None:
        raise LeanposeError(f"{path} is of the format '{kind}', which is trained on but not converted.")
    with any_damage("file of labels", path):
        return pkgutil.resolve_name(loads)(path)


def _only(sets: list[tuple[Path, str]], path: Path) -> list[tuple[Path, str]]:
    if len(sets) > 1:
        names = ", ".join(file.name for file, _ in sets[:4])
        raise LeanposeError(f"{path} holds {len(sets)} sets ({names} …); name one of the files.")
    return sets


def read_auto(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read a set of unknown format; see `leanpose.data.readers.read_people`."""
    found = resolve(config, root)
    return pkgutil.resolve_name(READERS[found.format].function)(found, skeleton, root, training=training)


def resolve(config: DatasetConfig, root: Path) -> DatasetConfig:
    """A data set with its format, and the place of its images where the format needs one to be named; others as they
    are.

    Raises:
        LeanposeError: there is no data set, several, or one of a format that does not take what is given.
    """
    if config.format != "auto":
        return config
    path = config.annotation_path(root)
    if path.is_file() and path.suffix == ".json" and format_of(path) is None:
        sets = [(path, "coco")]  # the reader then names the error
    else:
        sets = find_sets(path)
    ((file, kind),) = _only(sets, path)
    values = config.model_dump(exclude_unset=True) | {"format": kind, "annotations": file.absolute()}
    if config.images is None and "images" in READERS[kind].needs:
        values["images"] = images_beside(file, path).absolute()
    return validate(DatasetConfig, values, f"{file}, which is of the format '{kind}'", prefix="data.")


def images_beside(file: Path, top: Path) -> Path:
    """Where the images of a file lie that names them.

    Args:
        top: the highest folder to look into, or the file itself.

    Raises:
        LeanposeError: they are not found.
    """
    content = FileContent(file).json
    if isinstance(content, dict):
        records = content.get("images")  # of a corrupt file anything
        records = records if isinstance(records, list) else []
        names = [str(r["file_name"]) for r in records if isinstance(r, dict) and "file_name" in r]
    elif isinstance(content, list):
        names = [str(record["image"]) for record in content if isinstance(record, dict) and "image" in record]
    else:
        names = []
    for folder in (file.parent, *file.parent.parents):
        for images in (folder / "images", folder / "images.tar", folder / f"{file.stem}.tar"):
            if images.exists() and not names:
                return images
        if folder == top or folder == top.parent:
            break
    try:
        return image_source(file, top if top.is_dir() else file.parent.parent, names)
    except LeanposeError as error:
        raise LeanposeError(
            f"The images of {file} are not found: {error}; name them (`images`) in a recipe."
        ) from error


def split_of(file: Path) -> str | None:
    """The split that a file's name or folder names: `train`, `val` or `test`."""
    match = re.search(r"(?<![a-z])(train|valid|val|test)(?![a-z])", f"{file.stem} {file.parent.name}".lower())
    return match and match.group(1).replace("valid", "val")


def training_sets(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The `data` of a recipe for the data sets in a path, and messages on what was chosen.

    Sets with `val` or `test` in their names are for evaluation, the others for training; if there are none, every tenth
    image is for evaluation.

    Raises:
        LeanposeError: there is nothing to train on, or its images are not found.
    """
    sets = find_sets(path)
    with any_damage("data set", path):
        return _training_sets(path, sets)


def _training_sets(path: Path, sets: list[tuple[Path, str]]) -> tuple[dict[str, Any], list[str]]:
    """See `training_sets`."""
    root = path if path.is_dir() else path.parent
    own = [(file, kind) for file, kind in sets if has_splits(file, kind)]
    if own:
        file, kind = own[0]
        source = _source(file, kind, root)
        sentence = f"{file} says itself what trains and what is evaluated on."
        return {"train": [source | {"split": "train"}], "val": source | {"split": "val"}, "root": str(root)}, [sentence]
    val = [each for each in sets if split_of(each[0]) in ("val", "test")]
    train = [each for each in sets if each not in val]
    if val and train:
        val_file = next((each for each in val if split_of(each[0]) == "val"), val[0])
        messages = [f"Trained on {_names(train)}, evaluated on {_names([val_file])}."]
        if others := [each for each in val if each != val_file]:
            messages.append(f"{_names(others)} is left out.")
        sources = [_source(*each, root) for each in train]
        return {"train": sources, "val": _source(*val_file, root), "root": str(root)}, messages
    sources = [_source(*each, root) for each in sets]
    messages = [
        f"{_names(sets)} has no validation set next to it: every tenth image is evaluated on, the others train."
    ]
    parts: dict[Split, list[dict[str, Any]]] = {s: [one | {"split": s} for one in sources] for s in ("train", "val")}
    return {"train": parts["train"], "val": parts["val"][0], "root": str(root)}, messages


def has_splits(file: Path, kind: str) -> bool:
    """Whether a file names its own splits."""
    if kind == "yolo":
        return bool({"train", "val"} <= FileContent(file).yaml.keys())
    return kind == "cvat" and b'subset="' in file.read_bytes()


def _source(file: Path, kind: str, root: Path) -> dict[str, Any]:
    """A set as a recipe names it, with the place of its images where the format needs it."""
    values = {"format": kind, "annotations": _below(file, root)}
    if "images" in READERS[kind].needs:
        values["images"] = _below(images_beside(file, root), root)
    return values


def _below(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path.resolve())


def _names(sets: Sequence[tuple[Path, str]]) -> str:
    return ", ".join(file.name for file, _ in sets)


def labelled_skeleton(file: Path, kind: str) -> Skeleton | None:
    """The skeleton that a file of a convertible format names; None where it names none."""
    if READERS[kind].loads is None:
        return None
    labels = load_labels(file, kind)
    return labels.skeleton if labels.named else None


def read_sets(
    paths: Sequence[Path],
    *,
    images: Path | None = None,
    skeleton: str | None = None,
    category: str | None = None,
) -> tuple[list[PoseDataset], Skeleton, list[str]]:
    """Read the data sets of files and folders that are to be packed together.

    Args:
        images, skeleton, category: as in `DatasetConfig`; `images` of a single set.

    Returns:
        The sets, in the joint skeleton of all of them; this skeleton; and a message for each file that is left out
        as a whole or in part, since it is for evaluation.

    Raises:
        LeanposeError: a set cannot be read, or there is none.
    """
    files, messages = [], []
    for path in paths:
        found = [file for file, _ in find_sets(path)]
        left_out = [file for file in found if split_of(file) in ("val", "test")] if path.is_dir() else []
        if len(left_out) == len(found):
            left_out = []
        messages += [f"{file} is left out: its name says that it is to be evaluated on." for file in left_out]
        files += [file for file in found if file not in left_out]
    if images is not None and len(files) > 1:
        raise LeanposeError(f"--images is for one set, not for {len(files)} ({', '.join(f.name for f in files[:4])}).")
    options: dict[str, Any] = {"format": "auto", "skeleton": skeleton, "category": category, "images": images}
    configs = []
    for file in files:
        values = {key: value for key, value in options.items() if value is not None} | {"annotations": file.absolute()}
        config = resolve(DatasetConfig.from_options(**values), Path())
        if has_splits(file, config.format):
            config = config.model_copy(update={"split": "train"})
            messages.append(f"{file} says itself what is evaluated on, which is left out.")
        configs.append(config)
    joined = join_skeletons([_skeleton_of(config) for config in configs])
    names = distinct([config.title for config in configs])
    sets = [
        read_people(config.model_copy(update={"name": name}), joined, Path(), training=True)
        for config, name in zip(configs, names, strict=True)
    ]
    return sets, joined, messages


def _skeleton_of(config: DatasetConfig) -> Skeleton:
    """The skeleton of a data set.

    Raises:
        LeanposeError: its file does not name its keypoints.
    """
    if config.skeleton is not None:
        return config.labelled_skeleton(Path()) or get_skeleton(config.skeleton)
    if config.format in ("lsp", "mpii"):
        return LSP14 if config.format == "lsp" else MPII16
    labels = load_labels(config.annotation_path(Path()), config.format)
    if not labels.named:
        raise LeanposeError(
            f"{labels.path} does not name its {len(labels.skeleton)} keypoints; say which --skeleton it labels."
        )
    return labels.of_category(config.category).skeleton
