"""Recipes: what is written is what is read, and every mistake gets one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from typer.testing import CliRunner

from leanpose.choices import Cycle, Metric, Scoring, Suppression
from leanpose.classification.recipe import parse_classification_recipe
from leanpose.cli import app
from leanpose.errors import LeanposeError
from leanpose.losses.sdpose import SDPoseSection
from leanpose.models.registry import configure_model, create_model, list_models
from leanpose.training.recipe import find_recipe, load_recipe, parse_recipe, read_recipe

FOLDER = Path(__file__).parents[2] / "recipes"
ROWS = [
    (path, row)
    for path in sorted(FOLDER.rglob("*.yaml"))
    for row in yaml.safe_load(path.read_text()).get("rows") or [None]
]


@pytest.mark.parametrize(("path", "row"), ROWS, ids=lambda x: f"{x.parent.name}/{x.stem}" if isinstance(x, Path) else x)
def test_every_recipe_is_valid_and_says_how_to_run_it_and_what_to_expect(path: Path, row: str | None) -> None:
    values = read_recipe(path, [f"row={row}"] if row else None)
    if values["model"] in list_models(task="classification"):
        recipe = parse_classification_recipe(values)
        configure_model(recipe.model, **recipe.model_options)
    else:
        recipe = parse_recipe(values)
        with torch.device("meta"):
            create_model(recipe.model, skeleton=recipe.skeleton, **recipe.model_options)
        backbone = getattr(configure_model(recipe.model, **recipe.model_options), "backbone", "")
        fresh = recipe.distillation.method != "dwpose_stage2"  # which takes the teacher's backbone
        assert (recipe.pretrained == "backbone") == (
            fresh and backbone.startswith(("hrnet", "resnet", "cspnext", "mobilenet"))
        )
    lines = path.read_text().splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert any(f"leanpose train recipes/{path.parent.name}/{path.name}" in line for line in head)
    expected = head if row is None else [lines[i - 1] for i, line in enumerate(lines) if line.startswith(f"  {row}: ")]
    assert any("Expect" in line for line in expected)
    assert recipe.card.training_data
    assert recipe.card.licence != "unspecified"


def test_the_command_lists_every_row_and_a_recipe_is_found_by_its_name() -> None:
    listed = CliRunner().invoke(app, ["recipes"]).output
    assert listed.count("leanpose train ") == len(ROWS)
    assert listed.count("Expect") == len(ROWS)
    one = CliRunner().invoke(app, ["recipes", "sdpose/table5*last_pose"]).output.splitlines()
    assert one[0] == "leanpose train sdpose/table5 row=last_pose"
    assert find_recipe("sdpose/table5") == FOLDER / "sdpose" / "table5.yaml"
    for name, words in (("sdpose/tabel5", "did you mean 'sdpose/table5'"), ("nothing/like/it", "There is no recipe")):
        with pytest.raises(LeanposeError, match=words):
            find_recipe(name)
    with pytest.raises(LeanposeError, match="several rows: add row=NAME; did you mean 'last_pose'"):
        read_recipe(FOLDER / "sdpose" / "table5.yaml", ["row=last_poses"])


def minimal() -> dict:
    return {"model": "sdpose_t", "data": {"train": [{"format": "coco", "images": "i", "annotations": "a.json"}]}}


def test_a_recipe_survives_being_written_out() -> None:
    recipe = parse_recipe(minimal())
    assert parse_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batchsize": 4}, ["batchsize", "did you mean 'batch_size'?"]),
        ({"optimizer": {"learning_rate": 1}}, ["optimizer.learning_rate"]),
        ({"schedule": {"epoch": 1}}, ["schedule.epoch", "'epochs'"]),
        (
            {"distillation": {"method": "sdpose", "keypoint_token": 0}},
            ["distillation.keypoint_token'", "'keypoint_token_weight'"],
        ),
        (
            {"distillation": {"keypoint_token_weight": 0}},
            ["unknown key 'distillation.keypoint_token_weight'"],
        ),
        ({"distillation": {"method": "sdpos"}}, ["distillation.method = 'sdpos'", "did you mean 'sdpose'?"]),
        ({"distillation": {"method": "distilpose"}}, ["distillation.teacher", "Field required"]),
        (
            {"distillation": {"method": "auto", "teacher": "t", "feature_loss": "cdw"}},
            ["distillation.feature_loss = 'cdw'", "did you mean 'cwd'"],
        ),
        ({"validation": {"scoring": "bbox_rel"}}, ["validation.scoring = 'bbox_rel'", "bbox_rle"]),
        ({"distillation": {"method": "sdpose", "supervise": "first"}}, ["distillation.supervise = 'first'"]),
        ({"distillation": 3}, ["distillation", "3"]),
        ({"batch_size": "many"}, ["batch_size", "many", "integer"]),
        ({"precision": "fp8"}, ["precision", "fp32"]),
        ({"batch_size": 10, "grad_accum_steps": 3}, ["10", "3"]),
        ({"data": {"train": [{"format": "coco", "image": "i"}]}}, ["data.train.0", "did you mean 'images'?"]),
        ({"data": {}}, ["data.train", "Field required"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"codec": {"sigma": "wide"}}, ["codec.sigma = 'wide': it is a number above 0"]),
        ({"codec": {"sigma": [4.9, 0]}}, ["codec.sigma = [4.9, 0]", "two of them"]),
        (
            {"augmentation": {"coarse_dropout_size": [0.4, 0.2]}},
            ["augmentation.coarse_dropout_size", "the first number must be the minimum"],
        ),
        (
            {"data": {"train": [{"format": "lsp", "images": "i", "annotations": "a.mat", "bbox_file": "b.json"}]}},
            ["data.train.0", "bbox_file", "lsp"],
        ),
        ({"data": {"train": [{"format": "cocoa", "images": "i"}]}}, ["data.train.0", "did you mean 'coco'"]),
        ({"accumulate": 4}, ["unknown key 'accumulate'", "called 'grad_accum_steps' now"]),
        ({"optimizer": {"clip": 1.0}}, ["optimizer.clip", "called 'grad_clip_norm' now"]),
        ({"data": {"train": [{"format": "coco", "every": 2}]}}, ["data.train.0.every", "called 'frame_stride' now"]),
        ({"distillation": {"method": "cycles"}}, ["'cycles' is unknown", "called 'sdpose' now"]),
        ({"loss": "rel"}, ["loss = 'rel' is unknown", "did you mean 'rle'"]),
        (
            {"distillation": {"method": "sdpose", "visual_tokens": 0}},
            ["distillation.visual_tokens", "called 'visual_token_weight' now"],
        ),
        ({"pretrained": "backbone", "init_from": "a.safetensors"}, ["pretrained", "init", "one of the two"]),
    ],
)
def test_mistakes_get_one_sentence(change: dict, words: list[str]) -> None:
    with pytest.raises(LeanposeError) as error:
        parse_recipe({**minimal(), **change}, "r.yaml")
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200, "a sentence, not the whole recipe"


def test_recipes_name_what_the_functions_know() -> None:
    """As models with RLE need it: people ranked by `bbox_rle` were out of a recipe's reach."""
    for key, values in {"scoring": Scoring, "nms": Suppression, "metric": Metric, "cycle": Cycle}.items():
        for value in get_args(values):
            assert parse_recipe({**minimal(), "validation": {key: value}}).validation.model_dump()[key] == value


def test_the_last_epochs_are_drawn_otherwise() -> None:
    change = {"scale": 0.4, "hue": 5, "stage2_epochs": 30, "stage2": {"scale": 0.25, "shift_probability": 0}}
    section = parse_recipe({**minimal(), "augmentation": change}).augmentation
    late = section.of_stage2()
    assert (section.scale, late.scale, late.shift_probability, late.hue) == (0.4, 0.25, 0, 5)
    for last, words in (({"scle": 1}, "'scle'; did you mean 'scale'"), ({"scale": 3}, "less than 1")):
        with pytest.raises(LeanposeError, match=words):
            parse_recipe({**minimal(), "augmentation": {"stage2": last, "stage2_epochs": 3}})
    with pytest.raises(LeanposeError, match="stage2 needs stage2_epochs"):
        parse_recipe({**minimal(), "augmentation": {"stage2": {"scale": 0.1}}})


def test_overrides_reach_every_depth(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(minimal()))
    recipe = load_recipe(
        path, ["schedule.epochs=3", "data.train.0.repeat=2", "model_options.depth=4", "ema=0.9", "data.num_workers=0"]
    )
    assert recipe.schedule.epochs == 3
    assert recipe.data.train[0].repeat == 2
    assert recipe.model_options == {"depth": 4}
    assert recipe.ema == 0.9


@pytest.mark.parametrize(
    "override", ["epochs", "=3", "data.train.7.repeat=1", "batch_size.x=1", "schedule=[", "batch_siz=3"]
)
def test_a_wrong_override_gets_one_sentence(tmp_path: Path, override: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**minimal(), "batch_size": 8}))
    with pytest.raises(LeanposeError):
        load_recipe(path, [override])


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\x00"])
def test_a_file_that_is_no_recipe_gets_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(LeanposeError):
        load_recipe(path)
    with pytest.raises(LeanposeError, match="Cannot read"):
        load_recipe(tmp_path / "missing.yaml")


def test_another_method_starts_its_section_anew(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**minimal(), "distillation": {"method": "sdpose", "supervise": "last"}}))
    assert load_recipe(path, ["distillation.method=none"]).distillation.method == "none"
    section = load_recipe(path, ["distillation.teacher=t.safetensors", "distillation.method=distilpose"]).distillation
    assert section.model_dump(include={"method", "teacher", "confidence_weight"}) == {
        "method": "distilpose", "teacher": "t.safetensors", "confidence_weight": 0.01,
    }  # fmt: skip
    kept = load_recipe(path, ["distillation.detach=true"]).distillation
    assert isinstance(kept, SDPoseSection)
    assert kept.supervise == "last"
