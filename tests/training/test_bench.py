"""What the timing of a training says, and that it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from leanpose.cli import app
from leanpose.training.batches import PHASES, on_device
from leanpose.training.bench import StepClock, StepTimes, bench_training
from leanpose.training.recipe import load_recipe
from tiny import write_tiny_coco, write_tiny_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_tiny_coco(tmp_path / "data")
    return write_tiny_recipe(tmp_path / "recipe.yaml", tmp_path / "data")


def test_the_parts_of_a_step_add_up(recipe: Path) -> None:
    loaded = load_recipe(recipe, ["grad_accum_steps=2", "ema=0.9"])
    before = set(recipe.parent.iterdir())
    times = bench_training(loaded, steps=4, device="cpu")
    assert set(recipe.parent.iterdir()) == before
    assert list(times.phases) == list(PHASES)
    assert 0.5 * times.seconds < sum(times.phases.values()) <= times.seconds
    assert times.busy == pytest.approx(1 - times.phases["wait for data"] / times.seconds)
    assert times.hours == pytest.approx(loaded.schedule.epochs * 3 * times.seconds / 3600)  # 12 people in fours
    assert times.matrix_rate > 1e9
    assert times.bandwidth > 1e8


def test_operations_are_counted_a_person(recipe: Path) -> None:
    """What one person costs, however many there are in a step."""
    one, two = (bench_training(load_recipe(recipe, [f"batch_size={n}"]), steps=1, device="cpu").flops for n in (2, 4))
    assert one == pytest.approx(two)
    assert one > 1e6


def test_limit_and_rate() -> None:
    times = StepTimes("CPU", 32, 10, 0.5, {}, 1.0, flops=2e9, matrix_rate=4e11, bandwidth=1e10, hours=1.0)
    assert times.people_per_second == 64
    assert times.limit == 200


def test_a_clock_starts_anew_when_it_is_read() -> None:
    clock = StepClock(torch.device("cpu"))
    for _ in range(2):
        with clock("backward"):
            pass
        with clock("forward"):
            pass
        assert list(clock.read()) == ["forward", "backward"], "in the order of a step"
    assert clock.read() == {}


def test_the_command_prints_a_table(recipe: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "train", str(recipe), "batch_size=2", "--steps", "2", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    for phase in (*PHASES, "whole step"):
        assert phase in result.output
    assert "A step of 2 people on CPU" in result.output
    assert "people per second over 2 steps" in result.output
    assert "Limit: " in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train"], "Give a recipe: leanpose bench train RECIPE"),
        (["train", "sdpose/nothing"], "There is no recipe 'sdpose/nothing'"),
        (["leanpose-body-s", "sdpose/t_coco"], "'sdpose/t_coco' is one argument too many"),
    ],
)
def test_what_is_missing_is_said(arguments: list[str], says: str) -> None:
    from leanpose.errors import LeanposeError

    result = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(result.exception, LeanposeError)
    assert says in str(result.exception)


def test_on_a_cpu_no_batch_is_read_ahead(recipe: Path) -> None:
    """Loader processes read ahead; without them the next batch must not delay this one."""
    from leanpose.data.batch import CropBatch

    read: list[int] = []

    def batches() -> object:
        for number in range(3):
            read.append(number)
            shape = {"images": (1, 4, 4, 3), "keypoints": (1, 2, 2), "weights": (1, 2), "matrices": (1, 2, 3)}
            yield CropBatch(torch.tensor([number]), {}, **{name: torch.zeros(size) for name, size in shape.items()})

    for number, batch in enumerate(on_device(batches(), torch.device("cpu"))):  # type: ignore[arg-type]
        assert batch.indices.tolist() == [number]
        assert read == list(range(number + 1))
