"""The demo: poses on photographs, then distillation, measured on people that the student has not seen.

It trains one small student twice on the few labelled people of `files/free_people`, from the same start, with the same
seed and for the same number of steps: from the labels alone, and from the labels and a teacher's heatmaps. Whichever is
better, it says so.
"""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from rich.console import Console

from leanpose.backends.torch import TorchBackend
from leanpose.data.annotations import PoseAnnotation, PoseDataset
from leanpose.data.dataset import TopDownDataset
from leanpose.data.images import read_image
from leanpose.drawing.skeleton import contact_sheet, draw_poses
from leanpose.evaluation.bootstrap import bootstrap_ap, interval
from leanpose.evaluation.evaluate import coco_ap, mean_pose, predict_people
from leanpose.evaluation.predictions import PosePredictions
from leanpose.files import atomic_write, require_own_folder
from leanpose.inference.estimator import DEFAULT_MODEL, PoseEstimator
from leanpose.models.base import PoseModel
from leanpose.report import Report, ReportImage, RunRecord, read_run, write_report
from leanpose.skeleton import Skeleton
from leanpose.training.build import build_model, load_teacher, read_training_people
from leanpose.training.log import duration
from leanpose.training.optimizers import build_optimizers
from leanpose.training.recipe import Recipe, load_recipe
from leanpose.training.task import build_task
from leanpose.training.train import train
from leanpose.weights import load_model

MARKER = ".leanpose-demo"  # lies in the folder of a demo, which the next one may replace
RECIPE = Path(__file__).with_name("recipe.yaml")
PEOPLE = Path(__file__).with_name("files") / "free_people"
GROUP_PHOTOS = ("000000247917.jpg", "000000507223.jpg", "000000286553.jpg")  # of the people to measure on
COMPARED_PHOTOS = (*GROUP_PHOTOS, "000000345466.jpg", "000000343218.jpg")
PLAIN, TAUGHT = "plain", "taught"  # the recipe's rows
UNTRAINED = "untrained"
MAX_EPOCHS = 100
DRAWS = 200  # of the bootstrap
DRAWN_FROM = 0.2  # the score; a student's are lower than its teacher's


@dataclass(frozen=True)
class DemoResult:
    """Where the report is, and the sentences that sum it up."""

    report: Path
    summary: list[str]


@dataclass(frozen=True)
class _Measured:
    """A model's poses in the labelled boxes of the unseen people, and their AP in per cent with its 95 % interval."""

    name: str
    poses: PosePredictions
    ap: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        return f"{self.ap:.1f} ({self.interval[0]:.1f} to {self.interval[1]:.1f})"


def run_demo(out: Path, photo: Path | None = None, minutes: float = 4.0, seed: int = 0) -> DemoResult:
    """Run the whole demo in a folder.

    Args:
        out: gets `report.html`, `photos/`, `plain/` and `taught/`; what an earlier demo left there is replaced.
        photo: a photo of yours, to be looked at beside the demo's own.
        minutes: for the two trainings together; the number of epochs, the same for both, is chosen to fit.
        seed: of the order of training and its crops.

    Raises:
        LeanposeError: the photo cannot be read, or the folder cannot be written.
    """
    began = time.monotonic()
    console = Console()
    mine = [] if photo is None else [(photo.name, read_image(photo))]
    torch.set_float32_matmul_precision("high")
    require_own_folder(out, MARKER, "demo")
    with atomic_write(out / MARKER) as path:
        path.touch()
    photos = _look_at_photos(out / "photos", mine, console)

    recipes = {name: _recipe(name, out, seed) for name in (PLAIN, TAUGHT)}
    seconds = {name: _seconds_an_epoch(recipe) for name, recipe in recipes.items()}
    epochs = int(np.clip(0.9 * 60 * minutes / sum(seconds.values()), 2, MAX_EPOCHS))
    train_people, val_people = _people(recipes[PLAIN])
    _say(
        console,
        f"Training the same student twice on {len(train_people.people)} labelled people for {epochs} epochs: from the "
        f"labels alone ({PLAIN}), and from the labels and {DEFAULT_MODEL}'s heatmaps ({TAUGHT}).",
    )
    for name, recipe in recipes.items():
        shutil.rmtree(out / name, ignore_errors=True)
        _say(console, f"{name}: about {duration(seconds[name] * epochs)} minutes")
        schedule = recipe.schedule.model_copy(update={"epochs": epochs})
        section = recipe.validation.model_copy(update={"interval": max(epochs // 5, 1)})
        train(recipe.model_copy(update={"schedule": schedule, "validation": section}), out / name, device="cpu")

    models = {DEFAULT_MODEL: _teacher(recipes[TAUGHT]), UNTRAINED: build_model(recipes[PLAIN]).eval()}
    models |= {name: load_model(out / name / "last.safetensors") for name in recipes}
    skeleton = models[PLAIN].skeleton
    measured, gains = _measure(models, val_people, skeleton, seed)
    runs = [read_run(out / name, name) for name in recipes]
    summary = [
        *_summary(measured, gains, runs, val_people),
        f"By the average pose of the {len(train_people.people)} in every box one gets "
        f"{_mean_pose_ap(train_people, val_people, models[PLAIN]):.1f} AP.",
        f"The demo took {duration(time.monotonic() - began)} minutes.",
    ]
    images = [_compare(measured, val_people.people, skeleton), *photos]
    path = out / "report.html"
    write_report(path, Report("leanpose: distillation on few labelled people", summary, runs, images, _notes()))
    return DemoResult(path, summary)


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _look_at_photos(
    folder: Path, mine: Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"]]], console: Console
) -> list[ReportImage]:
    """What detector and default model find, drawn and written to the folder before anything is trained."""
    import cv2  # slow to import

    shutil.rmtree(folder, ignore_errors=True)
    estimator = PoseEstimator(device="cpu", backend="torch")  # others are exported first, which takes a while
    shown = [*mine, *((name, read_image(PEOPLE / "images" / name)) for name in GROUP_PHOTOS)]
    shown.append(("astronaut.png", _astronaut()))
    images = []
    for name, image in shown:
        poses = estimator(image)
        drawn = poses.draw(image)
        path = folder / f"{Path(name).stem}.png"
        encoded = cv2.imencode(".png", drawn[..., ::-1])[1]
        with atomic_write(path) as temporary:
            temporary.write_bytes(encoded.tobytes())
        found = f"{len(poses)} {'person' if len(poses) == 1 else 'people'}"
        _say(console, f"{found} in {name}: {path}")
        images.append(ReportImage(drawn, f"{name}: {found}, found by {estimator.detector.name} and {DEFAULT_MODEL}"))
    return images


def _astronaut() -> UInt8[np.ndarray, "512 512 3"]:
    """The portrait of the astronaut Eileen Collins (NASA, public domain)."""
    from skimage import data  # slow to import

    return np.asarray(data.astronaut())


def _recipe(name: str, out: Path, seed: int) -> Recipe:
    recipe = load_recipe(RECIPE, [f"row={name}", f"seed={seed}"])
    return recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"root": PEOPLE, "cache": out / f"crops-{name}"})}
    )


def _people(recipe: Recipe) -> tuple[PoseDataset, PoseDataset]:
    """Those to train on, and the unseen ones."""
    train_people, val_people = read_training_people(recipe)
    assert val_people is not None, "the demo's recipe has people to measure on"
    return train_people, val_people


def _teacher(recipe: Recipe) -> PoseModel:
    teacher = load_teacher(recipe)
    assert teacher is not None, f"the recipe's row {TAUGHT} has a teacher"
    return teacher.model


def _seconds_an_epoch(recipe: Recipe) -> float:
    """How long an epoch takes, by a few timed steps."""
    model, (people, _) = build_model(recipe).train(), _people(recipe)
    task = build_task(recipe, model, load_teacher(recipe))
    dataset = TopDownDataset(
        people.people, model.skeleton, task.crop_size, warp=model.codec.warp, padding=model.codec.padding
    )
    optimizers = build_optimizers(recipe.optimizer, task)
    times = []
    for step in range(4):
        began = time.perf_counter()
        batch = dataset.collate([dataset[i] for i in range(step * recipe.batch_size, (step + 1) * recipe.batch_size)])
        sum(task(*batch.inputs).values(), start=torch.zeros(())).backward()
        for optimizer in optimizers:
            optimizer.step()
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:])) * (len(dataset) // recipe.batch_size)


def _measure(
    models: dict[str, PoseModel], people: PoseDataset, skeleton: Skeleton, seed: int
) -> tuple[list[_Measured], tuple[float, float]]:
    """Each model on the unseen people, in the student's keypoints, and the interval of the taught student's gain."""
    poses = {}
    for name, model in models.items():
        backend = TorchBackend(model, torch.device("cpu"))
        found, _ = predict_people(backend, people.people, flip_test=False)
        poses[name] = found.with_keypoints(skeleton.indices_in(model.skeleton))
    draws = dict(
        zip(poses, 100 * bootstrap_ap([*poses.values()], people, skeleton, draws=DRAWS, seed=seed), strict=True)
    )
    measured = [
        _Measured(name, found, 100 * coco_ap(found, people, skeleton)["AP"], interval(draws[name]))
        for name, found in poses.items()
    ]
    return measured, interval(draws[TAUGHT] - draws[PLAIN])


def _mean_pose_ap(train_people: PoseDataset, people: PoseDataset, model: PoseModel) -> float:
    """AP in per cent of putting everybody's average pose into each box."""
    return 100 * coco_ap(mean_pose(train_people.people, people.people, model.input_size), people, model.skeleton)["AP"]


def _summary(
    measured: Sequence[_Measured], gains: tuple[float, float], runs: Sequence[RunRecord], people: PoseDataset
) -> list[str]:
    teacher, untrained, plain, taught = measured
    gain = taught.ap - plain.ap
    images = len({person.image_id for person in people.people})
    minutes = [duration(run.last["seconds"]) for run in runs]
    return [
        f"On {len(people.people)} unseen people in {images} photos the student reached {plain} AP from the labels alone, and "
        f"{taught} AP from the labels and {teacher.name}: {gain:+.1f} AP ({gains[0]:+.1f} to {gains[1]:+.1f}); {verdict(gains)}.",
        f"Both took {runs[0].last['step']:.0f} steps from the same start ({untrained} AP), in {minutes[0]} and {minutes[1]} "
        f"minutes, and cost the same at inference. The teacher itself reaches {teacher} AP.",
        "AP in the labelled boxes, without flip test, after the last epoch; in brackets 95 % intervals of a bootstrap over "
        f"the photos ({DRAWS} draws). One seed: another start or order is not in the interval.",
    ]


def verdict(gains: tuple[float, float]) -> str:
    """What the interval of the taught student's gain says."""
    if gains[0] > 0:
        return "the teacher helped"
    return "the teacher did harm" if gains[1] < 0 else "that may be chance, since the interval holds 0"


def _compare(measured: Sequence[_Measured], people: Sequence[PoseAnnotation], skeleton: Skeleton) -> ReportImage:
    """The same photos under teacher and trained students, in the labelled boxes."""
    drawn: list[UInt8[np.ndarray, "_ _ 3"]] = []
    captions: list[str] = []
    measured = [model for model in measured if model.name != UNTRAINED]
    for name in COMPARED_PHOTOS:
        rows = [i for i, person in enumerate(people) if Path(str(person.image)).name == name]
        image = read_image(PEOPLE / "images" / name)
        for model in measured:
            poses = model.poses.select(rows)
            drawn.append(draw_poses(image, poses.keypoints, poses.keypoint_scores, skeleton, threshold=DRAWN_FROM))
            captions.append(model.name)
    caption = "Photos that no student has seen: the teacher, the plain and the taught student in the labelled boxes."
    return ReportImage(contact_sheet(drawn, len(measured), captions, cell=(300, 320)), caption)


def _notes() -> list[str]:
    with (PEOPLE / "ATTRIBUTION.csv").open(newline="") as file:
        sources = {row["file"]: row for row in csv.DictReader(file)}
    shown = [
        f"{name}: {sources[name]['source (flickr)'].removeprefix('http://')}, {sources[name]['licence']}"
        for name in COMPARED_PHOTOS
    ]
    return [
        f"Photos: COCO's, resized, with skeletons drawn on them. {'; '.join(shown)}. Labels: COCO Consortium, CC BY 4.0.",
        f"The student starts as {DEFAULT_MODEL} on a quarter of the pixels, so its weights have learnt from many more people "
        "before; the people that it is measured on are in no training data of leanpose. So few people say which way of training "
        "is better here, not how accurate the library is.",
    ]
