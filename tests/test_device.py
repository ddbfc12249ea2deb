"""How many processes load data for a device."""

from __future__ import annotations

import pytest
import torch

from leanpose import device
from leanpose.device import loader_workers


@pytest.mark.parametrize(
    ("kind", "cores", "start", "expected"),
    [
        ("cuda", 16, "fork", 8), ("cuda", 4, "fork", 3), ("cuda", 1, "fork", 0), ("cuda", 4, "spawn", 3),
        ("cpu", 16, "fork", 2), ("cpu", 3, "forkserver", 2), ("cpu", 2, "fork", 0), ("cpu", 16, "spawn", 0),
    ],
)  # fmt: skip
def test_loader_processes_suit_the_device(
    kind: str, cores: int, start: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "available_cores", lambda: cores)
    monkeypatch.setattr(device.multiprocessing, "get_start_method", lambda: start)
    assert loader_workers(None, torch.device(kind)) == expected
    assert loader_workers(5, torch.device(kind)) == 5
