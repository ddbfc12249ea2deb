"""The cost of a model: parameters and multiply-accumulates, counted without computing anything."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from leanpose.checksums import checksum
from leanpose.files import atomic_write
from leanpose.models.registry import TABLE, ModelRow, configure_model, create_model, list_models, model_entry


@dataclass(frozen=True)
class Cost:
    """The cost of one image at inference.

    Attributes:
        parameters: number of trainable parameters, plus the fixed embedding of TransPose; the number in the papers.
        macs: multiply-accumulates of convolutions, linear layers, norms (2 per value) and ReLUs (1 per value), counted
            as in mmcv, like the figures in the papers of SDPose and DistilPose. Attention products are not included.
        attention_macs: the products of queries with keys and of the attention with the values, and the sampling of
            deformable attention (each value is interpolated from four and weighted), to be added for the true cost.
    """

    parameters: int
    macs: int
    attention_macs: int


def model_cost(name: str, **overrides: Any) -> Cost:
    """Count a named model, on torch's meta device.

    Args:
        name: one of `leanpose.list_models()`.
        overrides: further arguments of `create_model`.

    Raises:
        LeanposeError: an unknown name or setting.
    """
    aten = torch.ops.aten

    def norm(shape: list[int], *_: Any, **__: Any) -> int:
        return 2 * 2 * prod(shape)  # the counter counts floating-point operations, two per multiply-accumulate

    def relu(shape: list[int], *_: Any, **__: Any) -> int:
        return 2 * prod(shape)

    def samples(*_: Any, out_shape: list[int], **__: Any) -> int:
        return 2 * 5 * prod(out_shape)

    counting = {
        aten.native_batch_norm: norm,
        aten.native_layer_norm: norm,
        aten.native_group_norm: norm,
        aten.grid_sampler_2d: samples,
        aten.relu: relu,
        aten.relu_: relu,
    }
    with torch.device("meta"):
        # Without gradients, or the counter would look for those of the parameters.
        model = create_model(name, **overrides).requires_grad_(False)
        counter = FlopCounterMode(display=False, custom_mapping=counting)
        with torch.inference_mode(), counter:
            model(torch.empty(1, 3, *model.input_size))
    counts = counter.get_flop_counts()["Global"]
    in_attention = ("bmm", "attention", "grid_sampler")
    attention = sum(n for op, n in counts.items() if any(part in str(op) for part in in_attention))
    return Cost(sum(p.numel() for p in model.parameters()), (sum(counts.values()) - attention) // 2, attention // 2)


def table_row(name: str, cost: Cost | None = None, **overrides: Any) -> ModelRow:
    """A model's row of `leanpose.models.registry.model_table`.

    Args:
        name, overrides: as for `model_cost`.
        cost: its cost; None: it is counted.
    """
    entry, config = model_entry(name), configure_model(name, **overrides)
    published, source = entry.published
    counted = asdict(cost or model_cost(name, **overrides))
    digest = checksum(json.dumps(asdict(config), sort_keys=True).encode())
    return ModelRow(entry.summary, config.input_size, **counted, published=published, source=source, config=digest)


def write_table() -> None:
    """Count all models of the library and rewrite the table."""
    rows = [f'"{name}": {json.dumps(asdict(table_row(name)), ensure_ascii=False)}' for name in list_models()]
    with atomic_write(TABLE) as path:
        path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write_table()
