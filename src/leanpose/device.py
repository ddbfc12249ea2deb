"""Which device does the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    import torch


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is the first GPU where there is one, else the CPU; otherwise a torch device's name such as `cuda:1`.

    Raises:
        LeanposeError: the name is not a device, or there is no such device here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("a device that computes nothing")
    except (RuntimeError, AssertionError) as error:
        raise LeanposeError(f"The device '{name}' is not here; use auto, cpu or cuda.") from error
    return device
