"""The demo: poses on photographs, then distillation, evaluated on people that the student has not seen.

It trains one small student twice on the few labelled people of `files/free_people`, from the same start, with the same
seed and for the same number of steps: from the labels alone, and from the labels and a teacher. It reports which is
better.
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

from leanpose.console import make_console
from leanpose.data.annotations import PoseAnnotation, PoseDataset
from leanpose.data.images import read_image
from leanpose.distillation.evaluation import Gain, gain_of
from leanpose.distillation.plan import BASELINE, DISTILLED, seconds_an_epoch
from leanpose.drawing.files import write_image
from leanpose.drawing.skeleton import contact_sheet, draw_poses
from leanpose.files import atomic_write, require_own_folder
from leanpose.inference.estimator import DEFAULT_MODEL, PoseEstimator
from leanpose.locks import lock_folder
from leanpose.report import Report, ReportImage, ReportSection, RunRecord, read_run, write_report
from leanpose.report.evaluation import DRAWS, EvaluatedModel, evaluate_models
from leanpose.skeleton import Skeleton
from leanpose.training.build import load_teacher, read_training_people
from leanpose.training.log import duration
from leanpose.training.recipe import Recipe, load_recipe
from leanpose.training.train import train
from leanpose.weights import load_model

MARKER = ".leanpose-demo"  # marks the folder of a demo, which the next one may replace
RECIPE = Path(__file__).with_name("recipe.yaml")
PEOPLE = Path(__file__).with_name("files") / "free_people"
GROUP_PHOTOS = ("000000247917.jpg", "000000507223.jpg", "000000286553.jpg")  # of the people to evaluate on
COMPARED_PHOTOS = (*GROUP_PHOTOS, "000000345466.jpg", "000000343218.jpg")
MAX_EPOCHS = 100
WHY_NO_GAIN = (
    "A likely reason: on few people, seen again and again, a teacher adds little to their labels, and so few unseen people "
    "cannot show a small difference. In larger studies it gained with more people (docs/results/distillation.md)."
)
DRAWN_FROM = 0.2  # the score; a student's are lower than its teacher's


@dataclass(frozen=True)
class DemoResult:
    """The path of the report, and its summary."""

    report: Path
    summary: list[str]


def run_demo(out: Path, photo: Path | None = None, minutes: float = 4.0, seed: int = 0) -> DemoResult:
    """Run the whole demo in a folder.

    Args:
        out: output folder of `report.html`, `photos/`, `baseline/` and `distilled/`; an earlier demo is replaced.
        photo: a photo of your own, in addition to the demo's.
        minutes: time budget of both training runs together; the number of epochs, the same for both, is chosen
            accordingly.
        seed: of the order of training and its crops.

    Raises:
        LeanposeError: the photo cannot be read, the folder cannot be written, or another demo is running in it.
    """
    mine = [] if photo is None else [(photo.name, read_image(photo))]
    require_own_folder(out, MARKER, "demo")
    with lock_folder(out):
        return _run(out, mine, minutes, seed)


def _run(out: Path, mine: Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"]]], minutes: float, seed: int) -> DemoResult:
    """The demo, while its folder is locked."""
    began = time.monotonic()
    console = make_console()
    torch.set_float32_matmul_precision("high")
    with atomic_write(out / MARKER) as path:
        path.touch()
    photos = _look_at_photos(out / "photos", mine, console)

    recipes = {name: _recipe(name, out, seed) for name in (BASELINE, DISTILLED)}
    seconds = {name: seconds_an_epoch(recipe) for name, recipe in recipes.items()}
    epochs = int(np.clip(0.9 * 60 * minutes / sum(seconds.values()), 2, MAX_EPOCHS))
    train_people, val_people = _people(recipes[BASELINE])
    _say(
        console,
        f"Training the same student twice on {len(train_people.people)} labelled people for {epochs} epochs: from the "
        f"labels alone ({BASELINE}), and from the labels and {DEFAULT_MODEL} ({DISTILLED}).",
    )
    for name, recipe in recipes.items():
        shutil.rmtree(out / name, ignore_errors=True)
        _say(console, f"{name}: about {duration(seconds[name] * epochs)} minutes")
        schedule = recipe.schedule.model_copy(update={"epochs": epochs})
        section = recipe.validation.model_copy(update={"interval": max(epochs // 5, 1)})
        train(recipe.model_copy(update={"schedule": schedule, "validation": section}), out / name, device="cpu")

    teacher = load_teacher(recipes[DISTILLED])
    assert teacher is not None, f"the recipe's row {DISTILLED} has a teacher"
    models = {DEFAULT_MODEL: teacher.model, **{name: load_model(out / name / "last.safetensors") for name in recipes}}
    skeleton = models[BASELINE].skeleton
    measured = evaluate_models(models, val_people, skeleton, seed=seed).models
    gain = gain_of([measured[DISTILLED].ap], [measured[BASELINE].ap])
    runs = [read_run(out / name, name) for name in recipes]
    summary = _summary(measured, gain, runs, val_people)
    summary.append(f"The demo took {duration(time.monotonic() - began)} minutes.")
    images = [_compare([*measured.values()], val_people.people, skeleton), *photos]
    path = out / "report.html"
    shown = ReportSection("Images", images)
    write_report(path, Report("leanpose: distillation on few labelled people", summary, runs, [shown], _notes()))
    return DemoResult(path, summary)


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, soft_wrap=True)


def _look_at_photos(
    folder: Path, mine: Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"]]], console: Console
) -> list[ReportImage]:
    """Draw the predictions of detector and default model and write them to the folder before any training."""
    from skimage import data  # slow to import

    shutil.rmtree(folder, ignore_errors=True)
    estimator = PoseEstimator(device="cpu", backend="torch")  # others are exported first, which takes a while
    shown = [*mine, *((name, read_image(PEOPLE / "images" / name)) for name in GROUP_PHOTOS)]
    shown.append(("astronaut.png", np.asarray(data.astronaut())))  # Eileen Collins (NASA, public domain)
    images = []
    for name, image in shown:
        poses = estimator(image)
        drawn, path = poses.draw(image), folder / f"{Path(name).stem}.png"
        write_image(drawn, path)
        found = f"{len(poses)} {'person' if len(poses) == 1 else 'people'}"
        _say(console, f"{found} in {name}: {path}")
        images.append(
            ReportImage(drawn, f"{name}: {found}, predicted by {estimator.detector.name} and {DEFAULT_MODEL}")
        )
    return images


def _recipe(name: str, out: Path, seed: int) -> Recipe:
    recipe = load_recipe(RECIPE, [f"row={name}", f"seed={seed}"])
    return recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"root": PEOPLE, "cache": out / f"crops-{name}.pack"})}
    )


def _people(recipe: Recipe) -> tuple[PoseDataset, PoseDataset]:
    """The training and validation people."""
    train_people, val_people = read_training_people(recipe)
    assert val_people is not None, "the demo's recipe has people to evaluate on"
    return train_people, val_people


def _summary(
    measured: dict[str, EvaluatedModel], gain: Gain, runs: Sequence[RunRecord], people: PoseDataset
) -> list[str]:
    teacher, baseline, distilled = measured.values()
    images = len({person.image_id for person in people.people})
    minutes = [duration(run.last["seconds"]) for run in runs]
    return [
        f"On {len(people.people)} unseen people in {images} photos the student reached {baseline.ap} AP from the "
        f"labels alone, and {distilled.ap} AP from the labels and {teacher.name}; {gain.verdict}.",
        f"Both took {runs[0].last['step']:.0f} steps from the same start, in {minutes[0]} and {minutes[1]} "
        f"minutes, and cost the same at inference. The teacher itself reaches {teacher.ap} AP.",
        "AP in ground-truth boxes, without flip test, after the last epoch; in brackets 95 % intervals of a bootstrap "
        f"over the photos ({DRAWS} draws). One seed: the interval does not cover other initialisations or orders.",
        *([WHY_NO_GAIN] if gain.interval[0] <= 0 else []),
    ]


def _compare(measured: Sequence[EvaluatedModel], people: Sequence[PoseAnnotation], skeleton: Skeleton) -> ReportImage:
    """The same photos with teacher and trained students, in ground-truth boxes."""
    drawn: list[UInt8[np.ndarray, "_ _ 3"]] = []
    captions: list[str] = []
    for name in COMPARED_PHOTOS:
        rows = [i for i, person in enumerate(people) if Path(str(person.image)).name == name]
        image = read_image(PEOPLE / "images" / name)
        for model in measured:
            poses = model.poses.select(rows)
            drawn.append(
                draw_poses(image, poses.keypoints, poses.keypoint_scores, skeleton, keypoint_threshold=DRAWN_FROM)
            )
            captions.append(model.name)
    caption = "Validation photos: the teacher, the baseline and the distilled student in ground-truth boxes."
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
        f"The student is initialised from {DEFAULT_MODEL} and uses a quarter of the pixels, so its weights were "
        "trained on many more people before; the validation people are in no training data of leanpose. Results on so "
        "few people show which training is better here, not the accuracy of the library.",
    ]
