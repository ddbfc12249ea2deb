"""Small data sets on disk for the tests of this room."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.io import savemat

from leanpose.data.coco import coco_category
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


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth random RGB picture: it survives JPEG, and each looks different."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image: np.ndarray, suffix: str = ".jpg", quality: int = 95) -> bytes:
    """The bytes of an RGB picture."""
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
        (folder / "images" / f"{i:04d}.jpg").write_bytes(encoded(picture(first_seed + i)))
    content = coco_content(images, [person(i, i) for i in range(1, images + 1)] if people is None else people)
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"


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
        (folder / "images" / f"im{n + 1:04d}.jpg").write_bytes(encoded(picture(1000 + n)))
    savemat(folder / "joints.mat", {"joints": joints})
    return folder / "joints.mat"
