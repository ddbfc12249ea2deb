"""One command from a teacher, a student and data to the report: what is chosen, refused, resumed and measured."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from leanpose.cli import app
from leanpose.codecs import ScoreCalibration
from leanpose.data.annotations import ImageRef, PoseAnnotation, PoseDataset
from leanpose.data.images import read_image
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.distillation import DistillationPlan, plan_distillation, run_distillation, unlabelled
from leanpose.distillation.evaluation import Gain, gain_of, keypoint_gains
from leanpose.distillation.leaks import check_leaks
from leanpose.distillation.plan import BASELINE, DISTILLED, epochs_for
from leanpose.distillation.run import explain, train_run
from leanpose.distillation.unlabelled import TeacherLabels, label_images, read_labels, with_unlabelled
from leanpose.errors import LeanposeError
from leanpose.evaluation.predictions import PosePredictions
from leanpose.inference.folders import Outcome
from leanpose.models.registry import create_model
from leanpose.report.costs import ModelCost
from leanpose.report.evaluation import BootstrappedMetric, EvaluatedModel, ModelComparison, keypoint_hits
from leanpose.skeleton import COCO17
from leanpose.training.build import build_model, load_teacher, read_training_people
from leanpose.training.loop import RunSummary
from leanpose.training.recipe import Recipe
from leanpose.training.resume import save_state
from leanpose.weights import load_model, save_model
from tiny import TINY_MODEL, write_tiny_coco

SETTINGS = [*(f"model_options.{key}={value}" for key, value in TINY_MODEL.items()), "batch_size=4"]


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    model = create_model("tokenpose_s_v1", **TINY_MODEL)
    save_model(model, tmp_path / "teacher.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    return str(tmp_path / "teacher.safetensors")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder as people have it: images, train.json and val.json."""
    folder = tmp_path / "people"
    everybody = json.loads(write_tiny_coco(folder, people=18).read_text())
    (folder / "annotations.json").unlink()
    for name, chosen in (("train", range(1, 13)), ("val", range(13, 19))):
        images = [image for image in everybody["images"] if image["id"] in chosen]
        people = [person for person in everybody["annotations"] if person["image_id"] in chosen]
        content = {**everybody, "images": images, "annotations": people}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of a report need no precision here."""
    monkeypatch.setattr("leanpose.report.evaluation.DRAWS", 10)


@pytest.fixture
def without_costs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Time and export no more models; `test_a_comparison_from_start_to_report` does it once."""

    def stop() -> None:
        cost = ModelCost("tokenpose_s_v1", 1_000, 1_000, 1_000, {"torch": 1.0})
        monkeypatch.setattr("leanpose.distillation.report.cost_of", lambda file, **_: cost)

    return stop


def plan(teacher: str, data: Path, *settings: str, **options: Any) -> DistillationPlan:
    return plan_distillation(teacher, "tokenpose_s_v1", data, [*SETTINGS, *settings], **options)


def test_what_is_not_said_is_chosen_and_told(teacher: str, data: Path, tmp_path: Path) -> None:
    made = plan(teacher, data)
    baseline, distilled = made.recipe(BASELINE, 3, tmp_path), made.recipe(DISTILLED, 3, tmp_path)
    assert (baseline.distillation.method, distilled.distillation.method) == ("none", "auto")
    dumps = [recipe.model_dump(exclude={"distillation", "data"}) for recipe in (baseline, distilled)]
    assert dumps[0] == dumps[1]
    assert (baseline.seed, baseline.skeleton, baseline.batch_size, baseline.optimizer.name) == (3, "coco17", 4, "adamw")
    told = " ".join(made.sentences)
    for words in (
        "tokenpose_s_v1, randomly initialised",
        "Trained on train.json, evaluated on val.json",
        "12 people to train on",
    ):
        assert words in told
    # What the user says counts, for both students or for the method.
    changed = plan(teacher, data, "optimizer.lr=5e-1", "distillation.teacher_weight=7")
    assert changed.recipe(BASELINE, 0, tmp_path).optimizer.lr == 0.5
    assert "batches of 4, adamw at 0.5" in " ".join(changed.sentences)
    assert changed.recipe(DISTILLED, 0, tmp_path).model_dump()["distillation"]["teacher_weight"] == 7
    assert changed.recipe(DISTILLED, 0, tmp_path).model_dump()["distillation"]["teacher"] == teacher
    sentences = explain(made, tmp_path)
    assert sentences[0].startswith("pose: weight 1")
    assert "both predict heatmaps" in sentences[1]


def test_a_student_that_starts_from_a_file_keeps_its_form(teacher: str, data: Path, tmp_path: Path) -> None:
    """Its crops too: at another padding `leanpose-body-t` loses 4.4 AP before the first step."""
    model, student = load_model(teacher), str(tmp_path / "student.safetensors")
    codec: Any = model.codec
    model.codec = replace(codec, padding=1.1, calibration=ScoreCalibration(1.5, (0.5,) * 17))
    save_model(model, student, training_data=[], licence="Apache-2.0", metrics={})
    recipe = plan_distillation(teacher, student, data).recipe(BASELINE, 0, tmp_path)
    assert (recipe.model, recipe.init_from, recipe.strict) == ("tokenpose_s_v1", student, False)
    assert recipe.model_options["embed_dim"] == 16
    assert build_model(recipe).codec == model.codec
    assert recipe.batch_size == 4, "few people"
    assert recipe.optimizer.lr == pytest.approx(3e-4 / 8), "good weights are lost at the rate of fresh ones"


def test_a_recipe_says_all(teacher: str, data: Path, tmp_path: Path) -> None:
    recipe = plan(teacher, data, "schedule.epochs=2").recipe(BASELINE, 0, tmp_path)
    (tmp_path / "student.yaml").write_text(recipe.to_yaml())
    again = plan_distillation(teacher, str(tmp_path / "student.yaml")).recipe(BASELINE, 0, tmp_path)
    assert again == recipe
    (tmp_path / "own.yaml").write_text(
        plan(teacher, data, "distillation.method=fpd").recipe(DISTILLED, 0, tmp_path).to_yaml()
    )
    told = plan_distillation(teacher, str(tmp_path / "own.yaml")).sentences
    assert "The recipe's own distillation (fpd) is not used; distillation.method=fpd keeps it." in told
    # Its data serve another student too.
    other = plan_distillation(teacher, "tokenpose_s_v1", tmp_path / "student.yaml", SETTINGS)
    assert other.recipe(BASELINE, 0, tmp_path).data.train == recipe.data.train


def test_rows_of_recipes_are_chosen(teacher: str, data: Path, tmp_path: Path) -> None:
    values = {**yaml.safe_load(plan(teacher, data).to_yaml()), "rows": {"slow": {"optimizer.lr": 0.1}, "fast": {}}}
    source = values["data"]["train"][0]
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(values))
    values["rows"] = {"few": {"data.train": [{**source, "labelled_people": 0.5}]}, "all": {}}
    (tmp_path / "sets.yaml").write_text(yaml.safe_dump(values))
    student, sets = str(tmp_path / "student.yaml"), tmp_path / "sets.yaml"
    assert plan_distillation(teacher, student, None, ["row=slow"]).recipe(BASELINE, 0, tmp_path).optimizer.lr == 0.1
    few = plan_distillation(teacher, "tokenpose_s_v1", sets, [*SETTINGS, "row=few"]).recipe(BASELINE, 0, tmp_path)
    assert few.data.train[0].labelled_people == 0.5
    for student_, data_, settings in ((student, None, []), (student, None, ["row=low"]), ("tokenpose_s_v1", sets, [])):
        with pytest.raises(LeanposeError, match="holds several rows: add row=NAME"):
            plan_distillation(teacher, student_, data_, settings)
    with pytest.raises(LeanposeError, match="row=few chooses a row of a recipe, but neither the student nor --data is"):
        plan(teacher, data, "row=few")


def test_one_file_is_split(teacher: str, data: Path, tmp_path: Path) -> None:
    recipe = plan(teacher, data / "train.json").recipe(BASELINE, 0, tmp_path)
    assert recipe.data.val is not None
    assert (recipe.data.train[0].split, recipe.data.val.split) == ("train", "val")


def break_images(data: Path) -> None:
    shutil.rmtree(data / "images")


@pytest.mark.parametrize(
    ("student", "where", "spoil", "words"),
    [
        ("tokenpos_s_v1", "people", None, "There is no student 'tokenpos_s_v1'; did you mean 'tokenpose_s_v1'"),
        ("qqqq", "people", None, r"There is no student 'qqqq'; there are \d\d, among them (\w+, ){4}\w+\."),
        ("tokenpose_s_v1", "nowhere", None, "There is no .*nowhere"),
        ("tokenpose_s_v1", None, None, "No training data: give --data FOLDER"),
        ("tokenpose_s_v1", "people/images", None, "There is no file of labels"),
        ("tokenpose_s_v1", "people", break_images, r"The images of .*train\.json are not found"),
    ],
)
def test_what_cannot_be_planned_is_said(
    teacher: str,
    data: Path,
    tmp_path: Path,
    student: str,
    where: str | None,
    spoil: Callable[[Path], None] | None,
    words: str,
) -> None:
    if spoil is not None:
        spoil(data)
    with pytest.raises(LeanposeError, match=words):
        plan_distillation(teacher, student, None if where is None else tmp_path / where)


@pytest.mark.parametrize(
    "setting", ["data.train=5", "data.train=[5]", "data.root=5", "validation=off", "optimizer.lr=fast"]
)
def test_settings_of_a_wrong_type_are_named(teacher: str, data: Path, setting: str) -> None:
    with pytest.raises(LeanposeError, match=rf"The plan of this distillation: {setting.partition('=')[0]}.* = "):
        plan(teacher, data, setting)


def test_without_sets_there_is_nobody_to_train_on(teacher: str, data: Path) -> None:
    with pytest.raises(LeanposeError, match=r"data\.train of the recipe has no usable people"):
        plan(teacher, data, "data.train=[]")


def test_budgets(teacher: str, data: Path, tmp_path: Path) -> None:
    made = plan(teacher, data)
    assert epochs_for(made, "20epochs", tmp_path) == 20
    assert epochs_for(made, "1 epoch", tmp_path) == 1
    assert epochs_for(made, "0.00001min", tmp_path) == 1
    assert epochs_for(made, "9h", tmp_path) == 300
    for wrong in ("soon", "0min", "-3epochs", "nanmin", "5"):
        with pytest.raises(LeanposeError, match=f"'{wrong}' is not a budget; write 30min, 2h or 20epochs"):
            epochs_for(made, wrong, tmp_path)


def test_a_comparison_from_start_to_report(
    teacher: str, data: Path, tmp_path: Path, without_costs: Callable[[], None]
) -> None:
    said: list[str] = []
    made, out = plan(teacher, data, seeds=2), tmp_path / "out"
    out.mkdir()
    (out / "unlabelled-0.json").write_text("{}")  # the teacher's labels of images come first
    with pytest.raises(LeanposeError, match="The teacher is not better than the initial student"):
        run_distillation(made, out, budget="1epochs", say=said.append)
    result = run_distillation(made, out, budget="1epochs", force=True, say=said.append)
    assert any("Only 6 people to evaluate on" in sentence for sentence in said)
    figures = json.loads((out / "report.json").read_text())
    assert result.summary[0] == figures["verdict"]
    assert figures["runs"].keys() == {"baseline-0", "baseline-1", "distilled-0", "distilled-1"}
    assert result.gain is not None
    assert len(result.gain.by_seed) == 2
    assert figures["gain"]["mean"] == pytest.approx(
        sum(figures["runs"][f"distilled-{s}"]["AP"] - figures["runs"][f"baseline-{s}"]["AP"] for s in (0, 1)) / 2
    )
    page = result.report.read_text()
    assert f'<p class="verdict">{figures["verdict"]}</p>' in page
    for words in ("Cost and accuracy", "PCK@0.2", "ms onnxruntime", "AP by seed", "Within OKS 0.5", "left wrist",
                  "expected calibration error", "Labels of each keypoint", "Apache-2.0"):  # fmt: skip
        assert words in page
    for name in ("baseline-0", "distilled-1"):
        one = figures["runs"][name]
        low, high = one["interval of PCK@0.2"]
        assert low <= one["PCK@0.2"] <= high
        assert 0 <= one["calibration"]["expected calibration error"] <= 1
        assert sum(one["calibration"]["counts"]) == 6 * 17
        cost = one["cost"]
        weights = (out / name / "last.safetensors").stat().st_size
        assert cost["bytes"] == pytest.approx(weights, abs=200), "measured once; their cards name other sources"
        assert cost["parameters"] > 1000
        assert cost["milliseconds"]["torch"] > 0
        assert cost["milliseconds"].keys() | cost["reasons"].keys() >= {"torch", "onnxruntime", "openvino"}
    assert figures["runs"]["baseline-0"]["cost"] == figures["runs"]["distilled-1"]["cost"], (
        "alike students cost the same"
    )
    train, val = figures["data"]
    assert (train["people"], train["images"], train["labels"]["nose"], train["use"]) == (12, 12, 12, "trains")
    assert (val["people"], val["use"]) == (6, "measures")
    assert figures["terms"]["teacher"]["licence"] == "Apache-2.0"
    assert figures["terms"]["distilled-0"]["licence"] == "unspecified; teacher teacher.safetensors: Apache-2.0"
    assert figures["terms"]["baseline-0"]["licence"] == "unspecified"
    assert figures["curves"]["distilled-0"]["val"][-1]["epoch"] == 1
    assert figures["settings"]["distilled-1"]["seed"] == 1
    # The same again trains nothing; a file that is gone is made again.
    before = {name: (out / name / "last.safetensors").stat().st_mtime_ns for name in figures["runs"]}
    shutil.rmtree(out / "distilled-1")
    without_costs()
    again = run_distillation(made, out, budget="1epochs", force=True, say=said.append)
    after = {name: (out / name / "last.safetensors").stat().st_mtime_ns for name in figures["runs"]}
    assert {name for name in before if before[name] != after[name]} == {"distilled-1"}
    assert again.gain == result.gain, "the run that was made again ends alike"
    assert yaml.safe_load((out / "recipe.yaml").read_text())["rows"].keys() == {"baseline", "distilled"}
    with pytest.raises(LeanposeError, match="contains another distillation"):
        run_distillation(plan(teacher, data, "optimizer.lr=0.5", seeds=2), out, budget="1epochs", force=True)
    with pytest.raises(LeanposeError, match="is not empty and contains no distillation"):
        run_distillation(made, data, budget="1epochs")


def test_without_a_baseline_there_is_no_verdict(
    teacher: str, data: Path, tmp_path: Path, without_costs: Callable[[], None]
) -> None:
    without_costs()
    result = run_distillation(
        plan(teacher, data, baseline=False), tmp_path / "out", budget="1epochs", force=True, say=lambda _: None
    )
    assert result.gain is None
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (figures["verdict"], figures["gain"], figures["keypoints"]) == ("", None, {})
    assert figures["runs"].keys() == {"distilled-0"}
    page = result.report.read_text()
    assert 'class="verdict"' not in page
    assert "differ most" not in page


def test_a_method_of_stages_goes_on_where_it_was_stopped(
    teacher: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Path, bool]] = []

    def train(_recipe: Recipe, run: Path, *, resume: bool, **_: Any) -> RunSummary:
        calls.append((run, resume))
        return RunSummary(run, {}, 0, 1, 0, {})

    monkeypatch.setattr("leanpose.distillation.run.train", train)
    made = plan(teacher, data, "distillation.method=dwpose").with_epochs(1)
    assert made.recipe(DISTILLED, 0, tmp_path).distillation.stages("stage1")
    train_run(made, DISTILLED, 0, tmp_path, "cpu", lambda _: None)
    (tmp_path / "distilled-0" / "stage1").mkdir(parents=True)
    (tmp_path / "distilled-0" / "stage1" / "state.pt").touch()
    train_run(made, DISTILLED, 0, tmp_path, "cpu", lambda _: None)
    assert calls == [(tmp_path / "distilled-0", False), (tmp_path / "distilled-0", True)]


def test_a_run_that_goes_on_keeps_what_its_card_says(
    teacher: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, train = plan(teacher, data).with_epochs(1), Mock()
    begun = made.recipe(DISTILLED, 0, tmp_path)
    begun = begun.model_copy(update={"card": begun.card.model_copy(update={"licence": "the teacher's"})})
    (tmp_path / "distilled-0").mkdir()
    (tmp_path / "distilled-0" / "recipe.yaml").write_text(begun.to_yaml())
    save_state(tmp_path / "distilled-0", {})
    monkeypatch.setattr("leanpose.distillation.run.train", train)
    train_run(made, DISTILLED, 0, tmp_path, "cpu", lambda _: None)
    assert train.call_args.args[0] == begun
    assert train.call_args.kwargs["resume"]


def test_a_image_on_both_sides_is_refused(teacher: str, data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "images" / "3.jpg", data / "images" / "15.jpg")
    with pytest.raises(
        LeanposeError, match=r"1 of the 6 validation images are also in the training set, such as .*15\.jpg"
    ):
        run_distillation(plan(teacher, data), tmp_path / "out", budget="1epochs", force=True)


def test_a_image_that_looks_like_a_trained_one_is_told(data: Path, tmp_path: Path) -> None:
    def people(*names: str) -> PoseDataset:
        where = (ImageRef(str(tmp_path / name)) for name in names)
        return PoseDataset("", [PoseAnnotation(i, np.zeros(4), np.zeros((17, 3)), 0, 0, 1.0) for i in where])

    photos = Path(__file__).parents[2] / "src/leanpose/demo/files/free_people/images"
    first, second, *_ = sorted(photos.iterdir())
    shutil.copy(first, tmp_path / "a.jpg")
    shutil.copy(second, tmp_path / "b.jpg")
    pixels = cv2.imread(str(first))
    assert pixels is not None
    cv2.imwrite(str(tmp_path / "small.jpg"), cv2.resize(pixels, None, fx=0.6, fy=0.6), [cv2.IMWRITE_JPEG_QUALITY, 60])
    (sentence,) = check_leaks(people("a.jpg"), people("small.jpg", "b.jpg"), tmp_path)
    assert re.match(r"1 of the 2 validation images look like training images", sentence)
    assert f"{tmp_path / 'small.jpg'} like {tmp_path / 'a.jpg'}" in sentence
    (tmp_path / "small.jpg").unlink()
    assert check_leaks(people("a.jpg"), people("small.jpg", "b.jpg"), tmp_path) == [sentence], "what was found is kept"
    (tmp_path / "leaks.json").unlink()
    assert check_leaks(people("a.jpg"), people("small.jpg", "b.jpg"), tmp_path) == [], "nothing to compare with"


def test_unlabelled_images_join_the_distilled_student_alone(teacher: str, data: Path, tmp_path: Path) -> None:
    labels = TeacherLabels(data / "train.json", data / "images", people=12, images=12, empty=0)
    made = plan(teacher, data)
    grown = with_unlabelled(made, labels)
    assert len(grown.recipe(DISTILLED, 0, tmp_path).data.train) == 2
    assert grown.recipe(BASELINE, 0, tmp_path).data.train == made.recipe(BASELINE, 0, tmp_path).data.train
    planned = grown.with_epochs(10)  # twice the people: half the epochs are as many steps
    assert planned.recipe(BASELINE, 0, tmp_path).schedule.epochs == 10
    assert planned.recipe(DISTILLED, 0, tmp_path).schedule.epochs == 5


def test_people_whose_labels_are_hidden_join_the_distilled_student_alone(
    teacher: str, data: Path, tmp_path: Path, without_costs: Callable[[], None]
) -> None:
    made = plan(teacher, data, "data.train.0.labelled_people=0.5").with_epochs(10)
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


def test_a_teacher_runs_in_onnx_runtime_where_its_prediction_is_enough(
    teacher: str, data: Path, tmp_path: Path
) -> None:
    found = {}
    for settings in ((), ("distillation.feature_loss=l2",), ("distillation.teacher_backend=torch",)):
        recipe = plan(teacher, data, *settings).recipe(DISTILLED, 0, tmp_path)
        loaded = load_teacher(recipe)
        assert loaded is not None
        crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3), np.uint8))
        found[settings] = loaded, loaded(crops).prediction
    kinds = [type(loaded.model).__name__ for loaded, _ in found.values()]
    assert kinds == ["BackendModel", "TokenPose", "TokenPose"]
    fast, _, eager = (prediction for _, prediction in found.values())
    torch.testing.assert_close(fast.heatmaps, eager.heatmaps, atol=1e-5, rtol=1e-4)  # pyright: ignore
    identities = {loaded.identity for loaded, _ in found.values()}
    assert len(identities) == 2, "a run that is resumed goes on by the same backend"


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


def people_at(points: np.ndarray) -> PoseDataset:
    people = [
        PoseAnnotation(ImageRef(f"{i}.jpg"), np.array([0, 0, 100, 100.0]), keypoints, i, i, 5000.0)
        for i, keypoints in enumerate(points)
    ]
    return PoseDataset("made up", people)


def measured(name: str, keypoints: np.ndarray) -> EvaluatedModel:
    count = len(keypoints)
    poses = PosePredictions(
        image_ids=np.arange(count),
        keypoints=keypoints,
        keypoint_scores=np.ones(keypoints.shape[:2]),
        boxes=np.zeros((count, 4)),
        box_scores=np.ones(count),
        areas=np.full(count, 5000.0),
    )
    return EvaluatedModel(name, poses, BootstrappedMetric(0.0, np.zeros(1)), None, None)


def test_hits_and_gains_of_keypoints() -> None:
    labels = np.full((40, 17, 3), 50.0)
    labels[..., 2] = 2
    labels[:, 3, 2] = 0
    people = people_at(labels)
    right, wrong = labels[..., :2].copy(), labels[..., :2].copy()
    wrong[:20, 5] += 60
    baseline, distilled = measured("baseline", wrong), measured("distilled", right)
    hits = keypoint_hits(baseline, people, COCO17)
    assert hits[:20, 5].sum() == 0
    assert hits[20:, 5].all()
    assert np.isnan(hits[:, 3]).all()
    comparison = ModelComparison({}, people, COCO17, {}, {})
    gains = keypoint_gains([distilled], [baseline], comparison)
    assert "left_ear" not in gains
    labels_of, before, after, (low, high) = gains["left_shoulder"]
    assert (labels_of, before, after) == (40, 50, 100)
    assert 20 < low < 50 < high < 80
    assert gains["nose"] == (40, 100, 100, (0, 0))
    # Seeds that differ widen the interval.
    wider = keypoint_gains([distilled, baseline], [baseline, baseline], comparison)["left_shoulder"].interval
    assert wider[0] == 0
    assert wider[1] - wider[0] > high - low


@pytest.mark.parametrize(
    ("shift", "words"),
    [(3.0, "distilled wins by 3.0 AP"), (-3.0, "distilled loses by 3.0 AP"), (0.2, "no gain shown: [+]0.2 AP")],
)
def test_the_verdict_is_as_plain_about_harm(shift: float, words: str) -> None:
    rng = np.random.default_rng(0)
    baseline = [BootstrappedMetric(20.0, 20 + rng.normal(0, 5, 200)) for _ in range(3)]
    distilled = [BootstrappedMetric(one.value + shift, one.draws + shift + rng.normal(0, 1, 200)) for one in baseline]
    gain = gain_of(distilled, baseline)
    assert gain.mean == pytest.approx(shift)
    np.testing.assert_array_less(gain.interval[0], gain.mean)
    assert re.match(words, gain.verdict)
    better = 3 if shift > 0 else 0
    assert f"better with {better} of 3 seeds" in gain.verdict
    assert "seed" not in gain_of(distilled[:1], baseline[:1]).verdict


def test_the_verdict_names_the_metric() -> None:
    gain = Gain(1.0, (0.5, 1.5), (1.0,), "PCK@0.2")
    assert gain.verdict == "distilled wins by 1.0 PCK@0.2 (+0.5 to +1.5)"


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
