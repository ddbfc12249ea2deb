"""The state of a run: everything that the next step depends on, in one file that is whole or not there."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from leanpose.errors import LeanposeError
from leanpose.files import atomic_write

STATE_FILE = "state.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the run's saved state: tensors, numbers, strings and containers of them only.

    Raises:
        LeanposeError: it cannot be written; the state saved before stays.
    """
    buffer = io.BytesIO()  # torch's own file writer turns a full disk into a RuntimeError without the reason
    torch.save(state, buffer)
    with atomic_write(folder / STATE_FILE) as path:
        path.write_bytes(buffer.getbuffer())


def load_state(folder: Path) -> dict[str, Any]:
    """The state that `save_state` wrote. Nothing but tensors and plain values is ever unpickled.

    Raises:
        LeanposeError: there is none, or it is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        raise LeanposeError(f"There is no run to resume in {folder} ({STATE_FILE} is missing).")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, pickle.UnpicklingError) as error:
        raise LeanposeError(f"The saved state {path} is damaged ({type(error).__name__}).") from error
