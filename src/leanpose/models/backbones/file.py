"""Files of a backbone alone, from which a model can start: safetensors by timm's names, with a small card."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, open_safetensors
from leanpose.version import __version__

BACKBONE_KEY = "leanpose_backbone"
"""Of the metadata, under which the card lies."""


def save_backbone(
    tensors: dict[str, Tensor], path: Path, *, variant: str, training_data: list[str], licence: str, notes: str = ""
) -> None:
    """Write a backbone's weights and where they come from.

    Raises:
        LeanposeError: the path has another ending or cannot be written.
    """
    if path.suffix != ".safetensors":
        raise LeanposeError(f"Cannot save a backbone as {path}: the name must end in .safetensors.")
    card = {
        "version": __version__,
        "backbone": variant,
        "training_data": training_data,
        "licence": licence,
        "notes": notes,
    }
    stored = {name: value.contiguous() for name, value in tensors.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(stored, {BACKBONE_KEY: json.dumps(card, ensure_ascii=False)}))


def read_backbone(path: Path, variant: str) -> dict[str, Tensor]:
    """The weights of a backbone's file.

    Args:
        variant: timm's name for the network that is wanted.

    Raises:
        LeanposeError: there is no such file, it is damaged, or it is no backbone's or another one's.
    """
    with open_safetensors(path) as file:
        metadata = file.metadata() or {}
        if BACKBONE_KEY not in metadata:
            raise LeanposeError(f"{path} is no file of a backbone; `leanpose convert` makes one.")
        held = json.loads(metadata[BACKBONE_KEY]).get("backbone")
        if held != variant:
            raise LeanposeError(f"{path} holds a {held}, not the {variant} that the model has.")
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
