"""A whole-body network learns from synthetic people by a recipe, and is measured part by part."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from leanpose import load_model
from leanpose.cli import app
from leanpose.errors import LeanposeError
from leanpose.report import Report, read_run, write_report
from leanpose.synthetic import write_synthetic
from leanpose.training.build import read_training_people
from leanpose.training.recipe import load_recipe, parse_recipe
from leanpose.training.train import train

PARTS = ["whole", "body", "feet", "face", "left_hand", "right_hand", "hands"]


def recipe(**changes: Any) -> dict[str, Any]:
    def drawn(count: int, seed: int) -> dict[str, Any]:
        return {"format": "synthetic", "count": count, "seed": seed, "size": [96, 72], "images": f"drawn_{seed}"}

    return {
        "model": "dwpose_t",
        "model_options": {"input_size": [64, 64]},
        "data": {"train": [drawn(6, 1)], "val": drawn(4, 2), "num_workers": 0},
        "schedule": {"epochs": 2, "warmup_steps": 0},
        "validation": {"interval": 1, "metric": "wholebody", "flip_test": False},
        "batch_size": 4,
        "precision": "fp32",
        **changes,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wholebody")
    values = recipe()
    values["data"]["root"] = str(folder)
    summary = train(parse_recipe(values), folder / "run", quiet=True)
    assert {f"{figure} {part}" for part in PARTS[1:] for figure in ("AP", "AR")} < summary.metrics.keys()
    return folder / "run"


def test_every_validation_has_every_part_and_the_best_is_that_of_the_whole(run: Path) -> None:
    with (run / "val.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert all(0 <= float(row["AP feet"]) <= 1 for row in rows)
    model = load_model(run / "best.safetensors")
    assert (model.name, model.skeleton.name, len(model.skeleton)) == ("dwpose_t", "coco_wholebody133", 133)
    assert load_recipe(run / "recipe.yaml").skeleton == "coco_wholebody133", "every default is written out"


def test_eval_prints_and_writes_a_table_by_part(run: Path) -> None:
    val = run.parent / "drawn_2"
    arguments = [
        "eval",
        str(run / "last.safetensors"),
        "--data-format",
        "coco_wholebody",
        "--no-flip-test",
        "--device",
        "cpu",
    ]
    arguments += ["--images", str(val / "images.tar"), "--annotations", str(val / "annotations.json")]
    result = CliRunner().invoke(app, [*arguments, "--out", str(run / "card.json")])
    assert result.exit_code == 0, result.output
    for line in ("left hand", "hands", "The table of 133 keypoints goes to --out"):
        assert line in result.output
    card = json.loads((run / "card.json").read_text())
    assert [row["part"] for row in card["by_part"]] == PARTS
    with (run / "val.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    for row in card["by_part"]:  # what training measured
        column = "AP" if row["part"] == "whole" else f"AP {row['part']}"
        assert row["AP"] == pytest.approx(float(last[column]), abs=1e-4)
    assert len(card["by_keypoint"]) == 133


def test_the_report_has_the_parts(run: Path) -> None:
    write_report(run / "report.html", Report("t", [], [read_run(run)]))
    page = (run / "report.html").read_text()
    assert "By part" in page
    assert "<th>left hand</th>" in page


def test_a_body_learns_from_whole_bodies_and_a_whole_body_from_bodies(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "whole", 4, size=(96, 72))
    write_synthetic(tmp_path / "body", 4, size=(96, 72), skeleton="coco17")
    files = {"images": "whole/images.tar", "annotations": "whole/annotations.json"}
    whole = {"format": "coco_wholebody", **files}
    body = {"format": "coco", **{key: value.replace("whole", "body") for key, value in files.items()}}
    both = recipe(data={"root": str(tmp_path), "train": [whole, body], "val": whole})
    people = read_training_people(parse_recipe(both))[0].people
    assert {p.keypoints.shape for p in people} == {(133, 3)}
    assert (people[-1].keypoints[17:, 2] == 0).all()
    of_body = recipe(skeleton="coco17", data=both["data"], validation={})
    assert {p.keypoints.shape for p in read_training_people(parse_recipe(of_body))[0].people} == {(17, 3)}
    with pytest.raises(LeanposeError, match="metric wholebody evaluates parts, but the skeleton 'coco17'"):
        read_training_people(parse_recipe(recipe(skeleton="coco17", data=both["data"])))
