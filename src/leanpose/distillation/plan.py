"""From a teacher, a student and data to the recipes of a comparison: the same student without and with distillation."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leanpose.backends import FILE_SUFFIXES
from leanpose.data.dataset import TopDownDataset
from leanpose.data.sets import labelled_skeleton, training_sets
from leanpose.device import choose_device
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import dump_yaml, load_yaml
from leanpose.losses import METHODS
from leanpose.models.registry import list_models
from leanpose.schema import TeacherSection, validate
from leanpose.skeleton import SKELETONS, Skeleton
from leanpose.training.build import build_model, codec_settings, load_teacher, read_training_people
from leanpose.training.optimizers import build_optimizers
from leanpose.training.recipe import Recipe, change_values, find_recipe, parse_recipe, read_recipe
from leanpose.training.sources import weights_of
from leanpose.training.task import build_task
from leanpose.weights import RELEASED, load_model
from leanpose.weights.hub import is_hub_address

BASELINE, DISTILLED = "baseline", "distilled"
DEFAULT_BUDGET = "30min"
MAX_EPOCHS = 300
_TIMED_STEPS = 4
_ORIGIN = "The plan of this distillation"


@dataclass(frozen=True)
class DistillationPlan:
    """The runs of a comparison.

    Attributes:
        values: the recipe's values, with `rows` for `baseline` and `distilled`, which reproduce the comparison.
        baseline: whether the baseline student is also trained.
        seeds: seeds of the runs of each row.
        sentences: the choices made, with reasons.
        distilled_share: epochs of the distilled student per epoch of the baseline, so that both take the same number of
            steps.
        steps_an_epoch: of the baseline student.
    """

    values: dict[str, Any]
    baseline: bool
    seeds: tuple[int, ...]
    sentences: tuple[str, ...]
    distilled_share: float = 1.0
    steps_an_epoch: int = 1

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of the recipe, in the order of the runs."""
        return (BASELINE, DISTILLED) if self.baseline else (DISTILLED,)

    def recipe(self, row: str, seed: int, folder: Path) -> Recipe:
        """The recipe of one run.

        Raises:
            LeanposeError: a value is not valid.
        """
        values = {key: value for key, value in self.values.items() if key != "rows"} | {"seed": seed}
        values |= self.values["rows"][row]
        data = dict(values["data"])
        data.setdefault("cache", str(folder / f"crops-{row}.pack"))
        return parse_recipe(values | {"data": data}, _ORIGIN)

    def with_epochs(self, epochs: int) -> DistillationPlan:
        """The same plan for this many epochs, validated about five times, with weights averaged over the last tenth by
        default."""
        schedule = {**self.values.get("schedule", {}), "epochs": epochs}
        validation = {**self.values.get("validation", {}), "interval": max(epochs // 5, 1)}
        values = copy.deepcopy({**self.values, "schedule": schedule, "validation": validation})
        if "ema" not in values:
            # A longer average would still contain the initial weights; one of less than ten steps has no effect.
            values["ema"] = round(1 - 1 / min(max(self.steps_an_epoch * epochs / 10, 10), 2000), 5)
        if self.distilled_share != 1:
            values["rows"][DISTILLED]["schedule"] = {**schedule, "epochs": max(round(epochs * self.distilled_share), 1)}
        return replace(self, values=values)

    def with_distillation_data(self, sources: list[dict[str, Any]], sentence: str) -> DistillationPlan:
        """The plan whose distilled student learns from these sets, in as many steps as the baseline from its own."""
        values = copy.deepcopy(self.values)
        row = values["rows"][DISTILLED]
        row["data"] = {**(row.get("data") or values["data"]), "train": sources}
        grown = replace(self, values=values, sentences=(*self.sentences, sentence))
        before, after = (len(read_training_people(p.recipe(DISTILLED, 0, Path()))[0].people) for p in (self, grown))
        return replace(grown, distilled_share=self.distilled_share * before / after)

    def to_yaml(self) -> str:
        """The recipe file: `leanpose train FILE row=distilled` repeats a run."""
        return dump_yaml(self.values)


def plan_distillation(
    teacher: str,
    student: str,
    data: Path | None = None,
    settings: Sequence[str] = (),
    *,
    seeds: int = 1,
    baseline: bool = True,
) -> DistillationPlan:
    """Choose what the user has not set: model, skeleton, optimiser, schedule and method.

    Args:
        teacher: a released name, a file (.safetensors, .onnx) or the folder of a run.
        student: a registered name, weights to start from, or a recipe.
        data: a recipe, whose data are used; a folder or an annotation file of people; None if the student is a recipe.
        settings: `key=value` overrides of the recipe.

    Raises:
        LeanposeError: there is no such student or data.
    """
    said: list[str] = []
    rows, settings = [s for s in settings if s.startswith("row=")], [s for s in settings if not s.startswith("row=")]
    if student.endswith((".yaml", ".yml")):
        values, rows = read_recipe(find_recipe(student), rows), []
        said.append(f"The student is the model of {student}.")
    else:
        values = _student_values(student, said)
    if data is not None:
        values["data"] = _data_values(data, rows, said)
    if not isinstance(values.get("data"), dict):
        raise LeanposeError("No training data: give --data FOLDER, an annotation file or a recipe.")
    change_values(values, [setting for setting in settings if not setting.startswith("distillation.")])
    values, people = _with_defaults(values, said)
    own = parse_recipe(values, _ORIGIN).distillation.method
    if own not in ("none", "auto"):
        said.append(f"The recipe's own distillation ({own}) is not used; distillation.method={own} keeps it.")
    distilled: dict[str, Any] = {"distillation": {"method": "auto", "teacher": teacher}}
    change_values(distilled, [setting for setting in settings if setting.startswith("distillation.")])
    distilled["distillation"] = {"teacher": teacher, **distilled["distillation"]}
    if _prediction_is_enough(distilled["distillation"]):
        distilled["distillation"].setdefault("teacher_backend", "onnxruntime")
        said.append("The teacher runs in ONNX Runtime, which is faster on this CPU.")
    values["rows"] = {BASELINE: {"distillation": {"method": "none"}}, DISTILLED: distilled}
    steps = math.ceil(people / values["batch_size"])
    plan = DistillationPlan(values, baseline, tuple(range(seeds)), tuple(said), steps_an_epoch=steps)
    if any(source.get("labelled_people", 1) < 1 for source in values["data"]["train"]):
        sources = [{**source, "keep_unlabelled": True} for source in values["data"]["train"]]
        plan = plan.with_distillation_data(
            sources, "The distilled student also learns from the people whose labels are hidden."
        )
    return plan


def _prediction_is_enough(values: dict[str, Any]) -> bool:
    """Whether a leanpose teacher may run in ONNX Runtime: on a CPU, if only its prediction is used."""
    method = METHODS.get(values["method"])
    if method is None or not issubclass(method.section_type, TeacherSection):
        return False  # refused, or without a teacher
    section = validate(method.section_type, values, _ORIGIN, prefix="distillation.")
    own = not section.teacher.endswith(FILE_SUFFIXES)
    return own and section.prediction_only and not section.compile_teacher and choose_device("auto").type == "cpu"


def _student_values(student: str, said: list[str]) -> dict[str, Any]:
    """A randomly initialised model of the registry, or the model of a file with its weights as the start."""
    if student in list_models(task="pose"):
        said.append(f"The student is {student}, randomly initialised.")
        return {"model": student}
    if Path(student).exists() or student in RELEASED or student.endswith(".safetensors") or is_hub_address(student):
        model = load_model(weights_of(student))
        codec = codec_settings(model.codec)
        codec.pop("calibration", None)  # taken from init_from, for the keypoints chosen later
        said.append(f"The student is initialised from {student}, a {model.name}.")
        return {
            "model": model.name,
            "model_options": asdict(model.config),
            "skeleton": model.skeleton.name,
            "codec": codec,
            "init_from": student,
            "strict": False,
        }
    known = [*list_models(task="pose"), *RELEASED]
    raise LeanposeError(f"There is no student '{student}'; {did_you_mean(student, known)}")


def _data_values(data: Path, row: list[str], said: list[str]) -> dict[str, Any]:
    """The recipe's `data` for a recipe, an annotation file, or a folder with annotations.

    Args:
        row: `row=NAME`, if one is chosen and the student is no recipe.
    """
    if data.suffix in (".yaml", ".yml") and data.is_file():
        values = load_yaml(data, "recipe")
        if isinstance(values.get("data"), dict):
            if row or any(
                key.split(".")[0] == "data" for changes in values.get("rows", {}).values() for key in changes
            ):
                values = read_recipe(data, row)
            return values["data"]
    if row:
        raise LeanposeError(f"{row[0]} chooses a row of a recipe, but neither the student nor --data is one.")
    values, sentences = training_sets(data)
    said += sentences
    return values


def _with_defaults(values: dict[str, Any], said: list[str]) -> tuple[dict[str, Any], int]:
    """The values, completed by defaults that depend on the people and the machine, and the number of people."""
    recipe = parse_recipe(values, _ORIGIN)
    values = {**values, "validation": {"flip_test": False, **values.get("validation", {})}}
    if "skeleton" not in values and (skeleton := _labelled_skeleton(recipe)) is not None:
        values["skeleton"] = skeleton.name
        said.append(f"Student skeleton set from the data: the {len(skeleton)} keypoints of '{skeleton.name}'.")
    people = len(read_training_people(parse_recipe(values, _ORIGIN))[0].people)
    defaults: dict[str, Any] = {}
    if "batch_size" not in values:
        defaults["batch_size"] = 32 if people >= 640 else 16 if people >= 64 else 4
    if "precision" not in values:
        defaults["precision"] = "bf16" if choose_device("auto").type == "cuda" else "fp32"
    defaults["augmentation"] = {"scale": 0.25, "rotation": 30.0, "hue": 5, "saturation": 30, "value": 30}
    batch = {**defaults, **values}["batch_size"]
    # Gradients of few people are noisy: pretrained weights would be lost at the learning rate for training from
    # scratch.
    rate = 1e-3 if "init_from" not in values else 3e-4 * min(batch / 32, 1)
    defaults["optimizer"] = {"name": "adamw", "lr": rate, "weight_decay": 0.01, "grad_clip_norm": 35.0}
    defaults["schedule"] = {"name": "cosine", "min_lr_ratio": 0.01, "warmup_steps": 50, "warmup_factor": 0.01}
    for key, value in defaults.items():
        values[key] = {**value, **values.get(key, {})} if isinstance(value, dict) else value
    said.append(
        f"{people} people to train on: batches of {values['batch_size']}, {values['optimizer']['name']} at {values['optimizer']['lr']:g}."
    )
    return values, people


def _labelled_skeleton(recipe: Recipe) -> Skeleton | None:
    """The known skeleton that the first training set names; None if it is not a known one."""
    first = next(iter(recipe.data.train), None)
    if first is None or first.annotations is None:
        return None
    labelled = labelled_skeleton(recipe.data.root / first.annotations, first.format)
    return next((s for s in SKELETONS.values() if labelled is not None and s.keypoints == labelled.keypoints), None)


def seconds_an_epoch(recipe: Recipe) -> float:
    """Seconds per epoch of a run on this CPU, from a few timed steps."""
    model, people = build_model(recipe).train(), read_training_people(recipe)[0].people
    task = build_task(recipe, model, load_teacher(recipe))
    dataset = TopDownDataset(people, model.skeleton, task.crop_size, warp=model.codec.warp, padding=model.codec.padding)
    optimizers = build_optimizers(recipe.optimizer, task)
    times, size = [], min(recipe.batch_size, len(people))
    for step in range(_TIMED_STEPS):
        began = time.perf_counter()
        batch = dataset.collate([dataset[(step * size + i) % len(people)] for i in range(size)])
        sum(task(*batch.inputs).values(), start=torch.zeros(())).backward()
        for optimizer in optimizers:
            optimizer.step()
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:])) * math.ceil(len(people) / recipe.batch_size)


def epochs_for(plan: DistillationPlan, budget: str, folder: Path) -> int:
    """Epochs of each run within a budget: `20epochs`, or `30min` for all runs together.

    Raises:
        LeanposeError: the budget has another form.
    """
    text = budget.replace(" ", "").lower()
    for unit, minutes in (("epochs", 0.0), ("epoch", 0.0), ("min", 1.0), ("h", 60.0)):
        number = text.removesuffix(unit)
        if number == text:
            continue
        try:
            amount = float(number)
        except ValueError:
            break
        if not amount > 0 or not math.isfinite(amount):
            break
        if not minutes:
            return max(round(amount), 1)
        seconds = sum(seconds_an_epoch(plan.recipe(row, 0, folder)) for row in plan.rows) * len(plan.seeds)
        return int(np.clip(0.9 * 60 * minutes * amount / seconds, 1, MAX_EPOCHS))
    raise LeanposeError(f"'{budget}' is not a budget; write 30min, 2h or 20epochs.")
