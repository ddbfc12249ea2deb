"""What the report takes from the folders of runs."""

from __future__ import annotations

from pathlib import Path

import yaml

from leanpose.losses.fpd import FPDSection
from leanpose.report.runs import draw_loss_terms, label_loss_scale, read_run
from leanpose.training.recipe import parse_recipe
from tiny import TINY_MODEL, tiny_recipe


def settings(**changes: object) -> dict:
    return parse_recipe(tiny_recipe(Path(), **changes)).model_dump(mode="json")


def test_the_weight_of_the_labels_in_the_log() -> None:
    fpd = FPDSection(teacher="t", alpha=0.25).model_dump()
    assert label_loss_scale(settings(distillation=fpd)) == 0.75
    assert label_loss_scale(settings(distillation={"method": "none"})) == 1.0
    assert label_loss_scale(settings(model_options={**TINY_MODEL, "cycles": 3})) == 3
    assert label_loss_scale(settings(distillation={"method": "sdpose", "supervise": "last"})) == 1.0
    auto = {"method": "auto", "teacher": "t", "gt_weight": 0.5}
    assert label_loss_scale(settings(model_options={**TINY_MODEL, "cycles": 3}, distillation=auto)) == 1.5
    branches = {"method": "okdhp", "branches": 4}
    assert label_loss_scale(settings(model_options={**TINY_MODEL, "cycles": 1}, distillation=branches)) == 4


def write_log(folder: Path, train: str, val: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text(train)
    if val:
        (folder / "val.csv").write_text(val)
    return folder


def test_losses_by_term(tmp_path: Path) -> None:
    log = "step,epoch,lr,seconds,pose,teacher\n20,1,0.1,5,0.5,0.25\n40,2,0.1,9,0.4,-0.2\n"
    write_log(tmp_path / "distilled", log)
    (tmp_path / "distilled" / "recipe.yaml").write_text(yaml.safe_dump(settings()))
    run = read_run(tmp_path / "distilled")
    assert run.terms == {"pose": ([1, 2], [0.5, 0.4]), "teacher": ([1, 2], [0.25, -0.2])}
    (figure,) = draw_loss_terms([run])
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["pose", "teacher"]
    assert axes.get_yscale() == "linear", "a likelihood may be negative"
    write_log(tmp_path / "baseline", "step,epoch,lr,seconds,pose\n20,1,0.1,5,0.5\n")
    (tmp_path / "baseline" / "recipe.yaml").write_text(yaml.safe_dump(settings()))
    assert draw_loss_terms([read_run(tmp_path / "baseline")]) == []


def test_the_stages_of_a_run_follow_one_another(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_log(
        folder / "stage1",
        "step,epoch,lr,seconds,pose,feature\n20,4,0.1,50,0.5,0.25\n",
        "step,epoch,seconds,AP\n20,4,50,0.1\n",
    )
    write_log(folder / "stage2", "step,epoch,lr,seconds,logit\n5,1,0.1,7,0.9\n", "step,epoch,seconds,AP\n5,1,7,0.2\n")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings()))
    run = read_run(folder)
    assert run.terms == {"pose": ([4], [0.5]), "feature": ([4], [0.25]), "logit": ([5], [0.9])}
    assert run.last == {"step": 25, "epoch": 5, "seconds": 57, "AP": 0.2}
