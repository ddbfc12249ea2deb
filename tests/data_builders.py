"""Small data sets on disk for the tests of this room."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.io import savemat

from leanpose.data.annotations import PoseAnnotation, PoseDataset
from leanpose.data.ground_truth import coco_category
from leanpose.data.pack_file import PackConfig, PackFile
from leanpose.data.pack_writer import pack_people
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data.wholebody import split_parts
from leanpose.skeleton import COCO17, Skeleton

HEIGHT, WIDTH = 120, 160

# A person seen from the front, in a box of 40 × 100 pixels at the origin, in COCO's order.
STANDING = np.array(
    [
        [20, 8], [23, 5], [17, 5], [26, 7], [14, 7], [30, 22], [10, 22], [34, 40], [6, 40], [35, 55], [5, 55],
        [26, 55], [14, 55], [27, 75], [13, 75], [27, 95], [13, 95],
    ],
    np.float64,
)  # fmt: skip


def make_image(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth random RGB image: it survives JPEG, and each looks different."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image: np.ndarray, suffix: str = ".jpg", quality: int = 95) -> bytes:
    """The bytes of an RGB image."""
    done, data = cv2.imencode(suffix, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else [])
    assert done
    return data.tobytes()


def person(number: int, image_id: int, x: float = 50.0, y: float = 10.0, **changes: Any) -> dict[str, Any]:
    """A COCO annotation of `STANDING` moved to (x, y), all visible."""
    points = np.concatenate([STANDING + np.array([x, y]), np.full((17, 1), 2.0)], axis=1)
    record = {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [x, y, 40.0, 100.0],
        "area": 2000.0,
        "num_keypoints": 17,
        "keypoints": points.reshape(-1).tolist(),
    }
    record.update(changes)
    return record


def whole_person(number: int, image_id: int, **changes: Any) -> dict[str, Any]:
    """A person with every part labelled; point k of the 133 lies at (40 + k / 2, 20 + k / 2)."""
    points = np.stack([40 + np.arange(133) / 2, 20 + np.arange(133) / 2, np.full(133, 2)], axis=1)
    return person(number, image_id, **{**split_parts(points), "bbox": [10, 5, 140, 110], **changes})


def coco_content(images: int, people: list[dict[str, Any]], skeleton: Skeleton = COCO17) -> dict[str, Any]:
    """A COCO file's content with images 1 … `images`."""
    records = [{"id": i, "file_name": f"{i:04d}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(1, images + 1)]
    return {"images": records, "annotations": people, "categories": [coco_category(skeleton)]}


def write_coco(folder: Path, images: int = 3, people: list[dict[str, Any]] | None = None, first_seed: int = 0) -> Path:
    """A folder with `images/` and `annotations.json`, one person an image unless given. Returns the JSON's path."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i in range(1, images + 1):
        (folder / "images" / f"{i:04d}.jpg").write_bytes(encoded(make_image(first_seed + i)))
    content = coco_content(images, [person(i, i) for i in range(1, images + 1)] if people is None else people)
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the content of a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def read_coco_folder(folder: Path, skeleton: Skeleton = COCO17) -> list[PoseAnnotation]:
    """The people to train on of a folder that `write_coco` has made."""
    source = DatasetConfig(format="coco", images=folder / "images", annotations=folder / "annotations.json")
    return read_people(source, skeleton, training=True).people


def pack(
    people: list[PoseAnnotation], config: PackConfig, path: Path, skeleton: Skeleton = COCO17, **how: Any
) -> PackFile:
    """A pack of these people."""
    return pack_people([PoseDataset("people", people)], skeleton, config, path, **how)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """An uncompressed archive."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def write_lsp(folder: Path, people: int = 20) -> Path:
    """An LSP folder; joint k of person n is (n + k, 2 k), every seventh occluded. Returns the joint file."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    joints = np.zeros((3, 14, people))
    for n in range(people):
        joints[0, :, n] = n + np.arange(14)
        joints[1, :, n] = 2 * np.arange(14)
        joints[2, ::7, n] = 1
        (folder / "images" / f"im{n + 1:04d}.jpg").write_bytes(encoded(make_image(1000 + n)))
    savemat(folder / "joints.mat", {"joints": joints})
    return folder / "joints.mat"


# Person n of MPII, in the order of mpii16 and MATLAB's pixels (from 1): a STANDING person with pelvis, thorax, neck and head.
MPII_STANDING = np.array(
    [
        [13, 95], [13, 75], [14, 55], [26, 55], [27, 75], [27, 95], [20, 55], [20, 22], [20, 20], [20, 0],
        [5, 55], [6, 40], [10, 22], [30, 22], [34, 40], [35, 55],
    ],
    np.float64,
)  # fmt: skip


def mpii_record(image: str, x: float = 50.0, y: float = 11.0, **changes: Any) -> dict[str, Any]:
    """A person of MPII's common JSON; its `center` and `scale` make a box of 100 pixels around it."""
    record = {
        "image": image,
        "center": [x + 20.0, y + 47.5 - 15 * 0.5],
        "scale": 0.5,
        "joints": (MPII_STANDING + np.array([x, y])).tolist(),
        "joints_vis": [1] * 16,
    }
    return {**record, **changes}


def write_mpii_json(folder: Path, people: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """A folder with `images/` and `people.json`, one person an image. Returns the JSON's path."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = [f"{n:09d}.jpg" for n in range(1, people + 1)]
    for n, name in enumerate(names):
        (folder / "images" / name).write_bytes(encoded(make_image(500 + n, *size)))
    (folder / "people.json").write_text(json.dumps([mpii_record(name, x=40.0 + n) for n, name in enumerate(names)]))
    return folder / "people.json"


def structs(rows: list[dict[str, Any]]) -> np.ndarray:
    """A MATLAB struct array; a field that a row lacks is empty, as MATLAB has it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    array = np.empty(len(rows), dtype=[(name, object) for name in names])
    for i, row in enumerate(rows):
        for name in names:
            array[name][i] = row.get(name, np.zeros((0, 0)))
    return array


def mpii_person(
    x: float = 50.0, y: float = 11.0, ids: Any = range(16), hidden: Any = (), **changes: Any
) -> dict[str, Any]:
    """An `annorect` of MPII's MATLAB file, with a head rectangle of 12 × 16 pixels (a head size of 12)."""
    points = [
        {"x": MPII_STANDING[k, 0] + x, "y": MPII_STANDING[k, 1] + y, "id": k}
        | ({} if k in (8, 9) else {"is_visible": 0 if k in hidden else "1"})
        for k in ids
    ]
    record = mpii_record("", x, y)
    place = structs([dict(zip("xy", record["center"], strict=True))])
    return {
        "x1": x + 14, "y1": y + 2, "x2": x + 26, "y2": y + 18, "annopoints": structs([{"point": structs(points)}]),
        "scale": record["scale"], "objpos": place, **changes,
    }  # fmt: skip


def write_mpii_mat(
    folder: Path, images: list[list[dict[str, Any]]], train: list[int] | None = None, apart: list[Any] | None = None
) -> Path:
    """MPII's MATLAB file of images with these `annorect`s, and the images. Returns the file's path."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    entries = []
    for n, people in enumerate(images, start=1):
        (folder / "images" / f"{n:09d}.jpg").write_bytes(encoded(make_image(600 + n)))
        rectangles = structs(people) if people else np.zeros((0, 0))
        entries.append({"image": structs([{"name": f"{n:09d}.jpg"}]), "annorect": rectangles, "vididx": 1})
    cells = np.empty((len(images), 1), object)
    for n, chosen in enumerate(apart or [list(range(1, len(people) + 1)) for people in images]):
        cells[n, 0] = np.array(chosen, np.float64).reshape(-1, 1)
    release = {
        "annolist": structs(entries).reshape(1, -1),
        "img_train": np.array([train or [1] * len(images)], np.uint8),
        "version": "12",
        "single_person": cells,
    }
    savemat(folder / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release})
    return folder / "mpii_human_pose_v1_u12_1.mat"
