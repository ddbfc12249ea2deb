"""Plain CSV: a row per keypoint, with the columns `file`, `person`, `name`, `x`, `y` (pixels) and, if there is one,
`visible`.

`visible` is 0 not labelled, 1 or `false` hidden, 2 or `true` visible; without the column, or where it is empty, a point
with numbers is visible. Columns are separated by commas, or else by semicolons or tabs, and then numbers may have
decimal commas.
"""

from __future__ import annotations

import csv
from pathlib import Path

from leanpose.data.label_set import LabelledImage, LabelSet, LabelSetBuilder, NamedPoints
from leanpose.data.records import record_errors
from leanpose.data.sniffing import FileContent
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import from_cell, open_whole, read_errors, read_regular, to_cell

CANNOT_HOLD = ("limbs", "area", "crowd", "box", "split", "category", "image without people", "image size")
COLUMNS = ("file", "person", "name", "x", "y")


_FLAGS = {"true": "2", "yes": "2", "false": "1", "no": "1"}  # `visible` in words


def _separator(heading: str) -> str:
    """What separates the columns of a table: what its heading has most of."""
    return max(",;\t", key=heading.count)


def is_csv_table(file: FileContent) -> bool:
    """Whether a file is such a table."""
    columns = file.first_lines[0].lower().split(_separator(file.first_lines[0])) if file.first_lines else []
    return file.path.suffix == ".csv" and {"file", "name", "x", "y"} <= {
        column.strip().strip('"') for column in columns
    }


def load_csv_table(path: Path) -> LabelSet:
    """The labels of a table. A person is told from others of its image by `person`; without that column there is one an
    image.

    Raises:
        LeanposeError: it is missing, lacks a column, or a row is garbled.
    """
    with read_errors("table", path, csv.Error, UnicodeDecodeError, kind="no CSV in UTF-8"):
        text = read_regular(path).decode("utf-8-sig")
    lines = text.splitlines()
    separator = _separator(lines[0]) if lines else ","
    rows = csv.DictReader(lines, delimiter=separator)
    columns = {str(name).strip().lower(): name for name in rows.fieldnames or []}
    if len(columns) < len(rows.fieldnames or []):
        raise LeanposeError(f"{path} has two columns of one name: {', '.join(map(str, rows.fieldnames or []))}.")
    for column in COLUMNS:
        if column not in columns and column != "person":
            raise LeanposeError(f"{path} has no column '{column}'; {did_you_mean(column, columns)}")
    images: dict[str, int] = {}
    people: dict[tuple[str, str], NamedPoints] = {}
    names: dict[str, None] = {}
    for number, row in enumerate(rows, start=2):
        with record_errors(f"Line {number} of {path}"):
            if None in row or None in row.values():  # such as a decimal comma, which would move all that follows
                count = sum(field is not None for field in row.values()) + len(row.get(None, ())) - (None in row)
                raise ValueError(f"{count} fields instead of {len(rows.fieldnames or [])}")
            value = {column: from_cell(row[name].strip()) for column, name in columns.items()}
            image = images.setdefault(value["file"], len(images))
            person = people.setdefault((value["file"], value.get("person", "")), NamedPoints(image))
            if value["name"] in person.points:
                raise ValueError(f"a second '{value['name']}' of one person")
            names[value["name"]] = None
            if separator != ",":
                value |= {axis: value[axis].replace(",", ".") for axis in "xy"}
            flag = _FLAGS.get(value.get("visible", "").lower(), value.get("visible"))
            visibility = float(flag or 2) if value["x"] and value["y"] else 0.0
            if visibility not in (0, 1, 2):
                raise ValueError(f"visible is 0, 1 or 2, not {value['visible']}")
            position = (float(value["x"]), float(value["y"])) if visibility > 0 else (0.0, 0.0)
            person.points[value["name"]] = (*position, visibility)
    labels = LabelSetBuilder(path, [LabelledImage(name) for name in images], list(people.values()))
    return labels.build(names)


def write_csv_table(labels: LabelSet, path: Path) -> None:
    """Write a row per keypoint of all people, including unlabelled ones."""
    with open_whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, "visible"])
        for number, person in enumerate(labels.people, start=1):
            for name, (x, y, visibility) in zip(labels.skeleton.keypoints, person.points.tolist(), strict=True):
                position = [f"{x:.4f}", f"{y:.4f}"] if visibility > 0 else ["", ""]
                writer.writerow(
                    [to_cell(labels.images[person.image].name), number, to_cell(name), *position, int(visibility)]
                )
