"""Classifiers in the training loop that poses use: they learn, resume, and are distilled from their own later cycles."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss
from typer.testing import CliRunner

from digits import SMALL, digits_recipe, write_digits
from leanpose.classification.data import read_class_folder
from leanpose.classification.deit import ClassOutput, DeiT, DeiTConfig, load_classifier
from leanpose.classification.evaluate import evaluate_classes, ranks_of
from leanpose.classification.recipe import ClassificationSection, parse_classification_recipe
from leanpose.classification.train import ClassificationTask, build_classifier, train_classifier
from leanpose.cli import app
from leanpose.errors import LeanposeError, StoppedError
from leanpose.models.registry import create_model
from leanpose.report import Report, read_run, write_report
from leanpose.training.loop import Trainer
from leanpose.training.recipe import parse_recipe
from leanpose.training.train import train
from leanpose.weights import save_model
from tiny import tiny_recipe


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("few"), train=24, val=9, digits=3)


def quick(data: Path, **changes: Any) -> dict[str, Any]:
    options = {**SMALL, "patch_size": 16, "embed_dim": 12, "depth": 1}
    schedule = {"epochs": 2, "warmup_steps": 0}
    return digits_recipe(data, **{"model_options": options, "schedule": schedule, "batch_size": 8, **changes})


def run(recipe: dict[str, Any], folder: Path, **options: Any) -> Any:
    return train_classifier(parse_classification_recipe(recipe), folder, quiet=True, **options)


@pytest.fixture(scope="module")
def learnt(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("run")
    recipe = digits_recipe(digits, model="sdpose_deit_tiny", distillation={"method": "sdpose"})
    return run(recipe, folder / "run"), folder / "run"


def test_digits_are_learnt_far_above_chance(learnt: tuple[Any, Path]) -> None:
    summary, folder = learnt
    assert summary.metrics["top-1"] > 0.5, "chance is 0.1"
    assert summary.metrics["top-5"] > 0.9
    assert summary.best >= summary.metrics["top-1"]
    with (folder / "train.csv").open() as file:
        assert {"class", "keypoint_tokens", "visual_tokens"} <= set(next(csv.reader(file)))
    best = load_classifier(folder / "best.safetensors")
    assert best.class_names == tuple("0123456789")
    write_report(folder / "report.html", Report("digits", (), [read_run(folder)]))
    assert "top-1" in (folder / "report.html").read_text()


def test_the_command_measures_it_and_others_refuse_it(learnt: tuple[Any, Path], digits: Path, tmp_path: Path) -> None:
    summary, folder = learnt
    file = str(folder / "last.safetensors")
    command = [
        "eval",
        file,
        "--data-format",
        "image_folder",
        "--images",
        str(digits / "val"),
        "--out",
        str(tmp_path / "o.json"),
    ]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert f"top-1 {100 * summary.metrics['top-1']:.1f}" in result.output
    written = json.loads((tmp_path / "o.json").read_text())
    assert written["figures"] == pytest.approx(summary.metrics)
    assert sum(row["images"] for row in written["by_class"]) == 200
    image = str(next((digits / "val" / "3").iterdir()))
    for words in (["predict", image, "--model", file], ["eval", file, "--annotations", "a.json", "--images", "i"]):
        refused = CliRunner().invoke(app, words)
        assert isinstance(refused.exception, LeanposeError)
        assert "a classifier, not a pose model" in str(refused.exception)


def test_a_checkpoint_of_other_classes_is_refused(learnt: tuple[Any, Path], few: Path, tmp_path: Path) -> None:
    weights = str(learnt[1] / "last.safetensors")
    (tmp_path / "val" / "plate").mkdir(parents=True)
    model = load_classifier(weights)
    with pytest.raises(LeanposeError, match="the class 'plate', which is not among the model's 10"):
        read_class_folder(tmp_path / "val", model.class_names)
    changes = {"model_options": dict(SMALL), "init_from": weights}
    with pytest.raises(LeanposeError, match=r"has 10 other classes \(0, 1, 2 …\) than the 3 of the data"):
        run(quick(few, **changes), tmp_path / "run")
    tuned = run(quick(few, **changes, strict=False), tmp_path / "run")
    assert load_classifier(tuned.folder / "last.safetensors").class_names == ("0", "1", "2")


def test_the_last_layer_starts_fresh_where_the_classes_are_others(few: Path, tmp_path: Path) -> None:
    model = create_model("deit_tiny", **{**SMALL, "input_size": (32, 32), "classes": 3})
    assert isinstance(model, DeiT)
    model.class_names = ("a", "b", "c")
    save_model(model, tmp_path / "abc.safetensors", training_data=[], licence="none", metrics={})
    options = {**SMALL, "classes": 3}
    recipe = parse_classification_recipe(
        quick(few, model_options=options, init_from=str(tmp_path / "abc.safetensors"), strict=False)
    )
    for classes, same in ((("0", "1", "2"), False), (("a", "b", "c"), True)):
        made = build_classifier(recipe, classes).state_dict()
        for name, weight in model.state_dict().items():
            assert (
                torch.equal(made[name], weight) == (same or not name.startswith("network.head.weight"))
                or weight.eq(0).all()
            )


def test_a_stopped_run_resumes_to_bit_identical_weights(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = shutil.copytree(few, tmp_path / "data")
    mixed = {"policy": "rand-m5", "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, "erasing_probability": 0.5}
    recipe = quick(few, classification=mixed, model="sdpose_deit_tiny", distillation={"method": "sdpose"}, ema=0.9)
    recipe["model_options"] = {**recipe["model_options"], "drop_path": 0.2, "depth": 2}
    whole = run(recipe, tmp_path / "whole")
    step = Trainer._step

    def stopping(self: Trainer, parts: Any) -> torch.Tensor:
        self._stop_signal = int(self.state.step == 3)
        return step(self, parts)

    monkeypatch.setattr(Trainer, "_step", stopping)
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "cut")
    monkeypatch.setattr(Trainer, "_step", step)
    for part in ("train", "val"):
        (few / part / "2").rename(few / part / "two")
    with pytest.raises(LeanposeError, match="has other classes now: 'two' instead of '2'; restore the old folders"):
        run(recipe, tmp_path / "cut", resume=True)
    for part in ("train", "val"):
        (few / part / "two").rename(few / part / "2")
    resumed = run(recipe, tmp_path / "cut", resume=True)
    assert resumed.metrics == whole.metrics
    a, b = (
        load_classifier(folder / "last.safetensors").state_dict() for folder in (tmp_path / "whole", tmp_path / "cut")
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


def tiny_task(section: ClassificationSection, **recipe: Any) -> ClassificationTask:
    torch.manual_seed(0)
    model = create_model("deit_tiny", **{**SMALL, "input_size": (32, 32), "cycles": 2, "classes": 4})
    assert isinstance(model, DeiT)
    parsed = parse_classification_recipe({**quick(Path()), **recipe})
    return ClassificationTask(model, parsed.distillation, section)


PLAIN = ClassificationSection(mixup=0, cutmix=0, label_smoothing=0)


def test_the_losses_are_sdposes_on_class_and_visual_tokens() -> None:
    section = {"method": "sdpose", "keypoint_token_weight": 0.5, "visual_token_weight": 0.25}
    task = tiny_task(PLAIN, distillation=section)
    images, labels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8), torch.tensor([0, 3, 1])
    losses = task(images, labels)
    first, second = task.model.forward_train(task.model.normalize(images)).cycles
    expected = {
        "class": cross_entropy(first.logits, labels) + cross_entropy(second.logits, labels),
        "keypoint_tokens": 0.5 * mse_loss(first.class_tokens, second.class_tokens),
        "visual_tokens": 0.25 * mse_loss(first.visual_tokens, second.visual_tokens),
    }
    assert set(losses) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    last = tiny_task(
        PLAIN, distillation={**section, "keypoint_token_weight": 0, "visual_token_weight": 0, "supervise": "last"}
    )(images, labels)
    torch.testing.assert_close(last["class"], cross_entropy(second.logits, labels))


def test_smoothing_and_mixing_change_the_target_as_they_should() -> None:
    images, labels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8), torch.tensor([0, 3, 1])
    task = tiny_task(ClassificationSection(mixup=0, cutmix=0, label_smoothing=0.2))
    logits = task.model.forward_train(task.model.normalize(images)).logits
    torch.testing.assert_close(task(images, labels)["class"], cross_entropy(logits, labels, label_smoothing=0.2))
    mixed = tiny_task(ClassificationSection(mixup=0.8, cutmix=0, label_smoothing=0))
    torch.manual_seed(3)
    _, target = mixed.mix(mixed.model.normalize(images), labels)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(3))
    assert ((target > 0).sum(dim=1) == 2).all(), "each image holds two"


class ByColour(DeiT):
    """Knows images by their red: logit c is -|red - c|."""

    def forward(self, images: torch.Tensor) -> ClassOutput:
        red = images[:, 0].mean(dim=(1, 2))
        none = torch.zeros(len(images), 1, 1)
        return ClassOutput(-(red[:, None] - torch.arange(8.0)).abs(), none, none)

    forward_train = forward


def test_accuracy_by_hand(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    config = DeiTConfig(input_size=(4, 4), patch_size=4, embed_dim=4, depth=1, num_heads=1, classes=8)
    model = ByColour("by_colour", config)
    model.mean, model.std = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)
    for name, reds in {"0": [0, 4], "1": [1, 7], "7": [0]}.items():
        (tmp_path / name).mkdir()
        for i, red in enumerate(reds):
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), np.full((4, 4, 3), (0, 0, red), np.uint8))
    (tmp_path / "1" / "9.png").write_bytes(b"torn")
    measured = evaluate_classes(model, read_class_folder(tmp_path, model.class_names))
    # An image of red 4 in class 0 has seven classes before its own, one of red 7 in class 1 six, one of red 0 in class 7 seven.
    assert measured.metrics["top-1"] == pytest.approx(2 / 5)
    assert measured.ranks.tolist() == [0, 7, 0, 6, 7]
    assert [row["top-1"] for row in measured.rows(model.class_names)] == [0.5, 0.5, 0.0]
    assert list(measured.broken) == [str(tmp_path / "1" / "9.png")]


def test_of_equal_logits_the_first_class_counts_as_higher() -> None:
    logits = torch.tensor([[1.0, 1, 1], [1, 1, 1], [3, 1, 3], [torch.nan, 1, 0], [2, torch.nan, 0]])
    ranks = ranks_of(logits, torch.tensor([0, 2, 2, 0, 0]))
    assert ranks.tolist() == [0, 2, 1, 5, 0], "a label without a number is not even among the first five"


def test_a_broken_image_is_skipped_and_named(few: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(few, tmp_path / "data")
    torn = next((tmp_path / "data" / "train" / "1").iterdir())
    torn.write_bytes(torn.read_bytes()[:40])
    summary = run(quick(tmp_path / "data"), tmp_path / "run")
    assert list(summary.broken) == [str(torn)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"validation": {"metric": "mpii"}}, r"unknown key 'validation\.metric'"),
        ({"skeleton": "coco17"}, "unknown key 'skeleton'"),
        ({"codec": {"sigma": 3.0}}, "unknown key 'codec'"),
        ({"distillation": {"method": "distilpose", "teacher": "x"}}, "'deit_tiny' takes none or sdpose"),
        ({"model": "sdpose_t", "model_options": {}}, "Model 'sdpose_t' has no setting 'classes'"),
        ({"model_options": {**SMALL, "classes": 7}}, "contains 3 classes, but model_options.classes is 7"),
        ({"classification": {"aspect": [2, 0.5]}}, "the first number must be the minimum"),
        ({"classification": {"aspect": [0, 1]}}, "greater than 0"),
        ({"classification": {"area": [1.0, 0.1]}}, "the first number must be the minimum"),
    ],
)
def test_what_does_not_fit_gets_one_sentence(few: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(LeanposeError, match=words) as caught:
        run(quick(few, **change), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "state.pt").exists()


def test_data_of_the_wrong_kind_get_one_sentence(few: Path, tmp_path: Path) -> None:
    recipe = quick(few)
    for source, words in (
        ([{"format": "coco", "images": "i"}], "Input should be 'image_folder'"),
        ([{"format": "image_folder", "images": "i", "repeat": 3}], "data.train.0.repeat"),
        (recipe["data"]["train"] * 2, "at most 1 item"),
    ):
        with pytest.raises(LeanposeError, match=words):
            run({**recipe, "data": {**recipe["data"], "train": source}}, tmp_path / "run")
    with pytest.raises(LeanposeError, match="'deit_tiny' is a classifier"):
        train(parse_recipe(tiny_recipe(tmp_path, model="deit_tiny", model_options={})), tmp_path / "run")
