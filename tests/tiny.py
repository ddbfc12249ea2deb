"""A data set and a model so small that a test can train on them: coloured squares on noise, two keypoints each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from leanpose.skeleton import COCO17

TINY_MODEL = {"input_size": [64, 48], "stem_width": 8, "stage1_width": 8, "stage1_blocks": 1, "embed_dim": 16, "depth": 1, "num_heads": 2, "head_hidden": 16}  # fmt: skip
TINY_SETTINGS = [*(f"model_options.{key}={value}" for key, value in TINY_MODEL.items()), "batch_size=4"]


def write_tiny_coco(folder: Path, people: int = 12, size: tuple[int, int] = (64, 48), seed: int = 0) -> Path:
    """A COCO data set of one person an image in coco17; returns the annotation file, beside `images/`."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    height, width = size
    for i in range(1, people + 1):
        image = rng.integers(0, 80, (height, width, 3), np.uint8)
        points = np.zeros((17, 3))
        points[:, 0], points[:, 1], points[:, 2] = rng.uniform(6, width - 6, 17), rng.uniform(6, height - 6, 17), 2
        for x, y, _ in points:
            cv2.circle(image, (round(x), round(y)), 2, (255, 255, 255), -1)
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), image)
        images.append({"id": i, "file_name": f"{i}.jpg", "height": height, "width": width})
        annotations.append(
            {
                "id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "bbox": [2, 2, width - 4, height - 4],
                "area": float((width - 4) * (height - 4)), "num_keypoints": 17, "keypoints": points.reshape(-1).tolist(),
            }
        )  # fmt: skip
    path = folder / "annotations.json"
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def tiny_recipe(data: Path, **changes: Any) -> dict[str, Any]:
    """A recipe for `write_tiny_coco`'s folder: 3 epochs of 3 steps."""
    source = {"format": "coco", "images": "images", "annotations": "annotations.json"}
    recipe = {
        "model": "sdpose_t",
        "model_options": dict(TINY_MODEL),
        "data": {"root": str(data), "train": [source], "val": source, "num_workers": 0},
        "distillation": {"method": "sdpose"},
        "schedule": {"epochs": 3, "warmup_steps": 0},
        "validation": {"interval": 2},
        "batch_size": 4,
        "precision": "fp32",
    }
    return {**recipe, **changes}


def write_tiny_recipe(path: Path, data: Path, **changes: Any) -> Path:
    """The same as a file."""
    path.write_text(yaml.safe_dump(tiny_recipe(data, **changes)))
    return path
