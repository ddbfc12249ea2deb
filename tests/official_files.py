"""Files in the layouts of the official codes, with weights by the rule of the reference numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from golden_rules import Golden
from leanpose import load_model
from leanpose.codecs.base import Coordinates, Heatmaps, SimCC
from leanpose.conversion.convert import Converted, convert
from leanpose.models.layers import sine_position


def official_weights(golden: Golden, grid: tuple[int, int] = (16, 16)) -> dict[str, Tensor]:
    """All that the official file holds, the fixed position embedding and the counters of batches included."""
    weights = golden.state_dict()
    for key, shape, kind in golden.facts["keys"]:
        if kind == "fixed" and key.endswith("pos_embedding"):
            weights[key] = sine_position(*grid, shape[2])[None]
        elif kind == "fixed" and key.endswith("num_batches_tracked"):
            weights[key] = torch.tensor(7)
    return weights


def save(content: Any, folder: Path, name: str = "official.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def converted(weights: dict[str, Tensor], folder: Path, **arguments: Any) -> Converted:
    source = save({"meta": {"epoch": 210}, "state_dict": weights}, folder)
    return convert(source, folder / "new.safetensors", **arguments)


def deviation(golden: Golden, path: Path) -> float:
    """How far the converted file's output is from the official one."""
    with torch.inference_mode():
        found = load_model(path)(golden.images).prediction
    outputs = golden.facts["outputs"]
    if isinstance(found, SimCC):
        return max(golden.deviation("simcc_x", found.x), golden.deviation("simcc_y", found.y))
    if isinstance(found, Heatmaps):
        last = max(
            (name for name in outputs if name.startswith("out[")), key=lambda name: int(name[4:-1]), default="out"
        )
        name = next(name for name in ("pred", "cycle0.pred", last) if name in outputs)
        return golden.deviation(name, found.heatmaps)
    assert isinstance(found, Coordinates)
    name = next(name for name in outputs if name in ("out", "pred") or name.startswith("inference_regression"))
    expected = torch.from_numpy(golden.arrays[name])[..., :2].float()
    return float((found.xy - expected).abs().max()) / outputs[name]["abs_max"]
