"""Every kind of teacher teaches every kind of student: on synthetic people the loss against the teacher falls, also on those
that the student has not seen."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leanpose.backends.model import BackendModel
from leanpose.codecs.base import Coordinates, Heatmaps, Prediction, SimCC
from leanpose.codecs.heatmap import HeatmapTarget
from leanpose.codecs.simcc import SimCCTarget
from leanpose.data.batch import CropBatch
from leanpose.data.dataset import TopDownDataset
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.inference.choice import BackendSetup, open_setup
from leanpose.losses.auto import AutoLoss, AutoSection
from leanpose.losses.crop_alignment import CropAlignment
from leanpose.losses.rle import RLELoss
from leanpose.models.base import PoseOutput
from leanpose.models.registry import create_model
from leanpose.skeleton import COCO17
from leanpose.training.task import PoseTask, Teacher

SIZE = (64, 96)
TOKENS: dict[str, Any] = {
    "stem_width": 8, "stage1_width": 8, "stage1_blocks": 1, "embed_dim": 16, "depth": 2, "num_heads": 2,
}  # fmt: skip
SIMCC = {"backbone": "movenet_lightning", "embed_dim": 16, "gau_qk_dim": 8}
DECODER = {"backbone": "rtmdet_nano", "embed_dim": 32, "encoder_layers": 1, "decoder_layers": 2, "num_heads": 4}
TEACHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "heatmap": ("tokenpose_s_v1", {**TOKENS, "head_hidden": 16}),
    "simcc": ("rtmpose_t", SIMCC),
    "coordinates": ("distilpose_s", TOKENS),
    "decoder": ("tfpose_r18", DECODER),
    "onnx": ("tokenpose_s_v1", {**TOKENS, "head_hidden": 16}),
}
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "heatmap": ("tokenpose_s_v1", {**TOKENS, "head_hidden": 16}),
    "simcc": ("rtmpose_t", SIMCC),
    "coordinates": ("distilpose_s", {**TOKENS, "outputs": "xy"}),
    "coordinates with rle": ("distilpose_s", {**TOKENS, "outputs": "rle"}),
    "tokens": ("sdpose_t", {**TOKENS, "head_hidden": 16, "cycles": 2}),
    "decoder": ("tfpose_r18", DECODER),
}
STEPS = 15


class KnowingTeacher(Teacher):
    """Finds the labels, as a model of its kind writes them; they are told before each step."""

    keypoints: torch.Tensor

    def _pass(self, forward: Any, images: torch.Tensor) -> PoseOutput:
        found = super()._pass(forward, images)
        if isinstance(self.model, BackendModel):
            return found  # what a file computes is its own business
        alignment = CropAlignment(SIZE, self.model.input_size, self.model.codec.warp)
        points = self.keypoints * alignment.scale() + torch.tensor(alignment.offset)
        order = [
            COCO17.keypoints.index(name) if name in COCO17.keypoints else 0 for name in self.model.skeleton.keypoints
        ]
        target = self.model.codec.encode(points[:, order], torch.ones(len(points), len(order)))
        return PoseOutput(as_prediction(target))


def as_prediction(target: Any) -> Prediction:
    """What a model predicts that has learned the target."""
    if isinstance(target, HeatmapTarget):
        return Heatmaps(target.heatmaps)
    if isinstance(target, SimCCTarget):
        return SimCC(target.x, target.y)
    return Coordinates(target.xy, score=torch.full(target.xy.shape[:2], 0.9))


@cache
def teacher(kind: str) -> KnowingTeacher:
    """Of crops of another aspect than the students', with more keypoints."""
    torch.manual_seed(1)
    name, options = TEACHERS[kind]
    model = create_model(name, input_size=(96, 96), skeleton="body19", **options)
    if kind == "onnx":
        setup = BackendSetup("onnxruntime", "fp32")
        model = BackendModel(open_setup(model.eval(), torch.device("cpu"), setup))
    return KnowingTeacher(model)


@cache
def batches() -> tuple[CropBatch, CropBatch]:
    people = read_people(DatasetConfig(format="synthetic", count=24, size=(96, 144)), COCO17, Path(), training=True)
    dataset = TopDownDataset(people.people[:16], COCO17, SIZE, warp="msra")
    first, second = (dataset.collate([dataset[i] for i in range(start, start + 8)]) for start in (0, 8))
    return first, second


# By default every student with one teacher, and every teacher; that every pair can be built and computed, tests/distillation/test_pairs.py sees.
CELLS = [(teacher, student) for teacher in TEACHERS for student in STUDENTS]
DEFAULT = {(list(TEACHERS)[number % len(TEACHERS)], student) for number, student in enumerate(STUDENTS)}


@pytest.mark.parametrize(
    ("teacher_kind", "student_kind"),
    [pytest.param(*cell, marks=() if cell in DEFAULT else pytest.mark.slow) for cell in CELLS],
)
def test_a_held_out_loss_falls(teacher_kind: str, student_kind: str) -> None:
    torch.manual_seed(0)
    name, options = STUDENTS[student_kind]
    student = create_model(name, input_size=SIZE, **options).train()
    criterion = RLELoss.for_student(student) if "rle_sigma" in student.provides else student.codec
    own = teacher(teacher_kind)
    section = AutoSection(teacher="t", gt_weight=0, min_confidence=0.0)
    task = PoseTask(student, AutoLoss.build(section, student, own.model, criterion), None, own)
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3)

    def terms(batch: CropBatch) -> dict[str, torch.Tensor]:
        own.keypoints = batch.inputs[1]
        return task(*batch.inputs)

    seen, unseen = batches()
    with torch.no_grad():
        before = {term: float(value) for term, value in terms(unseen).items()}
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.stack(list(terms(seen).values())).sum().backward()
        optimizer.step()
    with torch.no_grad():
        after = {term: float(value) for term, value in terms(unseen).items()}
    assert np.isfinite([*before.values(), *after.values()]).all()
    assert 0 != after["teacher"] < before["teacher"]
