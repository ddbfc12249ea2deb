"""The device of a run, or the processes that torchrun started."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from leanpose.errors import LeanposeError
from leanpose.training import processes
from leanpose.training.recipe import load_recipe
from tiny import write_tiny_recipe


@pytest.mark.parametrize(
    ("device", "count", "devices"), [("cuda:1", 1, [1]), ("cuda:0", 1, [0]), ("cuda", 1, 1), ("cuda", 2, 2)]
)
def test_the_named_gpu_is_the_one_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, count: int, devices: object
) -> None:
    fabric = Mock()
    monkeypatch.setattr(processes, "Fabric", fabric)
    monkeypatch.setattr(processes, "choose_device", torch.device)
    monkeypatch.setenv("WORLD_SIZE", str(count))
    recipe = load_recipe(write_tiny_recipe(tmp_path / "recipe.yaml", tmp_path))
    processes.make_fabric(recipe, device)
    assert fabric.call_args.kwargs["accelerator"] == "cuda"
    assert fabric.call_args.kwargs["devices"] == devices


def test_one_gpu_for_several_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "choose_device", torch.device)
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = load_recipe(write_tiny_recipe(tmp_path / "recipe.yaml", tmp_path))
    with pytest.raises(LeanposeError, match="'cuda:1' is one GPU, but torchrun gives each of its 2 processes"):
        processes.make_fabric(recipe, "cuda:1")
