"""scikit-learn's 1,797 handwritten digits, enlarged, as a folder of images for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

SMALL = {"input_size": [32, 32], "patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 3}


def write_digits(folder: Path, train: int = 800, val: int = 200, digits: int = 10) -> Path:
    """`folder/train/DIGIT/*.png` and `folder/val/DIGIT/*.png`, 32×32 pixels; returns the folder."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    chosen = np.flatnonzero(data.target < digits)[: train + val]
    for number, i in enumerate(chosen):
        place = folder / ("train" if number < train else "val") / str(data.target[i])
        place.mkdir(parents=True, exist_ok=True)
        grey = cv2.resize((data.images[i] * (255 / 16)).astype(np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(place / f"{i:04d}.png"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    return folder


def digits_recipe(data: Path, **changes: Any) -> dict[str, Any]:
    """A recipe for `write_digits`'s folder that learns it in seconds."""
    recipe = {
        "model": "deit_tiny",
        "model_options": dict(SMALL),
        "data": {
            "root": str(data),
            "train": [{"format": "image_folder", "images": "train"}],
            "val": {"format": "image_folder", "images": "val"},
            "num_workers": 0,
        },
        "classification": {
            "area": [0.8, 1.0], "flip_probability": 0, "policy": "", "erasing_probability": 0, "mixup": 0, "cutmix": 0,
        },
        "optimizer": {"name": "muon", "lr": 3e-3, "muon_lr": 0.01, "weight_decay": 0.05},
        "schedule": {"epochs": 8, "name": "cosine", "warmup_steps": 10},
        "validation": {"interval": 8},
        "batch_size": 32,
        "precision": "fp32",
    }  # fmt: skip
    return {**recipe, **changes}
