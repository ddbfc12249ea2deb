"""Any teacher to any student: what the teacher finds, in the student's crop and in its own form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leanpose.codecs import CoordinateCodec, HeatmapCodec, SimCCCodec
from leanpose.codecs.base import Codec, Coordinates, Heatmaps, Prediction, SimCC
from leanpose.errors import LeanposeError
from leanpose.geometry import Warp, apply_affine, warp_image, warp_matrix
from leanpose.losses.auto import AutoLoss, AutoSection, TeacherTargets
from leanpose.losses.base import common_keypoints
from leanpose.losses.crop_alignment import CropAlignment
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.models.registry import create_model
from leanpose.training.recipe import parse_recipe
from leanpose.training.train import train
from leanpose.weights import save_model
from outputs import present
from tiny import TINY_MODEL, tiny_recipe, write_tiny_coco

SIZES = [((128, 96), (128, 96)), ((128, 96), (256, 192)), ((256, 192), (192, 192)), ((96, 96), (128, 64))]


def predict(codec: Codec[Any, Any], points: torch.Tensor, scores: torch.Tensor) -> Prediction:
    """A perfect model's prediction of these points, in pixels of its crop."""
    target = codec.encode(points, torch.ones_like(scores))
    if isinstance(codec, HeatmapCodec):
        return Heatmaps(target.heatmaps * scores[..., None, None])
    if isinstance(codec, SimCCCodec):
        return SimCC(target.x * scores[..., None], target.y * scores[..., None])
    return Coordinates(target.xy, score=scores)


def codecs(size: tuple[int, int], warp: Warp) -> list[Codec[Any, Any]]:
    maps = (size[0] // 4, size[1] // 4)
    found: list[Codec[Any, Any]] = [
        HeatmapCodec(size, maps, encoding="udp" if warp == "udp" else "unbiased"),
        CoordinateCodec(size, encoding=warp),
    ]
    return [*found, SimCCCodec(size)] if warp == "msra" else found


@pytest.mark.parametrize("warp", ["udp", "msra"])
@pytest.mark.parametrize(("student_size", "teacher_size"), SIZES)
def test_the_teacher_sees_the_same_region(
    student_size: tuple[int, int], teacher_size: tuple[int, int], warp: Warp
) -> None:
    # A bright spot of the image lies where the student's point, fitted, says.
    image = np.zeros((480, 480, 3), np.uint8)
    spot = np.array([[250.0, 230.0]])
    image[226:235, 246:255] = 255
    center = np.array([240.0, 240.0])
    scale = np.array([240.0, 240.0 * student_size[0] / student_size[1]])
    alignment = CropAlignment(student_size, teacher_size, warp)
    crop = warp_image(image, warp_matrix(center, scale, alignment.crop_size, warp=warp), alignment.crop_size)
    seen = alignment.teacher_crops(torch.from_numpy(crop)[None])[0].numpy()
    assert seen.shape == (*teacher_size, 3)
    weight = seen[..., 0].astype(float)
    y, x = np.indices(weight.shape)
    found = torch.tensor([[[(x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()]]])
    expected = apply_affine(warp_matrix(center, scale, student_size, warp=warp), spot)
    np.testing.assert_allclose(alignment.student_points(found)[0], expected, atol=0.35)


@pytest.mark.parametrize("warp", ["udp", "msra"])
@pytest.mark.parametrize(("student_size", "teacher_size"), SIZES)
def test_every_form_of_teacher_gives_every_form_of_student_the_same_points(
    student_size: tuple[int, int], teacher_size: tuple[int, int], warp: Warp
) -> None:
    alignment = CropAlignment(student_size, teacher_size, warp)
    (x, y), (h, w) = alignment.offset, alignment.inner
    inside = torch.tensor([[[0.3 * w + x, 0.4 * h + y], [0.6 * w + x, 0.7 * h + y], [0.5 * w + x, 0.2 * h + y]]])
    scores = torch.tensor([[0.9, 0.8, 0.1]])
    expected = alignment.student_points(inside)[0]
    for teacher in codecs(teacher_size, warp):
        for student in codecs(student_size, warp):
            common = ([1, 2, 0], [0, 1, 2])
            targets = TeacherTargets(student, teacher, alignment, common, keypoints=4, min_confidence=0.2)
            target = targets(predict(teacher, inside, scores))
            drawn: Any = (
                Heatmaps(target.heatmaps)
                if isinstance(student, HeatmapCodec)
                else SimCC(target.x, target.y)
                if isinstance(student, SimCCCodec)
                else Coordinates(target.xy)
            )
            points = student.decode(drawn)[0][0]
            case = f"{teacher.name} to {student.name}"
            np.testing.assert_allclose(points[1], expected[0], atol=1.1, err_msg=case)
            np.testing.assert_allclose(points[2], expected[1], atol=1.1, err_msg=case)
            weights = target.weights[0]
            assert weights[3] == 0, "no keypoint of the teacher's"
            if isinstance(student, HeatmapCodec) and isinstance(teacher, HeatmapCodec):
                assert weights[:3].tolist() == [1, 1, 1], "a heatmap says itself how sure it is"
                assert target.heatmaps[0, 0].max() < 0.15
            else:
                assert weights[0] == 0, "below the least confidence"
                np.testing.assert_allclose(weights[1:3], [0.9, 0.8], atol=0.06, err_msg=case)


def tiny_model(name: str, **options: Any) -> PoseModel:
    return create_model(name, **{**TINY_MODEL, **options})


def test_labels_and_teacher_count_as_the_section_says() -> None:
    student, teacher = tiny_model("tokenpose_s_v1"), tiny_model("distilpose_s", skeleton="crowdpose14")
    own, theirs = common_keypoints(student, teacher)
    assert [student.skeleton.keypoints[i] for i in own] == [teacher.skeleton.keypoints[i] for i in theirs]
    output = PoseOutput(Heatmaps(torch.rand(2, 17, *student.codec.heatmap_size)))  # pyright: ignore
    found = PoseOutput(Coordinates(torch.full((2, 14, 2), 0.5), score=torch.full((2, 14), 0.8)))
    labelled = torch.zeros(2, 17)
    labelled[:, own[0]] = 1
    target = student.codec.encode(torch.full((2, 17, 2), 9.0), labelled)

    def terms(**settings: Any) -> dict[str, float]:
        section = AutoSection(teacher="t", teacher_auxiliary_weight=0, **settings)
        loss = AutoLoss.build(section, student, teacher, student.codec)
        return {name: float(value) for name, value in loss(output, found, target).items()}

    plain = terms()
    assert plain["pose"] == pytest.approx(float(student.codec.loss(output.prediction, target)))
    assert terms(gt_weight=0).keys() == {"teacher"}
    assert terms(teacher_weight=3.0)["teacher"] == pytest.approx(3 * plain["teacher"], rel=1e-5)
    assert terms(only_unlabelled=True)["teacher"] == pytest.approx(plain["teacher"] * 11 / 12, rel=0.1)
    assert terms(min_confidence=0.9)["teacher"] == 0
    sentences = AutoLoss.build(AutoSection(teacher="t"), student, teacher, student.codec).explain()
    assert sentences[1].startswith(
        "teacher: weight 1, the student's loss against the teacher's keypoints (coordinates), "
    )
    assert f"{len(own)} of its 17 keypoints, labelled or not" in sentences[1]


def test_a_deviation_is_compared_with_the_teachers_heatmaps() -> None:
    student, teacher = tiny_model("distilpose_s", outputs="xy_sigma_score"), tiny_model("tokenpose_s_v1")
    section = AutoSection(teacher="t", teacher_auxiliary_weight=0)
    loss = AutoLoss.build(section, student, teacher, student.codec)
    assert [term.split(":")[0] for term in loss.explain()] == ["pose", "teacher", "simulated_heatmaps", "confidence"]
    points, size = torch.full((1, 17, 2), 12.0), teacher.codec.heatmap_size  # pyright: ignore
    found = PoseOutput(predict(teacher.codec, points, torch.ones(1, 17)))
    target = student.codec.encode(points, torch.ones(1, 17))

    def simulated(shift: float, sigma: float) -> float:
        height, width = student.input_size
        xy = points / torch.tensor([width, height]) + shift
        output = PoseOutput(Coordinates(xy, torch.full((1, 17, 2), sigma), torch.ones(1, 17)))
        return float(loss(output, found, target)["simulated_heatmaps"])

    assert teacher.codec.sigma == 2.0  # pyright: ignore
    assert simulated(0, 2.0) < 1e-4 < min(simulated(2 / size[1], 2.0), simulated(0, 1.0))


def test_the_score_learns_what_the_teachers_heatmap_says_at_the_predicted_point() -> None:
    student, teacher = tiny_model("distilpose_s", outputs="xy_sigma_score"), tiny_model("tokenpose_s_v1")
    section = AutoSection(teacher="t", teacher_auxiliary_weight=0, confidence_weight=2.0)
    loss = AutoLoss.build(section, student, teacher, student.codec)
    points = torch.full((1, 17, 2), 12.0)
    target = student.codec.encode(points, torch.ones(1, 17))
    xy = points / torch.tensor([48.0, 64.0])
    for height in (1.0, 0.4):
        found = PoseOutput(predict(teacher.codec, points, torch.full((1, 17), height)))
        output = PoseOutput(Coordinates(xy, torch.full((1, 17, 2), 2.0), torch.full((1, 17), 0.9)))
        error = float(loss(output, found, target)["confidence"]) / 2
        assert error == pytest.approx(abs(0.9 - height), abs=0.02)
        # Three deviations away the teacher's map is empty, and any score is wrong.
        away = PoseOutput(Coordinates(xy + 0.5, torch.full((1, 17, 2), 2.0), torch.full((1, 17), 0.9)))
        assert float(loss(away, found, target)["confidence"]) / 2 == pytest.approx(0.9, abs=0.02)


def test_features_and_tokens_draw_the_teachers_heatmaps() -> None:
    torch.manual_seed(0)
    teacher = tiny_model("tokenpose_s_v1")
    points = 8 + 32 * torch.rand(2, 17, 2)
    found = PoseOutput(predict(teacher.codec, points, torch.ones(2, 17)))
    cases: list[tuple[str, dict[str, Any], tuple[bool, bool]]] = [
        ("rtmpose_t", {"input_size": (64, 32)}, (True, False)),
        ("distilpose_s", TINY_MODEL, (True, True)),
        ("tokenpose_s_v1", TINY_MODEL, (False, True)),
        ("deeppose_r50", {"input_size": (64, 32), "backbone": "rtmdet_nano"}, (True, False)),  # pooled: more did harm
        ("tfpose_r18", {"input_size": (64, 48), "embed_dim": 32, "decoder_layers": 1}, (True, True)),  # padded to 64x64
        (
            "tfpose_r18",
            {"input_size": (64, 48), "embed_dim": 32, "decoder_layers": 1, "backbone": "rtmdet_nano"},
            (True, True),
        ),
    ]
    for name, options, drawn in cases:
        student = create_model(name, **options).train()
        section = AutoSection(teacher="t", teacher_auxiliary_weight=1.0)
        loss = AutoLoss.build(section, student, teacher, student.codec)
        assert (loss.feature_head is not None, loss.token_head is not None) == drawn, name
        target = student.codec.encode(points, torch.ones(2, 17))
        output = student.forward_train(torch.randn(2, 3, *student.input_size))
        value = loss(output, found, target)["teacher_auxiliary"]
        assert float(value.detach()) == pytest.approx(sum(drawn) * (0.03 if student.pools_features else 1)), (
            "1 for maps that show nothing yet"
        )
        for head in (loss.feature_head, loss.token_head):
            if head is not None:  # black at first, so that nothing but these learns in the first step
                torch.nn.init.normal_(head.head.weight, std=0.01)
        loss(output, found, target)["teacher_auxiliary"].backward()
        trained = [n for n, p in student.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        assert any("backbone" in n for n in trained), name


def test_every_cycle_is_taught_and_learns_from_the_next() -> None:
    student, teacher = tiny_model("sdpose_t", cycles=2), tiny_model("distilpose_s")
    student.train()
    loss = AutoLoss.build(AutoSection(teacher="t", cycle_weight=0.5), student, teacher, student.codec)
    assert [term.split(":")[0] for term in loss.explain()] == ["pose", "teacher", "teacher_auxiliary", "cycles"]
    output = student.forward_train(torch.randn(2, 3, 64, 48))
    points = torch.full((2, 17, 2), 12.0)
    found = PoseOutput(predict(teacher.codec, points, torch.ones(2, 17)))
    target = student.codec.encode(points, torch.ones(2, 17))
    terms = loss(output, found, target)
    both = sum(float(student.codec.loss(cycle.prediction, target).detach()) for cycle in output.cycles)
    assert float(terms["pose"].detach()) == pytest.approx(both)
    first, second = output.cycles
    one = torch.nn.functional.layer_norm(present(first.keypoint_tokens), (16,))
    other = torch.nn.functional.layer_norm(present(second.keypoint_tokens), (16,))
    same = PoseOutput(first.prediction, cycles=(first, replace(second, visual_tokens=first.visual_tokens)))
    distance = float((one - other).square().mean().detach())
    assert float(loss(same, found, target)["cycles"].detach()) == pytest.approx(0.5 * distance, rel=1e-5)


def test_tokens_of_another_width_and_other_keypoints_are_compared() -> None:
    student = tiny_model("distilpose_s")
    teacher = tiny_model("tokenpose_s_v1", embed_dim=24, num_heads=3, skeleton="crowdpose14")
    loss = AutoLoss.build(AutoSection(teacher="t", token_weight=1.0), student, teacher, student.codec)
    assert loss.explain()[-1].startswith("keypoint_tokens: weight 1")
    own, theirs = common_keypoints(student, teacher)
    student_output, found = student.forward_train(torch.randn(1, 3, 64, 48)), teacher(torch.randn(1, 3, 64, 48))
    assert loss.tokens is not None
    with torch.no_grad():
        tokens = loss.tokens(present(student_output.keypoint_tokens)[:, own])
        wanted = present(found.keypoint_tokens)[:, theirs]
        assert tokens.shape == wanted.shape
        # Scaled alike, so that the teacher's scale does not count.
        larger = replace(found, keypoint_tokens=100 * present(found.keypoint_tokens) + 5)
        target = student.codec.encode(torch.full((1, 17, 2), 9.0), torch.ones(1, 17))
        one, other = (float(loss(student_output, t, target)["keypoint_tokens"]) for t in (found, larger))
    assert one == pytest.approx(other, rel=0.05)
    assert one > 0.1


def test_teachers_of_other_things_are_refused() -> None:
    student, teacher = tiny_model("tokenpose_s_v1"), tiny_model("tokenpose_s_v1")
    teacher.skeleton = replace(teacher.skeleton, keypoints=tuple(f"paw_{i}" for i in range(17)), name="cat")
    with pytest.raises(LeanposeError, match=r"Teacher and student have no keypoint in common \('cat' and 'coco17'\)"):
        AutoLoss.build(AutoSection(teacher="t"), student, teacher, student.codec)


@pytest.mark.parametrize(
    ("student", "teacher"),  # a held-out loss of every pair is in test_matrix.py
    [("tokenpose_s_v1", "distilpose_s"), ("distilpose_s", "tokenpose_s_v1"), ("rtmpose_t", "distilpose_s")],
)
def test_runs(tmp_path: Path, student: str, teacher: str) -> None:
    write_tiny_coco(tmp_path / "data")
    options = {**TINY_MODEL, "input_size": (48, 48)}
    save_model(
        create_model(teacher, skeleton="body19", **options),
        tmp_path / "t.safetensors",
        training_data=[],
        licence="Apache-2.0",
        metrics={},
    )
    recipe = tiny_recipe(tmp_path / "data", distillation={"method": "auto", "teacher": str(tmp_path / "t.safetensors")})
    if student != "tokenpose_s_v1":
        small = {
            "distilpose_s": dict(TINY_MODEL),
            "rtmpose_t": {"input_size": (64, 32)},
        }[student]
        recipe |= {"model": student, "model_options": small, "codec": {}}
    assert "AP" in train(parse_recipe(recipe), tmp_path / "run", quiet=True).metrics
