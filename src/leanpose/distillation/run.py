"""Run a plan: check, train plainly and taught, measure on unseen people, and write the report."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from leanpose.backends.base import TorchBackend
from leanpose.data.account import account_sentences
from leanpose.data.annotations import PoseDataset
from leanpose.data.images import read_bytes, read_image
from leanpose.distillation.measure import Gain, Measured, gain_of, keypoint_gains, measure
from leanpose.distillation.plan import DEFAULT_BUDGET, PLAIN, TAUGHT, DistillationPlan, epochs_for
from leanpose.drawing.skeleton import contact_sheet, draw_poses
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, load_yaml
from leanpose.models.base import PoseModel
from leanpose.models.cost import model_cost
from leanpose.report import Report, ReportImage, ReportTable, RunRecord, read_run, write_report
from leanpose.skeleton import Skeleton
from leanpose.training.build import build_model, load_teacher, read_training_people
from leanpose.training.log import duration
from leanpose.training.loop import finished_run
from leanpose.training.resume import STATE_FILE
from leanpose.training.task import build_task
from leanpose.training.train import train
from leanpose.weights import load_model

PLAN_FILE = "recipe.yaml"
UNLABELLED = "unlabelled"  # begins the names of the teacher's labels, which are made before anything else
FEW = 20  # people to measure on
SHOWN = 8  # people where plain and taught differ most
DRAWN_FROM = 0.2  # the score
TIMED = 9  # passes


@dataclass(frozen=True)
class DistillationResult:
    """Where the report is, the sentences that sum it up, and what they are made from.

    Attributes:
        gain: None without a baseline.
    """

    report: Path
    summary: list[str]
    gain: Gain | None


def explain(plan: DistillationPlan, folder: Path) -> list[str]:
    """The terms of the taught student's loss, with weights and reasons.

    Raises:
        LeanposeError: the student cannot be taught so by this teacher.
    """
    recipe = plan.recipe(TAUGHT, plan.seeds[0], folder)
    task = build_task(recipe, build_model(recipe).train(), load_teacher(recipe))
    return task.distillation.explain()


def run_distillation(
    plan: DistillationPlan,
    folder: Path,
    *,
    budget: str = DEFAULT_BUDGET,
    force: bool = False,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> DistillationResult:
    """Train what the plan says, from the start or on from where it was stopped, and report.

    Args:
        plan: what to train.
        folder: of all runs and the report; one that holds another plan is refused.
        budget: `30min` for all runs together, or `20epochs` each.
        force: go on although the teacher is not better than the student at its start.
        say: gets a sentence at a time.

    Raises:
        LeanposeError: something does not fit, found before any training; or a run fails.
    """
    plan = _open_folder(plan, folder, budget, say)
    first = plan.recipe(TAUGHT, plan.seeds[0], folder)
    people, val = read_training_people(first)
    if val is None:
        raise LeanposeError("There is nobody to measure on: the recipe needs data.val.")
    for sentence in account_sentences((*people.accounts, *val.accounts)):
        say(sentence)
    _require_no_leak(people, val)
    teacher = load_teacher(first)
    assert teacher is not None, "the row of the taught student has a teacher"
    for sentence in (*plan.sentences, *explain(plan, folder)):
        say(sentence)
    _compare_before(teacher.model, build_model(first), val, force, say)
    for seed in plan.seeds:
        for row in plan.rows:
            _train(plan, row, seed, folder, device, say)
    return _report(plan, folder, teacher.model, people, val)


def run_name(row: str, seed: int) -> str:
    """The folder of a run."""
    return f"{row}-{seed}"


def _open_folder(plan: DistillationPlan, folder: Path, budget: str, say: Callable[[str], None]) -> DistillationPlan:
    """The plan with its epochs: those of a comparison that was begun in this folder, or as many as the budget allows."""
    path, asked = folder / PLAN_FILE, {"budget": budget, "seeds": list(plan.seeds), "baseline": plan.baseline}
    note = folder / "distillation.json"
    if note.is_file() and path.is_file():
        begun, saved = load_yaml(path, "recipe"), json.loads(note.read_text())
        if saved["asked"] != asked or saved["values"] != json.loads(json.dumps(plan.values, default=str)):
            raise LeanposeError(
                f"{folder} holds another distillation; give its own settings to go on, or another --out."
            )
        say(f"Going on with the distillation in {folder}.")
        return replace(plan, values=begun)
    if folder.exists() and any(not path.match(f"{UNLABELLED}-*.json") for path in folder.iterdir()):
        raise LeanposeError(f"{folder} is not empty and holds no distillation; choose another --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LeanposeError(f"{folder} cannot be made ({error.strerror}).") from error
    given = (plan.values.get("schedule") or {}).get("epochs")
    epochs = int(given) if given and budget == DEFAULT_BUDGET else epochs_for(plan, budget, folder)
    planned = plan.with_epochs(epochs)
    with atomic_write(path) as temporary:
        temporary.write_text(planned.to_yaml())
    with atomic_write(note) as temporary:
        temporary.write_text(json.dumps({"asked": asked, "values": plan.values}, default=str))
    say(f"{epochs} epochs for each of {len(plan.rows) * len(plan.seeds)} runs; the recipe is {path}.")
    return planned


def _require_no_leak(people: PoseDataset, val: PoseDataset) -> None:
    """See that no picture is both trained and measured on, whatever its name.

    Raises:
        LeanposeError: one is.
    """

    def hashes(dataset: PoseDataset) -> dict[str, str]:
        images = {str(person.image): person.image for person in dataset.people}
        return {hashlib.sha256(read_bytes(image)).hexdigest(): name for name, image in images.items()}

    trained, measured = hashes(people), hashes(val)
    if both := trained.keys() & measured.keys():
        name = measured[min(both)]
        raise LeanposeError(
            f"{len(both)} of the {len(measured)} pictures to measure on are trained on too, such as {name}: no figure would "
            "mean anything."
        )


def _compare_before(
    teacher: PoseModel, student: PoseModel, val: PoseDataset, force: bool, say: Callable[[str], None]
) -> None:
    """Say what teacher and student reach before the training.

    Raises:
        LeanposeError: the teacher is not better, and nobody forces it.
    """
    if len(val.people) < FEW:
        say(f"Only {len(val.people)} people to measure on: expect wide intervals.")
    found = measure({"teacher": teacher, "student": student}, val, student.skeleton)
    say(
        f"On {len(val.people)} unseen people the teacher reaches {found['teacher']} AP, the student {found['student']}."
    )
    if found["teacher"].ap <= found["student"].ap and not force:
        raise LeanposeError("The teacher is not better than the student at its start; go on with --force.")


def _train(plan: DistillationPlan, row: str, seed: int, folder: Path, device: str, say: Callable[[str], None]) -> None:
    """One run, unless it is finished."""
    recipe, run = plan.recipe(row, seed, folder), folder / run_name(row, seed)
    started = (run / STATE_FILE).exists()
    if started and finished_run(run, recipe.schedule.epochs) is not None:
        return
    say(f"Training {row}, seed {seed}: {recipe.schedule.epochs} epochs.")
    train(recipe, run, resume=started, device=device, say=lambda _: None)  # the data are accounted for already


def _report(
    plan: DistillationPlan, folder: Path, teacher: PoseModel, people: PoseDataset, val: PoseDataset
) -> DistillationResult:
    """Measure all students and write `report.html` and `report.json`."""
    models = {"teacher": teacher}
    for row in plan.rows:
        models |= {
            run_name(row, seed): load_model(folder / run_name(row, seed) / "last.safetensors") for seed in plan.seeds
        }
    skeleton = models[run_name(TAUGHT, plan.seeds[0])].skeleton
    measured = measure(models, val, skeleton)
    students = {row: [measured[run_name(row, seed)] for seed in plan.seeds] for row in plan.rows}
    runs = [read_run(folder / name) for name in measured if name != "teacher"]
    gain = gain_of(students[TAUGHT], students[PLAIN]) if plan.baseline else None
    summary = _summary(gain, students, measured["teacher"], runs, val)
    tables = [_cost_table(models, measured)]
    images = []
    keypoints: dict[str, Any] = {}
    if plan.baseline:
        keypoints = keypoint_gains(students[TAUGHT], students[PLAIN], val, skeleton)
        tables.append(_keypoint_table(keypoints))
        images.append(_differences(students, measured["teacher"], val, skeleton))
    notes = [
        f"Trained on {len(people.people)} people of {people.name}, measured on {len(val.people)} of {val.name} in their labelled "
        f"boxes, without flip test, after the last epoch. Intervals: 95 %, bootstrap over pictures"
        f"{' and seeds' if len(plan.seeds) > 1 else '; one seed, so another start or order is not in the interval'}.",
        f"The recipe of all runs is {PLAN_FILE} beside this page: leanpose train {PLAN_FILE} row=taught",
    ]
    path = folder / "report.html"
    write_report(path, Report("leanpose: distillation", summary, runs, images, notes, tables))
    figures = {
        "teacher": {"AP": measured["teacher"].ap, "interval": measured["teacher"].interval},
        "runs": {name: {"AP": one.ap, "interval": one.interval} for name, one in measured.items() if name != "teacher"},
        "gain": None if gain is None else {"mean": gain.mean, "interval": gain.interval, "by_seed": gain.by_seed},
        "keypoints": {
            name: {"plain": a, "taught": b, "gain": (low, high)} for name, (a, b, low, high) in keypoints.items()
        },
        "summary": summary,
    }
    with atomic_write(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(figures, indent=1))
    return DistillationResult(path, summary, gain)


def _summary(
    gain: Gain | None,
    students: dict[str, list[Measured]],
    teacher: Measured,
    runs: Sequence[RunRecord],
    val: PoseDataset,
) -> list[str]:
    steps = {f"{run.last['step']:.0f}" for run in runs if run.last}
    reached = "; ".join(f"{row} {' and '.join(map(str, found))}" for row, found in students.items())
    minutes = "; ".join(f"{run.name} {duration(run.last['seconds'])}" for run in runs if run.last)
    opening = [] if gain is None else [f"{gain.verdict[0].upper()}{gain.verdict[1:]}."]
    return [
        *opening,
        f"AP on {len(val.people)} unseen people: {reached}; the teacher {teacher}.",
        f"Each student took {' or '.join(sorted(steps))} steps from the same start and costs the same at inference. Minutes of "
        f"training: {minutes}.",
    ]


def _cost_table(models: dict[str, PoseModel], measured: dict[str, Measured]) -> ReportTable:
    rows = []
    for name, model in models.items():
        parameters, size, macs = sum(p.numel() for p in model.parameters()), "–", "–"  # nobody counts those of a file
        if parameters:
            cost = model_cost(model.name, skeleton=model.skeleton, **asdict(model.config))
            size, macs = f"{parameters / 1e6:.2f}", f"{(cost.macs + cost.attention_macs) / 1e9:.3f}"
        low, high = measured[name].interval
        cells = [name, model.name, size, macs, f"{_milliseconds(model):.1f}"]
        rows.append([*cells, f"{measured[name].ap:.1f}", f"{low:.1f} to {high:.1f}"])
    heads = ["", "model", "params M", "GMACs", "ms a crop (this machine)", "AP", "95 %"]
    return ReportTable("Cost and accuracy", heads, rows)


def _milliseconds(model: PoseModel) -> float:
    """For one crop, in torch or by the file's own backend: the median of a few passes."""
    backend, crop = TorchBackend(model, torch.device("cpu")), np.zeros((1, *model.input_size, 3), np.uint8)
    times = []
    for _ in range(TIMED):
        began = time.perf_counter()
        backend.predict(crop)
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


def _keypoint_table(keypoints: dict[str, tuple[float, float, float, float]]) -> ReportTable:
    rows = [
        [
            name.replace("_", " "),
            f"{plain:.1f}",
            f"{taught:.1f}",
            f"{taught - plain:+.1f}",
            f"{low:+.1f} to {high:+.1f}",
        ]
        for name, (plain, taught, low, high) in keypoints.items()
    ]
    return ReportTable("Keypoints within OKS 0.5, %", ["", PLAIN, TAUGHT, "gain", "95 %"], rows)


def _differences(
    students: dict[str, list[Measured]], teacher: Measured, val: PoseDataset, skeleton: Skeleton
) -> ReportImage:
    """The people where the first plain and the first taught student differ most, with teacher and labels."""
    plain, taught = students[PLAIN][0], students[TAUGHT][0]
    points = [np.stack([p.keypoints for p in val.people])[..., :2], *(m.poses.keypoints for m in (plain, taught))]
    labelled = np.stack([p.keypoints for p in val.people])[..., 2] > 0
    size = np.sqrt(np.array([max(person.area, 1.0) for person in val.people]))
    apart = np.linalg.norm(points[2] - points[1], axis=-1) / size[:, None]
    score = np.where(labelled, np.minimum(apart, 1.0), 0).sum(axis=1) / np.maximum(labelled.sum(axis=1), 1)
    cells: list[UInt8[np.ndarray, "_ _ 3"]] = []
    captions: list[str] = []
    for row in np.argsort(-score)[:SHOWN]:
        person = val.people[row]
        image = read_image(person.image)
        low = np.maximum(person.box[:2] - 0.15 * (person.box[2:] - person.box[:2]), 0).astype(int)
        high = np.ceil(person.box[2:] + 0.15 * (person.box[2:] - person.box[:2])).astype(int)
        crop = image[low[1] : high[1], low[0] : high[0]]
        shown = [("labels", points[0][row], labelled[row].astype(float))]
        shown += [(m.name, m.poses.keypoints[row], m.poses.keypoint_scores[row]) for m in (teacher, plain, taught)]
        for name, keypoints, scores in shown:
            cells.append(draw_poses(crop, keypoints[None] - low, scores[None], skeleton, threshold=DRAWN_FROM))
            captions.append(name)
    caption = "The people where the plain and the taught student differ most: labels, teacher, plain, taught."
    return ReportImage(contact_sheet(cells, 4, captions, cell=(220, 260)), caption)
