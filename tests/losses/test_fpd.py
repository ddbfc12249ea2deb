"""FPD: its equation by hand, a teacher with other keypoints, and a run by a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from leanpose.codecs import HeatmapCodec
from leanpose.codecs.base import Heatmaps
from leanpose.errors import LeanposeError
from leanpose.geometry import apply_affine, warp_matrix
from leanpose.losses.fpd import FPDLoss, FPDSection
from leanpose.models.base import PoseOutput
from leanpose.models.registry import create_model
from leanpose.training.recipe import parse_recipe
from leanpose.training.task import Teacher
from leanpose.training.train import train
from leanpose.weights import save_model
from tiny import TINY_MODEL, tiny_recipe, write_tiny_coco


def test_the_papers_equation_over_the_common_keypoints() -> None:
    student = create_model("tokenpose_s_v1", skeleton="body19", **TINY_MODEL)
    teacher = create_model("tokenpose_s_v1", skeleton="crowdpose14", **TINY_MODEL)
    loss = FPDLoss.build(FPDSection(teacher="t", alpha=0.25), student, teacher, student.codec)
    size = student.codec.encode(torch.zeros(2, 19, 2), torch.ones(2, 19)).heatmaps.shape[2:]
    maps, theirs = torch.rand(2, 19, *size), torch.rand(2, 14, *size)
    target = student.codec.encode(torch.full((2, 19, 2), 9.0), torch.ones(2, 19))
    terms = loss(PoseOutput(Heatmaps(maps)), PoseOutput(Heatmaps(theirs)), target)
    pairs = [
        (maps[:, own], theirs[:, other])
        for own, name in enumerate(student.skeleton.keypoint_names)
        for other, same in enumerate(teacher.skeleton.keypoint_names)
        if name == same
    ]
    assert len(pairs) >= 12
    expected = torch.stack([(a - b).square().mean() for a, b in pairs]).mean()
    assert float(terms["teacher"]) == pytest.approx(0.25 * float(expected), rel=1e-5)
    assert float(terms["pose"]) == pytest.approx(0.75 * float((maps - target.heatmaps).square().mean()), rel=1e-5)


def test_a_teacher_without_heatmaps_is_refused() -> None:
    student = create_model("tokenpose_s_v1", **TINY_MODEL)
    teacher = create_model("distilpose_s", **TINY_MODEL)
    with pytest.raises(LeanposeError, match="must predict heatmaps, which 'distilpose_s' does not"):
        FPDLoss.build(FPDSection(teacher="t"), student, teacher, student.codec)


def test_the_flip_test_of_the_teacher_is_the_mean_of_both_passes() -> None:
    model = create_model("tokenpose_s_v1", **TINY_MODEL).eval()
    images = torch.randint(0, 256, (2, *model.input_size, 3), dtype=torch.uint8)
    plain, mirrored = Teacher(model)(images).prediction, Teacher(model)(images.flip(2)).prediction
    expected = model.codec.merge_flipped(plain, mirrored, model.skeleton.flip_indices)
    found = Teacher(model, flip_test=True)(images).prediction
    assert isinstance(found, Heatmaps)
    assert isinstance(plain, Heatmaps)
    assert torch.equal(found.heatmaps, expected.heatmaps)
    assert not torch.equal(found.heatmaps, plain.heatmaps)


def test_a_run_from_a_teacher_of_other_keypoints(tmp_path: Path) -> None:
    write_tiny_coco(tmp_path / "data")
    teacher = create_model("tokenpose_s_v1", skeleton="crowdpose14", **TINY_MODEL)
    save_model(teacher, tmp_path / "t.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    section = {"method": "fpd", "teacher": str(tmp_path / "t.safetensors"), "teacher_flip_test": True}
    recipe = parse_recipe(tiny_recipe(tmp_path / "data", distillation=section))
    assert "AP" in train(recipe, tmp_path / "run", quiet=True).metrics


@pytest.mark.parametrize("size", [(128, 96), (32, 24)])
def test_a_teacher_of_another_size_gets_its_own_crops(tmp_path: Path, size: tuple[int, int]) -> None:
    write_tiny_coco(tmp_path / "data")
    teacher = create_model("tokenpose_s_v1", **{**TINY_MODEL, "input_size": size})
    assert isinstance(teacher.codec, HeatmapCodec)
    teacher.codec = replace(teacher.codec, encoding="udp")
    save_model(teacher, tmp_path / "t.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    section = {"method": "fpd", "teacher": str(tmp_path / "t.safetensors")}
    recipe = parse_recipe(tiny_recipe(tmp_path / "data", distillation=section, codec={"encoding": "udp"}))
    assert "AP" in train(recipe, tmp_path / "run", quiet=True).metrics


LARGE = {**TINY_MODEL, "input_size": [128, 96]}


@pytest.mark.parametrize("encoding", ["udp", "msra"])
@pytest.mark.parametrize("larger", ["teacher", "student"])
def test_a_teacher_of_another_input_size_agrees_about_where_a_keypoint_is(
    larger: str, encoding: Literal["udp", "msra"]
) -> None:
    models = {
        size: create_model("tokenpose_s_v1", **options) for size, options in (("small", TINY_MODEL), ("large", LARGE))
    }
    for size, model in models.items():
        assert isinstance(model.codec, HeatmapCodec)
        model.codec = replace(model.codec, encoding=encoding, sigma=1.0 if size == "small" else 2.0)
    teacher, student = (
        models["large" if larger == "teacher" else "small"],
        models["small" if larger == "teacher" else "large"],
    )
    loss = FPDLoss.build(FPDSection(teacher="t", alpha=1.0), student, teacher, student.codec)
    # Both sizes show the same region of the image; msra's heatmaps lie on whole pixels, so the point does, too.
    image_points = np.array([[16.0, 24.0]]) if encoding == "msra" else np.array([[14.3, 23.8]])
    maps = {}
    for model in (student, teacher):
        center, scale = np.array([24.0, 32.0]), np.array([48.0, 64.0])
        matrix = warp_matrix(center, scale, model.input_size, warp=model.codec.warp)
        in_crop = torch.tensor(apply_affine(matrix, image_points), dtype=torch.float32).expand(1, 17, 2)
        maps[model] = model.codec.encode(in_crop, torch.ones(1, 17)).heatmaps
    target = student.codec.encode(torch.zeros(1, 17, 2), torch.zeros(1, 17))

    def difference(shown: torch.Tensor) -> float:
        outputs = PoseOutput(Heatmaps(shown)), PoseOutput(Heatmaps(maps[teacher]))
        return float(loss(*outputs, target)["teacher"])

    agreeing, energy = difference(maps[student]), float(maps[student].square().mean())
    assert agreeing < 0.02 * energy
    for axis in (2, 3):
        assert difference(maps[student].roll(1, axis)) > 4 * agreeing + 0.01 * energy


def test_a_teacher_of_another_warp_is_refused() -> None:
    student, teacher = create_model("tokenpose_s_v1", **TINY_MODEL), create_model("tokenpose_s_v1", **LARGE)
    assert isinstance(teacher.codec, HeatmapCodec)
    teacher.codec = replace(teacher.codec, encoding="udp")
    with pytest.raises(LeanposeError, match="was trained with 'udp' crops"):
        FPDLoss.build(FPDSection(teacher="t"), student, teacher, student.codec)
