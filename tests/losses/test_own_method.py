"""A method of one's own is one file and one entry in METHODS: relations between keypoints, from any heatmap teacher to a SimCC student."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss

from leanpose.codecs import HeatmapCodec, SimCCCodec
from leanpose.codecs.base import Heatmaps, SimCC
from leanpose.errors import LeanposeError
from leanpose.losses import METHODS
from leanpose.losses.base import Criterion, Distillation, require_same_crops, supervised_loss
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.models.registry import create_model
from leanpose.schema import TeacherSection
from leanpose.training.recipe import parse_recipe
from leanpose.training.train import train
from leanpose.weights import save_model
from tiny import TINY_MODEL, tiny_recipe, write_tiny_coco


class RelationSection(TeacherSection):
    method: Literal["relation"] = "relation"  # pyright: ignore[reportIncompatibleVariableOverride]
    relation_weight: float = Field(default=1.0, ge=0)


class RelationLoss(Distillation[RelationSection]):
    """The labels, and how alike the keypoints' distributions along x and y are to each other."""

    section_type = RelationSection

    @classmethod
    def build(
        cls, section: RelationSection, student: PoseModel, teacher: PoseModel | None, criterion: Criterion
    ) -> RelationLoss:
        teacher = require_same_crops(student, teacher)
        if not isinstance(teacher.codec, HeatmapCodec) or not isinstance(student.codec, SimCCCodec):
            raise LeanposeError("relation distils a heatmap teacher into a SimCC student.")
        return cls(criterion, section)

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        assert teacher is not None
        assert isinstance(student.prediction, SimCC)
        assert isinstance(teacher.prediction, Heatmaps)
        heatmaps = teacher.prediction.heatmaps.clamp(min=0)
        sides = ((student.prediction.x, heatmaps.sum(dim=2)), (student.prediction.y, heatmaps.sum(dim=3)))
        loss = sum(mse_loss(_relations(ours), _relations(theirs)) for ours, theirs in sides)
        return {
            "pose": supervised_loss(self.criterion, student, target),
            "relation": self.section.relation_weight * torch.as_tensor(loss),
        }


def _relations(rows: Float[Tensor, "B K bins"]) -> Float[Tensor, "B K K"]:
    unit = torch.nn.functional.normalize(rows.float(), dim=-1)
    return unit @ unit.transpose(1, 2)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "relation", RelationLoss)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    model = create_model("tokenpose_s_v1", **{**TINY_MODEL, "input_size": (64, 64), "patch_size": (4, 4)})
    save_model(model, tmp_path / "teacher.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    return tmp_path / "teacher.safetensors"


def recipe(tmp_path: Path, **section: Any) -> dict[str, Any]:
    write_tiny_coco(tmp_path / "data")
    student = {"input_size": [64, 64], "embed_dim": 16, "gau_qk_dim": 8, "backbone": "cspnext_tiny"}
    return tiny_recipe(tmp_path / "data", model="rtmpose_t", model_options=student,
                       distillation={"method": "relation", **section})  # fmt: skip


@pytest.mark.usefixtures("registered")
def test_it_trains_by_a_recipe(tmp_path: Path, teacher: Path) -> None:
    plan = parse_recipe(recipe(tmp_path, teacher=str(teacher), relation_weight=0.5))
    summary = train(plan, tmp_path / "run", quiet=True)
    assert "AP" in summary.metrics
    with (tmp_path / "run" / "val.csv").open() as file:
        assert list(csv.DictReader(file))
    assert parse_recipe(recipe(tmp_path, teacher="t")).distillation == RelationSection(teacher="t")
    with pytest.raises(LeanposeError, match=r"distillation\.relation'; did you mean 'relation_weight'"):
        parse_recipe(recipe(tmp_path, teacher="t", relation=1))


@pytest.mark.usefixtures("registered")
def test_its_own_check_is_asked(tmp_path: Path, teacher: Path) -> None:
    options = {**TINY_MODEL, "input_size": [64, 64], "patch_size": [4, 4]}
    heatmaps = {**recipe(tmp_path, teacher=str(teacher)), "model": "tokenpose_s_v1", "model_options": options}
    with pytest.raises(LeanposeError, match="into a SimCC student"):
        train(parse_recipe(heatmaps), tmp_path / "run", quiet=True)


def test_without_its_entry_it_is_unknown_and_nothing_else_steps_in(tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match=r"distillation\.method = 'relation' is unknown; choose one of"):
        parse_recipe(recipe(tmp_path, teacher="t"))
