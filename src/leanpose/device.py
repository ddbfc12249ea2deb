"""Which device does the work, and on how many of its cores."""

from __future__ import annotations

import math
import multiprocessing
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


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


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether it is a CPU without instructions for bfloat16: several times slower in it than in float32."""
    import torch

    return device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def device_constant(values: ArrayLike, device: torch.device | None, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A tensor of a few numbers on a device, without waiting for it; None: on the CPU.

    `torch.tensor(values, device=...)` waits for all that a GPU has been given to do, in the middle of a step.
    """
    import torch

    made = torch.tensor(values, dtype=dtype)
    return made if device is None or device.type == "cpu" else made.to(device, non_blocking=device.type == "cuda")


def available_cores() -> int:
    """The cores that this process may use: those of its affinity (`taskset`), or fewer where its container has a
    quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or `max` instead of a number
        quota, period = CPU_QUOTA.read_text().split()
        cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores


def loader_workers(wanted: int | None, device: torch.device) -> int:
    """The number of processes that load data; None lets the device decide.

    One process cannot keep up with a GPU (it delivers some 1,300 packed crops a second), so all cores but one load,
    at most 8. On a CPU they compete with torch for its cores: two, or none where there are no others. Where processes
    are spawned (macOS, Windows), a script without `if __name__ == "__main__"` would fail with any.
    """
    if wanted is not None:
        return wanted
    if device.type == "cuda":
        return min(available_cores() - 1, 8)
    return 2 if available_cores() > 2 and multiprocessing.get_start_method() != "spawn" else 0


def limit_threads() -> None:
    """Let torch have no more threads than there are cores for it: threads that share a core wait for each other."""
    import torch

    if torch.get_num_threads() > available_cores():
        torch.set_num_threads(available_cores())
