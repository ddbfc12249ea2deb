"""SDPose's Table 9 in small: scikit-learn's digits, a DeiT of a few layers, plain, with 2 cycles, and
distilled from its second cycle.

    python benchmarks/deit_digits.py --seeds 3 --out runs/digits

Prints the top-1 accuracy of each run on 450 held-back digits and the mean of each row; needs scikit-learn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from leanpose.classification.data import read_class_folder
from leanpose.classification.deit import load_classifier
from leanpose.classification.evaluate import evaluate_classes
from leanpose.training.recipe import parse_recipe
from leanpose.training.train import train

ROWS: dict[str, dict[str, Any]] = {
    "plain": {"model": "deit_tiny"},
    "2 cycles, last measured": {
        "model": "sdpose_deit_tiny",
        "distillation": {"method": "sdpose", "keypoint_token_weight": 0, "visual_token_weight": 0, "supervise": "last"},
        "validation": {"interval": 1000, "cycle": "last"},
    },
    "SDPose, first measured": {"model": "sdpose_deit_tiny", "distillation": {"method": "sdpose"}},
}


def write_digits(folder: Path) -> None:
    """All 1,797 digits, enlarged from 8×8 to 32×32 pixels; every fourth is held back."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    for i, (image, digit) in enumerate(zip(data.images, data.target, strict=True)):
        place = folder / ("val" if i % 4 == 3 else "train") / str(digit)
        place.mkdir(parents=True, exist_ok=True)
        grey = cv2.resize((image * (255 / 16)).astype(np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(place / f"{i:04d}.png"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))


def recipe(data: Path, seed: int, epochs: int, changes: dict[str, Any]) -> dict[str, Any]:
    """One run: everything but the row's own changes is the same."""
    return {
        "model_options": {"input_size": [32, 32], "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3},
        "data": {
            "root": str(data),
            "train": [{"format": "image_folder", "images": "train"}],
            "val": {"format": "image_folder", "images": "val"},
            "num_workers": 0,
        },
        "classification": {
            "area": [0.7, 1.0], "flip_probability": 0, "policy": "", "erasing_probability": 0, "mixup": 0, "cutmix": 0,
        },
        "optimizer": {"name": "muon", "lr": 3e-3, "muon_lr": 0.01, "weight_decay": 0.05},
        "schedule": {"epochs": epochs, "name": "cosine", "warmup_steps": 40},
        "validation": {"interval": 1000},
        "batch_size": 64,
        "precision": "fp32",
        "seed": seed,
        **changes,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    data = options.out / "data"
    if not data.exists():
        write_digits(data)
    for name, changes in ROWS.items():
        found: dict[str, list[float]] = {"first": [], "last": []}
        began = time.process_time()
        for seed in range(options.seeds):
            folder = options.out / f"{name.split(',')[0].replace(' ', '_')}_{seed}"
            train(parse_recipe(recipe(data, seed, options.epochs, changes)), folder, quiet=True)
            model = load_classifier(folder / "last.safetensors")
            val = read_class_folder(data / "val", model.class_names)
            for cycle, values in found.items():
                values.append(100 * evaluate_classes(model, val, cycle=cycle).metrics["top-1"])  # pyright: ignore[reportArgumentType]
        seconds = (time.process_time() - began) / options.seeds
        for cycle, values in found.items():
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            listed = ", ".join(f"{value:.1f}" for value in values)
            print(f"{name:24s} {cycle:5s} cycle  {statistics.mean(values):5.1f} ± {spread:.1f}  ({listed})", flush=True)
        print(f"{'':24s} {seconds:.0f} CPU seconds a run", flush=True)


if __name__ == "__main__":
    main()
