"""What is known of every model without building it: a generated table, read without torch.

`python -m leanpose.models.cost` writes the table anew; a test compares it with the models.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("table.json")


@dataclass(frozen=True)
class ModelRow:
    """One model as it is by default.

    Attributes:
        summary: the first line of its docstring.
        input_size: height and width of the image, in pixels.
        parameters, macs, attention_macs: see `leanpose.models.cost.Cost`.
        published, source: see `leanpose.models.registry.ModelEntry.published`.
    """

    summary: str
    input_size: tuple[int, int]
    parameters: int
    macs: int
    attention_macs: int
    published: str
    source: str


@cache
def model_table() -> dict[str, ModelRow]:
    """The rows of all models of the library by name, in alphabetical order."""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))
    return {name: ModelRow(**{**row, "input_size": tuple(row["input_size"])}) for name, row in rows.items()}
