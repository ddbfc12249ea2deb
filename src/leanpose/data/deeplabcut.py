"""DeepLabCut: `CollectedData_NAME.csv` or `.h5`, a row an image and two columns a keypoint, in pixels; empty is not
labelled.

The heading has the rows scorer, bodyparts and coords, in projects of several animals individuals too. The image is one
column, or three (`labeled-data`, video, file).
"""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.label_set import PERSON, LabelledImage, LabelSet, LabelSetBuilder, NamedPoints
from leanpose.data.records import record_errors
from leanpose.data.sniffing import FileContent
from leanpose.errors import LeanposeError
from leanpose.files import from_cell, open_whole, read_errors, read_regular, to_cell

CANNOT_HOLD = (
    "limbs",
    "area",
    "crowd",
    "box",
    "split",
    "category",
    "visibility",
    "image size",
    "person without keypoints",
)
_SINGLE = "single"
_HEADING = ("scorer", "individuals", "bodyparts", "coords")


def is_deeplabcut(file: FileContent) -> bool:
    """Whether a file is a table of labels of DeepLabCut; those of its predictions have columns of likelihoods, or other
    names."""
    if file.path.suffix in (".h5", ".hdf5"):
        return file.start.startswith(b"\x89HDF") and file.path.name.startswith("CollectedData")
    heading = file.first_lines[0].split(",")[0] if file.path.suffix == ".csv" and file.first_lines else ""
    return heading == "scorer" and b"likelihood" not in file.start


def is_prediction(file: FileContent) -> bool:
    """Whether a file is a table of what DeepLabCut predicts, with likelihoods."""
    return file.path.suffix == ".csv" and file.start.startswith(b"scorer,") and b"likelihood" in file.start


def load_deeplabcut(path: Path) -> LabelSet:
    """The labels of a table.

    Raises:
        LeanposeError: it is missing or garbled, or an HDF5 file without pandas and PyTables.
    """
    heading, rows = _hdf5_table(path) if path.suffix in (".h5", ".hdf5") else _csv_table(path)
    labels = LabelSetBuilder(path)
    columns = heading["bodyparts"]
    individuals = heading.get("individuals") or [""] * len(columns)
    with record_errors(f"{path}: a row"):
        for name, values in rows:
            if len(values) != len(columns):
                raise LeanposeError(
                    f"{path}: the row of {name[:200]} has {len(values)} numbers instead of {len(columns)}."
                )
            labels.images.append(LabelledImage(name))
            found: dict[str, dict[str, dict[str, float]]] = {}
            cells = zip(individuals, columns, heading["coords"], values, strict=True)
            for individual, point, axis, value in cells:
                found.setdefault(individual, {}).setdefault(point, {})[axis] = value
            for individual, points in found.items():
                # DeepLabCut's "single" keypoints occur once an image, such as corners of a cage.
                category = _SINGLE if individual == _SINGLE and len(found) > 1 else PERSON
                named = {
                    point: (place["x"], place["y"], 2.0)
                    for point, place in points.items()
                    if np.isfinite([place["x"], place["y"]]).all()
                }
                if named:
                    labels.people.append(NamedPoints(len(labels.images) - 1, named, category=category))
    return labels.build(columns)


def _csv_table(path: Path) -> tuple[dict[str, list[str]], list[tuple[str, list[float]]]]:
    """The rows of the heading by their names, and the images with their numbers."""
    with read_errors("table", path, csv.Error, UnicodeDecodeError, kind="no CSV in UTF-8"):
        lines = list(csv.reader(read_regular(path).decode("utf-8-sig").splitlines()))
    heading: dict[str, list[str]] = {}
    while lines and lines[0] and lines[0][0] in _HEADING:
        name, *cells = lines.pop(0)
        heading[name] = cells
    if not {"bodyparts", "coords"} <= heading.keys():
        raise LeanposeError(f"{path} is not a DeepLabCut table: its heading needs the rows bodyparts and coords.")
    first = next(i for i, axis in enumerate([*heading["coords"], "x"]) if axis in ("x", "y", "likelihood"))
    heading = {name: cells[first:] for name, cells in heading.items()}
    rows = []
    with record_errors(f"{path}: a row"):
        for line in lines:
            if line:
                image = "/".join(from_cell(cell) for cell in line[: first + 1] if cell)
                rows.append((image, [float(cell) if cell.strip() else np.nan for cell in line[first + 1 :]]))
    return heading, rows


def _hdf5_table(path: Path) -> tuple[dict[str, list[str]], list[tuple[str, list[float]]]]:
    if not all(importlib.util.find_spec(name) for name in ("pandas", "tables")):
        raise LeanposeError(
            f"{path} needs pandas and PyTables to be read (pip install 'leanpose[deeplabcut]'); the .csv that "
            "DeepLabCut writes next to it needs neither."
        )
    import pandas  # pyright: ignore[reportMissingImports]  # an extra, and heavy

    with read_errors("table", path, Exception, kind="corrupt or not a table of DeepLabCut"):
        table: Any = pandas.read_hdf(path)
    levels = [str(name) for name in table.columns.names]
    heading = {name: [str(v) for v in table.columns.get_level_values(i)] for i, name in enumerate(levels)}
    index = ["/".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in table.index]
    return heading, list(zip(index, table.to_numpy(np.float64).tolist(), strict=True))


def write_deeplabcut(labels: LabelSet, path: Path) -> None:
    """Write a CSV of one animal an image, or with individuals where an image has several."""
    by_image = [[person for person in people if person.labelled.any()] for people in labels.people_by_image()]
    most = max([1, *map(len, by_image)])
    names = labels.skeleton.keypoints
    columns = [(f"individual{i + 1}", name, axis) for i in range(most) for name in names for axis in "xy"]
    with open_whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["scorer", *["leanpose"] * len(columns)])
        if most > 1:
            writer.writerow(["individuals", *(individual for individual, _, _ in columns)])
        writer.writerow(["bodyparts", *(name for _, name, _ in columns)])
        writer.writerow(["coords", *(axis for _, _, axis in columns)])
        for image, people in zip(labels.images, by_image, strict=True):
            points = [point for person in people for point in person.points.tolist()]
            cells = [cell for x, y, v in points for cell in ((f"{x:.4f}", f"{y:.4f}") if v > 0 else ("", ""))]
            writer.writerow([to_cell(image.name), *cells, *[""] * (len(columns) - len(cells))])
