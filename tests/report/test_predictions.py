"""`leanpose report`: what runs find on their own people to evaluate on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanpose.report import read_run
from leanpose.report.predictions import prediction_sections
from leanpose.training.recipe import parse_recipe
from leanpose.training.train import train
from tiny import tiny_recipe, write_tiny_coco


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on the same people, and one on others."""
    folder = tmp_path_factory.mktemp("runs")
    write_tiny_coco(folder / "data", people=6)
    for name, seed in (("first", 0), ("second", 1), ("third", 2)):
        recipe: dict[str, Any] = tiny_recipe(folder / "data", seed=seed, schedule={"epochs": 1, "warmup_steps": 0})
        recipe["distillation"], recipe["validation"] = {"method": "none"}, {"interval": 1}
        if name == "third":
            recipe["data"]["val"] = {**recipe["data"]["val"], "name": "others", "split": "train"}
        train(parse_recipe(recipe), folder / name, quiet=True)
    return folder


def test_runs_on_the_same_people_stand_in_one_table(runs: Path) -> None:
    done: list[tuple[int, int]] = []
    records = {runs / name: read_run(runs / name) for name in ("first", "second", "third")}
    sections, reasons = prediction_sections(records, lambda count, total: done.append((count, total)))
    assert reasons == []
    both, other = sections
    tables = [[row[0] for row in section.parts[1].rows] for section in (both, other)]  # pyright: ignore
    assert tables == [["first", "second"], ["third"]]
    assert both.title == "Predictions on annotations"
    assert other.title == "Predictions on others"
    assert "best.safetensors" in str(both.parts[0])
    images = [part for part in both.parts if hasattr(part, "image")]
    assert len(images) == 2
    assert images[0].image.ndim == 3  # pyright: ignore
    assert sum(count for count, _ in done) == done[0][1] == 3 * 6


def test_the_page_shows_predictions_or_says_why_not(
    runs: Path, tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command("report", runs / "first", "--out", "with.html")
    assert (ended.returncode, ended.stdout) == (0, "Wrote with.html.\n")
    page = (tmp_path / "with.html").read_text()
    for words in ("Predictions on annotations", "PCK@0.2", "calibration error", "lowest OKS", "Random people"):
        assert words in page
    assert page.count("data:image/jpeg") == 2
    command("report", runs / "first", "--no-predict", "--out", "without.html")
    assert "data:image" not in (tmp_path / "without.html").read_text()
    shutil.copytree(runs / "first", tmp_path / "moved")
    (tmp_path / "moved" / "best.safetensors").unlink()
    (tmp_path / "moved" / "last.safetensors").unlink()
    ended = command("report", tmp_path / "moved", "--out", "none.html")
    assert ended.returncode == 0
    assert "No predictions of moved are shown: The folder" in ended.stdout
    assert "No predictions of moved are shown" in (tmp_path / "none.html").read_text()
