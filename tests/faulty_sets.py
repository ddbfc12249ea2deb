"""Data sets as people have them, drawn at random, and one fault put into each: what the doctor of `data check` must find."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_builders import STANDING, encoded, make_image
from leanpose.skeleton import COCO17, keypoint_name

HEIGHT, WIDTH, POOL = 96, 128, 20  # of the images, and how many there are

# Each body from above or in front, x to the image's right: its left is there too.
BIRD = {
    "beak": (0, -30), "left_eye": (5, -24), "right_eye": (-5, -24), "left_wing": (30, 0), "right_wing": (-30, 0),
    "tail": (0, 35), "left_foot": (10, 22), "right_foot": (-10, 22),
}  # fmt: skip
MOUSE = {
    "Nose": (0, -30), "leftEar": (12, -14), "rightEar": (-12, -14), "tailBase": (0, 25), "LHip": (9, 15), "RHip": (-9, 15)
}  # fmt: skip
DOG = {  # as AP-10K names it, seen from above
    "L_Eye": (5, -42), "R_Eye": (-5, -42), "Nose": (0, -50), "Neck": (0, -26), "Root_of_tail": (0, 34),
    "L_Shoulder": (12, -18), "L_Elbow": (17, -20), "L_F_Paw": (17, -34), "R_Shoulder": (-12, -18), "R_Elbow": (-17, -20),
    "R_F_Paw": (-17, -34), "L_Hip": (11, 26), "L_Knee": (16, 28), "L_B_Paw": (16, 42), "R_Hip": (-11, 26),
    "R_Knee": (-16, 28), "R_B_Paw": (-16, 42),
}  # fmt: skip
KEY = {"ring": (0, -30), "bow": (0, -12), "collar": (4, 8), "tip": (0, 32), "bit": (8, 26)}  # without sides
HUMAN = dict(zip(COCO17.keypoints, (STANDING - [20, 50]).tolist(), strict=True))
BODIES = (HUMAN, BIRD, MOUSE, DOG, KEY)

Content = dict[str, Any]


@dataclass(frozen=True)
class DrawnSet:
    """A generated set. `large`: with enough people for what only many can show. `sided`: with mirror pairs."""

    content: Content
    names: list[str]
    large: bool
    images: Path

    @property
    def pairs(self) -> list[tuple[int, int]]:
        spelt = [keypoint_name(name) for name in self.names]
        return [(i, spelt.index("right" + n[4:])) for i, n in enumerate(spelt) if n.startswith("left_")]


def write_pool(folder: Path) -> Path:
    """The images that all sets use, and one more."""
    folder.mkdir()
    for number in range(POOL):
        (folder / f"{number:03d}.png").write_bytes(encoded(make_image(number, HEIGHT, WIDTH), ".png"))
    return folder


def draw_set(seed: int, images: Path) -> DrawnSet:
    """A clean set: any body, 1 to 6 of it in an image, turned and slanted, some at the border, some points hidden or not labelled.
    Every fourth set is small."""
    rng = np.random.default_rng(seed)
    body, large = BODIES[seed % len(BODIES)], seed % 4 != 3
    shape = np.array(list(body.values()), np.float64)
    upright = body is HUMAN
    hidden, unlabelled = rng.choice([0.0, 0.1, 0.3]), rng.choice([0.0, 0.1, 0.25])
    crowd = int(rng.integers(5, 7)) if large else 1
    count = POOL if large else int(rng.integers(5, 9))
    people = []
    for image in range(1, count + 1):
        for _ in range(int(rng.integers(max(1, crowd - 1), crowd + 1))):
            angle = rng.normal(0, 0.25) if upright else rng.uniform(0, 2 * np.pi)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            slant = np.diag([rng.uniform(0.55, 1.0), rng.uniform(0.8, 1.1)])  # seen from a little aside
            points = (shape @ slant @ turn.T + rng.normal(0, 0.7, shape.shape)) * rng.uniform(0.4, 0.75)
            if upright and rng.random() < 0.3:  # from behind, without a face
                points[:, 0] = 2 * points[:, 0].mean() - points[:, 0]
            points += rng.uniform([15, 15], [WIDTH - 15, HEIGHT - 15])
            flags = rng.choice([0, 1, 2], len(points), p=[unlabelled, hidden, 1 - unlabelled - hidden])
            if upright:
                behind = points[5, 0] < points[6, 0]
                flags[:5] *= not behind
            inside = ((points >= 1) & (points <= [WIDTH - 2, HEIGHT - 2])).all(axis=1)
            flags[~inside] = 0
            if (flags > 0).sum() >= 3:
                people.append(_record(len(people) + 1, image, points, flags))
    records = [
        {"id": n, "file_name": f"{n - 1:03d}.png", "width": WIDTH, "height": HEIGHT} for n in range(1, count + 1)
    ]
    category = {"id": 1, "name": "thing", "keypoints": list(body)}
    content = {"images": records, "annotations": people, "categories": [category]}
    return DrawnSet(content, list(body), large, images)


def _record(number: int, image: int, points: np.ndarray, flags: np.ndarray) -> dict[str, Any]:
    low, high = np.maximum(points.min(axis=0) - 4, 0), np.minimum(points.max(axis=0) + 4, [WIDTH, HEIGHT])
    values = np.column_stack([np.where(flags[:, None] > 0, points, 0), flags]).round(2)
    return {
        "id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": [*low, *(high - low)],
        "area": float(np.prod(high - low)), "num_keypoints": int((flags > 0).sum()),
        "keypoints": values.reshape(-1).tolist(),
    }  # fmt: skip


def _points(record: dict[str, Any]) -> np.ndarray:
    return np.array(record["keypoints"]).reshape(-1, 3)


def _put(record: dict[str, Any], points: np.ndarray) -> None:
    record["keypoints"] = points.reshape(-1).tolist()
    record["num_keypoints"] = int((points[:, 2] > 0).sum())


def _each(content: Content, change: Callable[[np.ndarray], np.ndarray], every: int = 1) -> None:
    for record in content["annotations"][::every]:
        _put(record, change(_points(record)))


def _whole(drawn: DrawnSet) -> dict[str, Any]:
    """The person with the most labels, all of whose points are then labelled and inside."""
    record = max(drawn.content["annotations"], key=lambda r: r["num_keypoints"])
    shape = np.array([*next(b for b in BODIES if list(b) == drawn.names).values()]) * 0.6 + [WIDTH / 2, HEIGHT / 2]
    record.update(_record(record["id"], record["image_id"], shape, np.full(len(shape), 2)))
    return record


# Faults: each changes a copy of a clean set and returns further files, by name.


def swap_one(drawn: DrawnSet) -> None:
    record = _whole(drawn)
    points = _points(record)
    names = [keypoint_name(name) for name in drawn.names]
    for a, b in drawn.pairs:
        if names[a][5:] in ("hip", "knee", "ankle", "wing", "ear"):
            points[[a, b]] = points[[b, a]]
    _put(record, points)


def swap_pair(which: int, every: int) -> Callable[[DrawnSet], None]:
    def put(drawn: DrawnSet) -> None:
        a, b = drawn.pairs[which]

        def swap(points: np.ndarray) -> np.ndarray:
            points[[a, b]] = points[[b, a]]
            return points

        _each(drawn.content, swap, every)

    return put


def swap_some(share: float, *, whole: bool) -> Callable[[DrawnSet], None]:
    """Exchange a pair of this share of the people who have all, each time another one, or all of theirs."""

    def put(drawn: DrawnSet) -> None:
        rng, records = np.random.default_rng(5), drawn.content["annotations"]
        shown = [r for r in records if all((_points(r)[list(pair), 2] > 0).all() for pair in drawn.pairs)]
        for record in shown[: max(1, round(share * len(shown)))]:
            points = _points(record)
            for a, b in drawn.pairs if whole else [drawn.pairs[rng.integers(len(drawn.pairs))]]:
                points[[a, b]] = points[[b, a]]
            _put(record, points)

    return put


def leave_in_corner(drawn: DrawnSet) -> None:
    points = _points(drawn.content["annotations"][0])
    points[0] = 0, 0, 2
    _put(drawn.content["annotations"][0], points)


def leave_at(x: float, y: float) -> Callable[[DrawnSet], None]:
    def leave(drawn: DrawnSet) -> None:
        def put(points: np.ndarray) -> np.ndarray:
            points[-1] = x, y, 2
            return points

        _each(drawn.content, put, every=3)

    return leave


def normalize(drawn: DrawnSet) -> None:
    _each(drawn.content, lambda points: points / [WIDTH, HEIGHT, 1])


def normalize_one(drawn: DrawnSet) -> None:
    record = _whole(drawn)
    _put(record, _points(record) / [WIDTH, HEIGHT, 1])


def scale(factor: float) -> Callable[[DrawnSet], None]:
    def change(drawn: DrawnSet) -> None:
        _each(drawn.content, lambda points: points * [factor, factor, 1])
        for record in drawn.content["annotations"]:
            record["bbox"] = [value * factor for value in record["bbox"]]

    return change


def another_annotator(sigma: float, jitter: float) -> Callable[[DrawnSet], dict[str, Content]]:
    """A second file of the same people, whose labels differ by these, the first keypoint's by `jitter`."""

    def label(drawn: DrawnSet) -> dict[str, Content]:
        rng, content = np.random.default_rng(7), copy.deepcopy(drawn.content)
        for record in content["annotations"]:
            points = _points(record)
            size = np.sqrt(record["bbox"][2] * record["bbox"][3] * 0.53)
            apart = np.full(len(points), sigma)
            apart[0] = jitter
            # Along one axis a label differs from the mean by sigma / √2, and the two labels by √2 of that.
            points[:, :2] += rng.normal(0, 1, (len(points), 2)) * apart[:, None] * size
            points[points[:, 2] == 0] = 0
            _put(record, points)
        return {"second.json": content}

    return label


def label_twice(drawn: DrawnSet) -> None:
    record = copy.deepcopy(_whole(drawn))
    record["id"] = 1000
    _put(record, _points(record) + np.array([0.4, -0.3, 0]))
    drawn.content["annotations"].append(record)


def repeat_image(drawn: DrawnSet) -> None:
    drawn.content["images"].append({**drawn.content["images"][0], "id": 900, "file_name": "./000.png"})


def leak(drawn: DrawnSet) -> dict[str, Content]:
    content = copy.deepcopy(drawn.content)
    content["images"] = content["images"][:2]
    content["annotations"] = [r for r in content["annotations"] if r["image_id"] <= 2]
    return {"things_val.json": content}


def forget(drawn: DrawnSet) -> None:
    def drop(points: np.ndarray) -> np.ndarray:
        points[0] = 0
        return points

    _each(drawn.content, drop)


def label_one_side(drawn: DrawnSet) -> None:
    a, _ = drawn.pairs[-1]
    for record in drawn.content["annotations"]:
        if record["id"] % 8:
            points = _points(record)
            points[a] = 0
            _put(record, points)


def hide_all(drawn: DrawnSet) -> None:
    _each(drawn.content, lambda points: np.column_stack([points[:, :2], np.minimum(points[:, 2], 1)]))


def lose_flags(drawn: DrawnSet) -> None:
    def drop(points: np.ndarray) -> np.ndarray:
        points[np.argmax(points[:, 2] > 0), 2] = 0
        return points

    _each(drawn.content, drop)


def wrong_size(drawn: DrawnSet) -> None:
    drawn.content["images"][0].update(width=2 * WIDTH, height=2 * HEIGHT)


@dataclass(frozen=True)
class Fault:
    """A fault, and the kind of finding that it is: `needs` names what a set must have for it."""

    kind: str
    put: Callable[[DrawnSet], dict[str, Content] | None]
    needs: str = ""

    def fits(self, drawn: DrawnSet) -> bool:
        has = {"large": drawn.large, "sided": bool(drawn.pairs), "animal": drawn.names != list(HUMAN)}
        return all(has[need] for need in self.needs.split())


FAULTS = (
    Fault("left/right", swap_one, "large sided"),
    Fault("left/right", swap_some(0.01, whole=False), "large sided animal"),
    Fault("left/right", swap_some(0.1, whole=False), "large sided animal"),
    Fault("left/right", swap_some(0.2, whole=True), "large sided animal"),
    Fault("sides mixed", swap_pair(0, every=2), "large sided"),
    Fault("sides exchanged", swap_pair(-1, every=1), "large sided"),
    Fault("keypoint at corner", leave_in_corner),
    Fault("stuck", leave_at(1, 1), "large"),
    Fault("stuck", leave_at(-1, -1), "large"),
    Fault("stuck", leave_at(WIDTH, HEIGHT), "large"),
    Fault("fractions", normalize),
    Fault("person in fractions", normalize_one),
    Fault("scaled", scale(0.5), "large"),
    Fault("scaled", scale(2.0), "large"),
    Fault("jitter", another_annotator(0.02, 0.25), "large"),
    Fault("person twice", label_twice),
    Fault("image twice", repeat_image),
    Fault("split leak", leak),
    Fault("few people", leak),
    Fault("rare keypoint", forget, "large"),
    Fault("uneven sides", label_one_side, "large sided"),
    Fault("visibility habit", hide_all, "large"),
    Fault("visibility habit", lose_flags, "large"),
    Fault("image size", wrong_size),
)


def write_set(drawn: DrawnSet, folder: Path, fault: Fault | None = None) -> list[Path]:
    """The files of a set, with a fault where one is given."""
    changed = DrawnSet(copy.deepcopy(drawn.content), drawn.names, drawn.large, drawn.images)
    more = fault.put(changed) if fault is not None else None
    name = "things_train.json" if more and any("val" in name for name in more) else "things.json"
    files = []
    for file, content in {name: changed.content, **(more or {})}.items():
        (folder / file).write_text(json.dumps(content))
        files.append(folder / file)
    return files
