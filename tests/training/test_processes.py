"""The device of a run, or the processes that torchrun started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file

from leanpose.errors import LeanposeError, StoppedError
from leanpose.training import loop, processes
from leanpose.training.recipe import load_recipe
from leanpose.training.resume import load_state
from leanpose.training.train import train
from tiny import write_tiny_coco, write_tiny_recipe


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


def test_fabric_gives_the_user_no_advice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In bf16 it announces its precision, and on some GPUs it recommends a call of torch."""
    recipe = load_recipe(write_tiny_recipe(tmp_path / "r.yaml", tmp_path, precision="bf16"))
    with caplog.at_level("INFO"):
        fabric = processes.make_fabric(recipe, "cpu")
    assert fabric.device.type == "cpu"
    assert not caplog.records


def test_one_gpu_for_several_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "choose_device", torch.device)
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = load_recipe(write_tiny_recipe(tmp_path / "recipe.yaml", tmp_path))
    with pytest.raises(LeanposeError, match="'cuda:1' is one GPU, but torchrun gives each of its 2 processes"):
        processes.make_fabric(recipe, "cuda:1")


def test_two_processes_go_on_with_the_run_of_one_and_end_as_it_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same people in each step; of batch normalization, whose statistics are each process's own, nothing learns."""
    write_tiny_coco(tmp_path / "data")
    frozen = {"name": "adam", "lr": 1e-3, "lr_mult": {"backbone": 0}}
    file = write_tiny_recipe(tmp_path / "r.yaml", tmp_path / "data", optimizer=frozen, ema=0.9)
    train(load_recipe(file), tmp_path / "alone", quiet=True)
    step, out = loop.Trainer._step, tmp_path / "together"

    def stopping(trainer: Any, parts: Any) -> torch.Tensor:
        trainer._stop_signal = signal.SIGTERM if trainer.state.step == 2 else 0
        return step(trainer, parts)

    monkeypatch.setattr(loop.Trainer, "_step", stopping)
    with pytest.raises(StoppedError):
        train(load_recipe(file), out, quiet=True)
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29617"]
    result = subprocess.run(
        [sys.executable, *torchrun, "-m", "leanpose", "train", "--device", "cpu", "--resume", str(out)],
        capture_output=True, text=True, timeout=240, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    state = load_state(out)["run"]
    assert (state["step"], state["epoch"]) == (9, 3)
    alone, together = (load_file(folder / "last.safetensors") for folder in (tmp_path / "alone", out))
    assert any(not torch.equal(alone[name], together[name]) for name in alone), "sums of two processes round otherwise"
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, atol=1e-5, rtol=1e-5, msg=name)
