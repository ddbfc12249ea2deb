"""Images that a teacher labels, and people whose labels are hidden."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from leanpose.cli import app
from leanpose.data.annotations import ImageRef
from leanpose.data.images import read_image
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.distillation import DistillationPlan, run_distillation, unlabelled
from leanpose.distillation.plan import BASELINE, DISTILLED
from leanpose.distillation.unlabelled import TeacherLabels, label_images, read_labels, with_unlabelled
from leanpose.errors import LeanposeError
from leanpose.inference.folders import Outcome
from leanpose.skeleton import COCO17
from leanpose.training.build import read_training_people

Plan = Callable[..., DistillationPlan]


def test_unlabelled_images_join_the_distilled_student_alone(data: Path, plan: Plan, tmp_path: Path) -> None:
    labels = TeacherLabels(data / "train.json", data / "images", people=12, images=12, empty=0)
    made = plan()
    grown = with_unlabelled(made, labels)
    assert len(grown.recipe(DISTILLED, 0, tmp_path).data.train) == 2
    assert grown.recipe(BASELINE, 0, tmp_path).data.train == made.recipe(BASELINE, 0, tmp_path).data.train
    planned = grown.with_epochs(10)  # twice the people: half the epochs are as many steps
    assert planned.recipe(BASELINE, 0, tmp_path).schedule.epochs == 10
    assert planned.recipe(DISTILLED, 0, tmp_path).schedule.epochs == 5


def test_people_whose_labels_are_hidden_join_the_distilled_student_alone(
    teacher: str, data: Path, plan: Plan, tmp_path: Path, without_costs: Callable[[], None]
) -> None:
    made = plan("data.train.0.labelled_people=0.5").with_epochs(10)
    kept = {}
    for row in (BASELINE, DISTILLED):
        recipe = made.recipe(row, 0, tmp_path)
        people = read_training_people(recipe)[0].people
        kept[row] = [bool((person.keypoints[:, 2] > 0).any()) for person in people]
        assert recipe.schedule.epochs == (10 if row == BASELINE else round(10 * len(kept[BASELINE]) / 12))
    assert all(kept[BASELINE])
    assert len(kept[DISTILLED]) == 12
    assert 0 < sum(kept[DISTILLED]) == len(kept[BASELINE]) < 12
    assert "the people whose labels are hidden" in " ".join(made.sentences)
    # Their teacher works for them: the distilled student trains.
    without_costs()
    result = run_distillation(made.with_epochs(1), tmp_path / "out", budget="1epochs", force=True, say=lambda _: None)
    assert result.report.is_file()


def test_a_folder_is_labelled(tmp_path: Path) -> None:
    photos = Path(__file__).parents[2] / "src/leanpose/demo/files/free_people/images"
    (tmp_path / "photos").mkdir()
    shutil.copy(photos / "000000247917.jpg", tmp_path / "photos")
    labels = label_images(tmp_path / "photos", "leanpose-body-t", tmp_path / "out" / "labels.json")
    content = json.loads(labels.file.read_text())
    assert labels.people == len(content["annotations"]) > 1
    person = content["annotations"][0]
    scores = np.array(person["keypoint_scores"])
    assert scores.shape == (19,)
    assert ((np.array(person["keypoints"]).reshape(-1, 3)[:, 2] > 0) <= (scores >= 0.5)).all()
    assert read_labels(labels.file, tmp_path / "photos") == labels
    (tmp_path / "empty").mkdir()
    with pytest.raises(LeanposeError, match="no image"):
        label_images(tmp_path / "empty", "leanpose-body-t", tmp_path / "none.json")
    cv2.imwrite(str(tmp_path / "empty" / "wall.png"), np.full((64, 64, 3), 200, np.uint8))
    with pytest.raises(LeanposeError, match="detects no people in the 1 images"):
        label_images(tmp_path / "empty", "leanpose-body-t", labels.file)
    assert json.loads(labels.file.read_text()) == content, "what was found before stays"


def test_a_video_is_labelled_frame_by_frame(tmp_path: Path) -> None:
    photos = Path(__file__).parents[2] / "src/leanpose/demo/files/free_people/images"
    image = np.array(read_image(ImageRef(str(photos / "000000247917.jpg"))))[:256, :320]
    clip = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 256))
    for _ in range(12):
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()
    labels = label_images(clip, "leanpose-body-t", tmp_path / "out" / "labels.json")
    assert sorted(path.name for path in labels.root.iterdir()) == [
        "clip-000000.jpg", "clip-000005.jpg", "clip-000010.jpg",
    ]  # fmt: skip
    assert labels.images == 3
    assert read_labels(labels.file, clip) == labels
    source = DatasetConfig(format="coco", images=labels.root, annotations=labels.file)
    assert len(read_people(source, COCO17, training=True).people) == labels.people >= 3


def test_labels_of_a_teacher_that_was_stopped_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(image := tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(unlabelled, "PoseEstimator", lambda *_, **__: None)

    def stopped(*_: object, labels: Path, **__: object) -> Outcome:
        labels.write_text("{}")
        return Outcome(done=1, people=1, stopped=True)

    monkeypatch.setattr(unlabelled, "predict_images", stopped)
    file = tmp_path / "labels.json"
    assert str(label_images(image, "leanpose-body-t", file)).endswith("labels.json; stopped early")
    result = CliRunner().invoke(app, ["data", "label", str(image), "--out", str(file)])
    assert result.exit_code == 130
