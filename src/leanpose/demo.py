"""The demo: from nothing to a report, without network or data.

It draws synthetic people, trains one small student twice at the same inference cost (plainly, and by self-distillation),
measures both, and shows what came out, whichever won.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.console import Console
from rich.progress import Progress

from leanpose.backends.torch import TorchBackend
from leanpose.data.dataset import TopDownDataset
from leanpose.data.images import read_image
from leanpose.drawing.skeleton import contact_sheet, draw_poses
from leanpose.evaluation.evaluate import coco_ap, mean_pose, predict_people
from leanpose.files import atomic_write, require_own_folder
from leanpose.inference.estimator import PoseEstimator
from leanpose.models.registry import skeleton_of
from leanpose.report import Report, ReportImage, RunRecord, read_run, write_report
from leanpose.skeleton import Skeleton
from leanpose.synthetic import write_synthetic
from leanpose.training.build import build_model, read_training_people
from leanpose.training.log import duration
from leanpose.training.optimizers import build_optimizers
from leanpose.training.recipe import Recipe, load_recipe
from leanpose.training.task import build_task
from leanpose.training.train import train
from leanpose.weights import load_model

MARKER = ".leanpose-demo"  # lies in the folder of a demo, which the next one may replace
SHIPPED = "leanpose-body-s"
RECIPE = Path(__file__).with_suffix(".yaml")
RUNS = ("plain", "distilled")  # its rows
RENDERED_SIZE = (128, 96)
POSES = ("stand", "relaxed", "hands_on_hips", "one_hand_on_hip", "wave", "arms_up", "arms_out", "walk")
TRAIN_IMAGES, VAL_IMAGES = 4000, 250


@dataclass(frozen=True)
class DemoResult:
    """Where the report is, and the sentences that sum it up."""

    report: Path
    summary: list[str]


def run_demo(out: Path, photo: Path | None = None, minutes: float = 4.2, seed: int = 0) -> DemoResult:
    """Run the whole demo in a folder.

    Args:
        out: gets `report.html`, `data/`, `plain/` and `distilled/`; what an earlier demo left there is replaced.
        photo: a picture of yours for the shipped model, beside the bundled portrait.
        minutes: for the two trainings together; the number of epochs, the same for both, is chosen to fit.
        seed: of the pictures, the weights and the order of training.

    Raises:
        LeanposeError: the photo cannot be read, or the folder cannot be written.
    """
    began = time.monotonic()
    console = Console(stderr=True)
    photos = [("The portrait of the astronaut Eileen Collins (NASA, public domain)", _portrait())]
    if photo is not None:
        photos.insert(0, (photo.name, read_image(photo)))
    torch.set_float32_matmul_precision("high")

    require_own_folder(out, MARKER, "demo")
    with atomic_write(out / MARKER) as path:
        path.touch()
    _draw_data(out / "data", seed, console)
    recipes = [_recipe(out / "data", name, seed) for name in RUNS]
    epochs = int(np.clip(0.9 * 60 * minutes / sum(_seconds_an_epoch(recipe) for recipe in recipes), 2, 40))
    console.print(f"Training the same student twice for {epochs} epochs, plainly and by self-distillation.")
    runs: list[RunRecord] = []
    for name, recipe in zip(RUNS, recipes, strict=True):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        console.print(f"[bold]{name}[/bold]")
        schedule = recipe.schedule.model_copy(update={"epochs": epochs})
        train(recipe.model_copy(update={"schedule": schedule}), folder, device="cpu")
        runs.append(read_run(folder, name))

    summary = [
        *_summary(runs, _mean_pose_ap(recipes[0])),
        f"The demo took {duration(time.monotonic() - began)} minutes.",
    ]
    pictures = [*_compare(out, recipes[0]), *_photos(photos)]
    notes = [
        "The people in the training pictures are synthetic; the figures say how the two ways of training compare in this "
        "small setting, not how accurate the library is on photographs."
    ]
    path = out / "report.html"
    write_report(path, Report("leanpose: self-distillation in five minutes", summary, runs, pictures, notes))
    return DemoResult(path, summary)


def _draw_data(folder: Path, seed: int, console: Console) -> None:
    with Progress(*Progress.get_default_columns(), console=console) as progress:
        for name, count, first in (("train", TRAIN_IMAGES, seed), ("val", VAL_IMAGES, seed + 1_000_003)):
            task = progress.add_task(f"drawing synthetic people ({name})", total=count)
            write_synthetic(
                folder / name,
                count,
                first,
                RENDERED_SIZE,
                "coco17",
                (1, 1),
                poses=POSES,
                workers=2,
                progress=lambda done, _, task=task: progress.update(task, completed=done),
            )


def _recipe(data: Path, name: str, seed: int) -> Recipe:
    optimizer = [] if hasattr(torch.optim, "Muon") else ["optimizer.name=adam"]
    return load_recipe(RECIPE, [f"row={name}", f"data.root={data}", f"seed={seed}", *optimizer])


def _seconds_an_epoch(recipe: Recipe) -> float:
    """How long an epoch takes, by a few timed steps."""
    model = build_model(recipe).train()
    people, _ = read_training_people(recipe)
    dataset = TopDownDataset(people.people, model.skeleton, model.input_size)
    task = build_task(recipe, model)
    optimizers = build_optimizers(recipe.optimizer, task)
    times = []
    for step in range(6):
        began = time.perf_counter()
        batch = dataset.collate([dataset[i] for i in range(step * recipe.batch_size, (step + 1) * recipe.batch_size)])
        sum(task(*batch.inputs).values(), start=torch.zeros(())).backward()
        for optimizer in optimizers:
            optimizer.step()
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:])) * len(dataset) / recipe.batch_size


def _mean_pose_ap(recipe: Recipe) -> float:
    """AP of putting everybody's average pose into each box."""
    train, val = read_training_people(recipe)
    assert val is not None
    skeleton = skeleton_of(recipe.model, recipe.skeleton)
    results = mean_pose(train.people, val.people, recipe.model_options["input_size"])
    return coco_ap(results, val, skeleton)["AP"]


def _summary(runs: list[RunRecord], mean_pose_ap: float) -> list[str]:
    plain, distilled = (100 * run.last["AP"] for run in runs)
    gain = distilled - plain
    verdict = "won" if gain > 0 else "did not win"
    sentences = [
        f"Plain training reached {plain:.1f} AP, self-distillation (SDPose, 2 cycles) {distilled:.1f} AP, "
        f"at the same inference cost and after the same {runs[0].last['epoch']:.0f} epochs: self-distillation {verdict} "
        f"here ({gain:+.1f} AP, one seed).",
        f"Without looking, by the average pose in every box, one gets {100 * mean_pose_ap:.1f} AP.",
    ]
    if max(plain, distilled) < 100 * mean_pose_ap + 2:
        sentences.append(
            "Neither student is far from that, so the difference between them says nothing about the methods; "
            "give them more time with --minutes."
        )
    return sentences


def _compare(out: Path, recipe: Recipe) -> list[ReportImage]:
    """Validation pictures with the labels, and with what each student finds."""
    _, val = read_training_people(recipe)
    assert val is not None
    people = val.people[:12]
    rows: list[UInt8[np.ndarray, "_ _ 3"]] = []
    models = {name: load_model(out / name / "last.safetensors") for name in RUNS}
    found = [predict_people(TorchBackend(model, torch.device("cpu")), people)[0] for model in models.values()]
    for i, person in enumerate(people[:6]):
        points, labelled = person.keypoints[:, :2], (person.keypoints[:, 2] > 0).astype(float)
        shown = [(points, labelled), *((results.keypoints[i], results.keypoint_scores[i]) for results in found)]
        image, skeleton = read_image(person.image), models["plain"].skeleton
        rows += [_overlay(image, keypoints, scores, skeleton) for keypoints, scores in shown]
    captions = ["label", *RUNS] * (len(rows) // 3)
    return [ReportImage(contact_sheet(rows, 6, captions, cell=(256, 192)), "Pictures that neither student has seen.")]


def _overlay(
    image: UInt8[np.ndarray, "h w 3"],
    keypoints: Float[np.ndarray, "K 2"],
    scores: Float[np.ndarray, " K"],
    skeleton: Skeleton,
) -> UInt8[np.ndarray, "H W 3"]:
    import cv2

    enlarged = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    return draw_poses(enlarged, 2 * keypoints[None] + 0.5, scores[None], skeleton, threshold=0.1)


def _photos(photos: list[tuple[str, np.ndarray]]) -> list[ReportImage]:
    """What the shipped model finds on real photographs."""
    estimator = PoseEstimator(SHIPPED, device="cpu")
    return [
        ReportImage(estimator(image).draw(image), f"{name}: {SHIPPED}, people found by {estimator.detector.name}")
        for name, image in photos
    ]


def _portrait() -> UInt8[np.ndarray, "512 512 3"]:
    from skimage import data

    return np.asarray(data.astronaut())
