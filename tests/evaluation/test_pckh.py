"""MPII's PCKh on the way from a data set to the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from data_builders import write_mpii_json
from leanpose import create_model
from leanpose.cli import app
from leanpose.data.annotations import ImageRef, PoseAnnotation
from leanpose.data.readers import DatasetConfig
from leanpose.errors import LeanposeError
from leanpose.evaluation.pck import group_rows, mpii_pckh
from leanpose.evaluation.predictions import PosePredictions
from leanpose.evaluation.report import evaluation_report, headline, primary_metric, print_report
from leanpose.report import Report, read_run, write_report
from leanpose.skeleton import BODY19, COCO17, LSP14, MPII16, Skeleton
from leanpose.training.recipe import parse_recipe
from leanpose.training.train import train
from leanpose.weights import save_model
from tiny import TINY_MODEL, tiny_recipe


def people_and_results(
    labels: np.ndarray, mask: np.ndarray, found: np.ndarray, sizes: np.ndarray
) -> tuple[list[PoseAnnotation], PosePredictions]:
    nowhere, box = ImageRef("a.jpg"), np.array([0.0, 0, 10, 10])
    points = np.concatenate([labels, 2.0 * mask[..., None]], axis=2)
    people = [
        PoseAnnotation(nowhere, box, p.astype(np.float32), 1, n, 1.0, head_size=float(size))
        for n, (p, size) in enumerate(zip(points, sizes, strict=True))
    ]
    count = len(people)
    ones = np.ones(count)
    results = PosePredictions(
        np.ones(count, np.int64), found, np.ones(found.shape[:2]), np.tile(box, (count, 1)), ones, ones
    )
    return people, results


@pytest.mark.parametrize("which", ["A", "B"])
def test_the_table_equals_the_toolboxs(shared: Path, which: str) -> None:
    """The toolbox adds 1 to its predictions; the readers here have taken 1 off the labels."""
    values = json.loads((shared / "golden/metrics/metrics.json").read_text())["values"]
    with np.load(shared / "golden/metrics/metrics.npz") as arrays:
        labels, mask, found, sizes = (arrays[f"pck/{which}/{name}"] for name in ("gt", "mask", "pred", "head_size_xy"))
    people, results = people_and_results(labels - 1.0, mask, found, sizes[:, 0])
    ours = mpii_pckh(results, people, MPII16)
    for name in ("Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle"):
        expected = values[f"pck/{which}/MpiiPCKAccuracy.{name} PCK"]
        assert 100 * ours[f"PCKh@0.5 {name}"] == pytest.approx(expected, rel=0, abs=1e-6)
    assert 100 * ours["PCKh@0.5"] == pytest.approx(values[f"pck/{which}/MpiiPCKAccuracy.PCK"], rel=0, abs=1e-6)
    assert 100 * ours["PCKh@0.1"] == pytest.approx(values[f"pck/{which}/MpiiPCKAccuracy.PCK@0.1"], rel=0, abs=1e-6)
    assert [column for column, _ in group_rows(ours)] == [
        "Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "Total",
    ]  # fmt: skip
    assert primary_metric(ours) == "PCKh@0.5"


def test_by_hand() -> None:
    labels, mask = np.zeros((2, 16, 2)), np.ones((2, 16), bool)
    found = labels.copy()
    found[0, :, 0] = 4.9  # of a head of 10: within a half, not within a tenth
    found[:, [6, 7]] = 1000  # pelvis and thorax take no part
    people, results = people_and_results(labels, mask, found, np.array([10.0, np.nan]))
    figures = mpii_pckh(results, people, MPII16)
    assert figures["PCKh@0.5"] == figures["PCKh@0.5 Knee"] == 1
    assert figures["PCKh@0.1"] == 0
    results.keypoints[0, 9, 0] = 5.1  # one joint of fourteen
    assert mpii_pckh(results, people, MPII16)["PCKh@0.5"] == pytest.approx(13 / 14)


def test_what_cannot_be_measured() -> None:
    points = np.zeros((1, 17, 2))
    people, results = people_and_results(points, np.ones((1, 17), bool), points, np.ones(1))
    with pytest.raises(LeanposeError, match="'head_top', which skeleton 'coco17' lacks"):
        mpii_pckh(results, people, COCO17)
    people, results = people_and_results(points[:, :16], np.ones((1, 16), bool), points[:, :16], np.array([np.nan]))
    with pytest.raises(LeanposeError, match="none of these people has one"):
        mpii_pckh(results, people, MPII16)


def tiny(skeleton: Skeleton) -> Any:
    sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in TINY_MODEL.items()}
    return create_model("sdpose_t", skeleton=skeleton, **sizes)


def test_what_nobody_labels_is_left_out_of_its_group() -> None:
    labels, mask = np.random.default_rng(0).uniform(0, 50, (2, 16, 2)), np.zeros((2, 16), bool)
    mask[0, MPII16.keypoints.index("right_wrist")] = True
    people, results = people_and_results(labels, mask, labels.copy(), np.full(2, 10.0))
    figures = mpii_pckh(results, people, MPII16)
    assert figures["PCKh@0.5 Wrist"] == figures["PCKh@0.5"] == 1
    assert {figures[f"PCKh@0.5 {name}"] for name in ("Head", "Shoulder", "Elbow", "Hip", "Knee", "Ankle")} == {-1.0}


def test_a_set_that_labels_no_left_wrist_is_measured_by_the_same_figure(tmp_path: Path) -> None:
    path = write_mpii_json(tmp_path, 3)
    records = json.loads(path.read_text())
    for record in records:
        record["joints_vis"][MPII16.keypoints.index("left_wrist")] = 0
    path.write_text(json.dumps(records))
    source = DatasetConfig(format="mpii", images=Path("images"), annotations=Path("people.json"))
    report = evaluation_report(tiny(MPII16), source, root=tmp_path)
    assert report.settings["metric"] == "mpii"
    assert report.metrics["PCKh@0.5 Wrist"] >= 0
    print_report(report)


def test_a_card_on_mpii(tmp_path: Path) -> None:
    write_mpii_json(tmp_path, 3)
    source = DatasetConfig(format="mpii", images=Path("images"), annotations=Path("people.json"))
    for skeleton in (MPII16, BODY19, LSP14):
        report = evaluation_report(tiny(skeleton), source, root=tmp_path)
        assert report.settings["metric"] == "mpii"
        assert "AP" not in report.metrics
        assert len(group_rows(report.metrics)) == 8
        assert "PCKh@0.5" not in report.keypoint_metrics
    report = evaluation_report(tiny(COCO17), source, root=tmp_path)  # which has no head to measure
    assert report.settings["metric"] == "coco"
    assert 0 <= report.keypoint_metrics["PCKh@0.5"] <= 1


def test_the_command_prints_the_papers_table(tmp_path: Path) -> None:
    write_mpii_json(tmp_path, 3)
    save_model(create_model("sdpose_t", skeleton="mpii16", input_size=(64, 48), depth=1), tmp_path / "m.safetensors",
               training_data=[], licence="none", metrics={})  # fmt: skip
    command = ["eval", str(tmp_path / "m.safetensors"), "--data-format", "mpii", "--annotations", str(tmp_path / "people.json"),
               "--images", str(tmp_path / "images"), "--out", str(tmp_path / "out.json"), "--no-flip-test"]  # fmt: skip
    result = CliRunner().invoke(app, command, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    for word in ("PCKh@0.5", "Head", "Shoulder", "Ankle", "Total"):
        assert word in result.output
    figures = json.loads((tmp_path / "out.json").read_text())["figures"]
    assert {"PCKh@0.5", "PCKh@0.5 Head", "PCKh@0.1"} <= set(figures)


def test_training_is_validated_by_pckh(tmp_path: Path) -> None:
    write_mpii_json(tmp_path, 20)
    source = {"format": "mpii", "images": "images", "annotations": "people.json"}
    data = {
        "root": str(tmp_path),
        "train": [{**source, "split": "train"}],
        "val": {**source, "split": "val"},
        "num_workers": 0,
    }
    recipe = tiny_recipe(tmp_path, skeleton="mpii16", validation={"interval": 1, "metric": "mpii"})
    recipe |= {"data": data, "schedule": {"epochs": 2, "warmup_steps": 0}}
    summary = train(parse_recipe(recipe), tmp_path / "run", quiet=True)
    assert summary.best == max(float(row["PCKh@0.5"]) for row in read_run(tmp_path / "run").validations)
    assert set(summary.metrics) == {"PCKh@0.5", "PCKh@0.1"} | {
        f"PCKh@0.5 {name}" for name, _ in group_rows(summary.metrics)[:-1]
    }
    assert (tmp_path / "run/best.safetensors").exists()
    assert headline(summary.metrics).startswith("PCKh@0.5 ")
    write_report(tmp_path / "report.html", Report("MPII", (), [read_run(tmp_path / "run")]))
    page = (tmp_path / "report.html").read_text()
    assert "best PCKh@0.5" in page
    assert "best AP" not in page
    wrong = parse_recipe({**recipe, "skeleton": "coco17"})
    with pytest.raises(LeanposeError, match="'head_top', which skeleton 'coco17' lacks"):
        train(wrong, tmp_path / "other", quiet=True)
    recipe["data"]["val"] = {**source, "format": "coco"}
    with pytest.raises(LeanposeError, match=r"a data\.val of format mpii"):
        train(parse_recipe(recipe), tmp_path / "other", quiet=True)
