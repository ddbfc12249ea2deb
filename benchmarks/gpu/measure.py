"""Rates of training, inference and evaluation on a GPU, and a training of the body model; `run.sh` calls this after the tests.

What is there is written after each part, so that a run that is cut off has not measured for nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leanpose.backends.base import TorchBackend
from leanpose.data.annotations import PoseDataset
from leanpose.data.jpeg_records import JpegRecords, has_decoder, why_not_decoded
from leanpose.data.pack_file import PackConfig
from leanpose.data.pack_writer import pack_people
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.demo.demo import PEOPLE
from leanpose.device import choose_device, emulates_bfloat16
from leanpose.errors import LeanposeError
from leanpose.evaluation.evaluate import coco_ap, ground_truth_of, predict_people
from leanpose.inference.choice import benchmark_backends
from leanpose.skeleton import COCO17
from leanpose.training.bench import StepTimes, bench_training
from leanpose.training.recipe import Recipe, find_recipe, load_recipe
from leanpose.training.train import train
from leanpose.weights import load_model

PHOTOS = {"format": "coco", "images": str(PEOPLE / "images")}
PAPERS = ("sdpose/t_coco", "sdpose/s_v2_coco", "dwpose/rtmpose_s_coco", "body/tinypose_body_s")
TEACHERLESS = ["distillation.method=none", "batch_size=512"]
"""Of the body model's recipe: its teacher is a file that is not at hand, and its batches are a CPU's."""
GOALS = {"sdpose/t_coco": 10_000, "sdpose/s_v2_coco": 4_000}
"""Crops a second."""
MODELS = ("leanpose-body-s", "leanpose-body-t")
BATCHES = (1, 20, 256)
COCO_VAL_PEOPLE = 6352
"""With a labelled keypoint, in val2017."""
EVALUATION = {"count": COCO_VAL_PEOPLE, "batch_size": 256, "num_workers": 14}


@dataclass
class Results:
    """What has been measured so far.

    Attributes:
        device: in words.
        tests: the last line of their log.
        training: recipe, whether compiled, what its steps took or why they took nothing.
        inference: model, device, backend → milliseconds a batch.
        evaluation: model, precision, people, seconds for their poses (loaded, flip test), seconds for AP, AP.
        decoding: by what → JPEG crops a second.
        body: how the training of the body model went.
        failed: part → the error that ended it.
    """

    device: str
    tests: str
    training: list[tuple[str, bool, StepTimes | str]] = field(default_factory=list)
    inference: list[tuple[str, str, str, dict[int, float]]] = field(default_factory=list)
    evaluation: list[tuple[str, str, int, float, float, float]] = field(default_factory=list)
    decoding: dict[str, float] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """As `gpu.json` and `gpu.md`."""
        values = asdict(self)
        for row in values["training"]:
            if isinstance(row[2], StepTimes):
                row[2] = asdict(row[2])
        (folder / "gpu.json").write_text(json.dumps(values, indent=1, default=asdict))
        (folder / "gpu.md").write_text(self.page())

    def page(self) -> str:
        """A results page in Markdown."""
        lines = [f"# On {self.device}", "", "```text", "benchmarks/gpu/run.sh", "```", "", f"Tests: {self.tests}", ""]
        lines += ["## Training", ""]
        head = (
            "recipe | compiled | people a step | crops/s | goal | device busy | waits for data | of the limit | hours"
        )
        lines += [f"| {head} |", "| " + " | ".join("---" for _ in head.split("|")) + " |"]
        for name, compiled, times in self.training:
            if isinstance(times, str):
                lines.append(f"| `{name}` | {'yes' if compiled else 'no'} | {times} |" + " |" * 6)
                continue
            wait = times.phases.get("wait for data", 0.0) / times.seconds
            goal = f"{GOALS[name]:,}" if name in GOALS else "–"
            lines.append(
                f"| `{name}` | {'yes' if compiled else 'no'} | {times.batch_size} | {times.people_per_second:,.0f} | {goal} | "
                f"{100 * times.busy:.0f} % | {100 * wait:.0f} % | {100 * times.people_per_second / times.limit:.0f} % | "
                f"{times.hours:.2f} |"
            )
        lines += ["", "Milliseconds a step; copies and augmentation run beside the rest on a GPU:", ""]
        for name, compiled, times in self.training:
            if isinstance(times, StepTimes):
                parts = ", ".join(f"{phase} {1000 * value:.1f}" for phase, value in times.phases.items())
                lines.append(f"- `{name}`{', compiled' if compiled else ''}: {1000 * times.seconds:.1f} ({parts})")
        lines += ["", "## Inference", "", f"| model | device | backend | {' | '.join(f'{n}, ms' for n in BATCHES)} |"]
        lines.append("| --- | --- | --- |" + " --- |" * len(BATCHES))
        for name, device, backend, milliseconds in self.inference:
            cells = " | ".join(f"{milliseconds[n]:.2f}" if n in milliseconds else "–" for n in BATCHES)
            lines.append(f"| `{name}` | {device} | {backend} | {cells} |")
        lines += ["", "## Evaluation with flip test", "", "| model | precision | people | poses, s | AP, s | AP |"]
        lines.append("| --- |" + " --- |" * 5)
        for model, precision, people, poses, ap, value in self.evaluation:
            lines.append(f"| `{model}` | {precision} | {people:,} | {poses:.1f} | {ap:.1f} | {100 * value:.1f} |")
        lines += ["", "## JPEG crops decoded a second", ""]
        lines += [f"- {what}: {rate:,.0f}" for what, rate in self.decoding.items()]
        lines += ["", "## A training of `leanpose-body-s`", ""]
        lines += [f"- {key}: {value}" for key, value in self.body.items()] or ["There was no time left."]
        lines += [f"\nThe part `{name}` failed: {error}" for name, error in self.failed.items()]
        return "\n".join(lines) + "\n"


def recipe_of(name: str, changes: list[str]) -> Recipe:
    """A recipe on crops that are packed beforehand or with it, without validation and without what has to be fetched."""
    return load_recipe(
        find_recipe(name), [*changes, "data.root=/", "data.val=null", "init_from=null", "pretrained=null"]
    )


def repeated(people: PoseDataset, count: int) -> PoseDataset:
    """So many people: those of a set again and again, each time in images of their own."""
    truth = ground_truth_of(people)
    rounds = -(-count // len(people.people))
    images, persons = (1 + max(entry["id"] for entry in truth[kind]) for kind in ("images", "annotations"))
    everybody = [
        replace(person, image_id=person.image_id + turn * images, person_id=person.person_id + turn * persons)
        for turn in range(rounds)
        for person in people.people
    ]
    ground_truth = {
        **truth,
        "images": [{**image, "id": image["id"] + turn * images} for turn in range(rounds) for image in truth["images"]],
        "annotations": [
            {**person, "id": person["id"] + turn * persons, "image_id": person["image_id"] + turn * images}
            for turn in range(rounds)
            for person in truth["annotations"]
        ],
    }
    return replace(people, people=everybody[:count], ground_truth=ground_truth)


def measure_evaluation(
    results: Results, name: str, device: torch.device, *, count: int, batch_size: int, num_workers: int
) -> None:
    """Evaluate a released model on the people of the photos that nobody is trained on, repeated to so many."""
    model = load_model(name)
    source = DatasetConfig.from_options(**PHOTOS, annotations=PEOPLE / "val.json")
    people = repeated(read_people(source, model.skeleton, training=False), count)
    for precision in ("fp32", "bf16"):
        backend = TorchBackend(model, device, precision)
        began = time.monotonic()
        poses, _ = predict_people(backend, people.people, batch_size=batch_size, num_workers=num_workers)
        found = time.monotonic()
        ap = coco_ap(poses, people, model.skeleton)["AP"]
        row = name, precision, len(poses), found - began, time.monotonic() - found, ap
        results.evaluation.append(row)


def measure_decoding(results: Results, folder: Path, device: torch.device, *, count: int) -> None:
    """Decode packed crops in one batch on the device by torchvision, and one by one on a CPU core by OpenCV."""
    source = DatasetConfig.from_options(**PHOTOS, annotations=PEOPLE / "val.json")
    people = read_people(source, COCO17, training=False)
    pack = pack_people([people], COCO17, PackConfig((256, 192), encoding="jpeg"), folder / "jpeg.pack")
    rows = np.resize(pack.rows, count).tolist()
    records = JpegRecords.of({place: pack.read(row, decoded=False)[0] for place, row in enumerate(rows)})
    began = time.perf_counter()
    for row in rows:
        pack.read(row)
    results.decoding["OpenCV, one core"] = count / (time.perf_counter() - began)
    pack.path.unlink()
    reason = why_not_decoded(device)
    if reason is not None:
        results.decoding[f"torchvision cannot on {device} ({reason})"] = 0
        return
    canvas = torch.zeros(count, *pack.largest, 3, dtype=torch.uint8, device=device)
    times = []
    for _ in range(4):  # the first prepares
        began = time.perf_counter()
        records.decode_into(canvas)
        canvas[-1, 0, 0, 0].item()  # waits for all of it
        times.append(time.perf_counter() - began)
    unit = "a decoder of its own" if has_decoder(device) else "no decoder of its own"
    results.decoding[f"torchvision on {device} ({unit})"] = count / min(times[1:])


def precision_of(device: torch.device) -> str:
    """The recipe's override; float32 where a step of a rehearsal would take a minute in emulated bfloat16."""
    return f"precision={'fp32' if emulates_bfloat16(device) else 'bf16'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--out", type=Path, default=Path("gpu-run"))
    parser.add_argument("--tests", type=Path)
    parser.add_argument("--tests-status", type=int, default=0)
    options = parser.parse_args()
    ends = time.monotonic() + options.seconds
    device = torch.device("cpu") if options.dry else choose_device("cuda")
    name = "a CPU, as a rehearsal" if options.dry else torch.cuda.get_device_name(device)
    verdict = "not run"
    if options.tests is not None:
        lines = options.tests.read_text().strip().splitlines() or ["no output"]
        verdict = lines[-1] if options.tests_status == 0 else f"exit code {options.tests_status}: {lines[-1]}"
    results = Results(name, verdict)
    results.write(options.out)

    with part(results, "inference", options.out):
        for model_name in MODELS[: 1 if options.dry else None]:
            for where in dict.fromkeys((device, torch.device("cpu"))):
                model = load_model(model_name).to(where).eval()
                batches = (1,) if options.dry else BATCHES if where.type == "cuda" else BATCHES[:2]
                for found in benchmark_backends(model, where, batches=batches, time_budget=1 if options.dry else 6):
                    if found.reason is None:
                        results.inference.append((model_name, str(where), str(found.setup), dict(found.milliseconds)))
    with part(results, "evaluation", options.out):
        size = {"count": 8, "batch_size": 4, "num_workers": 0} if options.dry else EVALUATION
        measure_evaluation(results, MODELS[0], device, **size)
    with part(results, "decoding", options.out):
        measure_decoding(results, options.out, device, count=16 if options.dry else 2048)

    crops = {"format": "pack", "annotations": str(options.pack.resolve())} if options.pack else None
    source = crops or {**PHOTOS, "annotations": str(PEOPLE / "train.json")}
    rows = [(recipe_name, compiled) for compiled in (False, True) for recipe_name in PAPERS]
    for recipe_name, compiled in rows:
        if compiled and (options.dry or time.monotonic() > ends - 0.5 * options.seconds):
            continue
        size = 4 if options.dry else None
        changes = [
            f"data.train={json.dumps([{**source, 'repeat': 1 if options.dry else 200}])}",
            f"data.num_workers={0 if options.dry else 14}",
            f"data.cache={options.out / 'cache.pack' if crops is None else 'null'}",
            f"compile={json.dumps(compiled)}", precision_of(device), "data.warp_on_device=true",
            *(TEACHERLESS if recipe_name.startswith("body") else []),
            *([f"batch_size={size}"] if size else []),
        ]  # fmt: skip
        if crops is not None:
            changes.remove("data.cache=null")
            changes.remove("data.warp_on_device=true")
        try:
            steps = 1 if options.dry else 30
            times: StepTimes | str = bench_training(recipe_of(recipe_name, changes), steps=steps, device=str(device))
        except (LeanposeError, RuntimeError) as error:
            times = sentence_of(error)
        results.training.append((recipe_name, compiled, times))
        results.write(options.out)

    with part(results, "body", options.out):
        train_body(results, source if crops is None else crops, options, device, ends)
    (options.out / "cache.pack").unlink(missing_ok=True)
    print((options.out / "gpu.md").read_text())


def sentence_of(error: Exception) -> str:
    """The kind of an error and the beginning of its first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


@contextmanager
def part(results: Results, name: str, folder: Path) -> Iterator[None]:
    """Write what the block measured; an error in it is noted and does not keep the next parts from being measured."""
    try:
        yield
    except (LeanposeError, RuntimeError) as error:
        results.failed[name] = sentence_of(error)
        traceback.print_exc()
    results.write(folder)


def train_body(
    results: Results, source: dict[str, Any], options: argparse.Namespace, device: torch.device, ends: float
) -> None:
    """Tune the released body model on the packed people until the time is up, measured on the photos' unseen people."""
    val = {**PHOTOS, "annotations": str(PEOPLE / "val.json")}
    packed = source["format"] == "pack"
    batch = 4 if options.dry else 128
    changes = [
        f"data.train={json.dumps([source])}", f"data.val={json.dumps(val)}", "data.root=/",
        f"data.num_workers={0 if options.dry else 14}", *([] if packed else [f"data.cache={options.out / 'cache.pack'}"]),
        "init_from=leanpose-body-s", f"batch_size={batch}",
        f"optimizer.lr={1.5e-4 * batch / 32}",
    ]  # fmt: skip
    recipe = load_recipe(find_recipe("body/tinypose_body_s_tight"), changes)
    timed = bench_training(recipe, steps=1 if options.dry else 20, device=str(device))
    epoch_seconds = timed.hours * 3600 / recipe.schedule.epochs
    # A validation of the 86 people and the start of the loader processes come on top of an epoch's steps.
    epochs = 1 if options.dry else int(min((ends - time.monotonic() - 20) / (epoch_seconds + 8), 60))
    if epochs < 1:
        return
    schedule = recipe.schedule.model_copy(update={"epochs": epochs})
    recipe = recipe.model_copy(update={"schedule": schedule})
    run = options.out / "body"
    shutil.rmtree(run, ignore_errors=True)
    summary = train(recipe, run, device=str(device), quiet=True)
    for file in ("train.csv", "val.csv", "best.safetensors"):
        if (run / file).is_file():
            shutil.copy(run / file, options.out / file)
    shutil.rmtree(run)
    results.body = {
        "epochs": epochs,
        "seconds": round(summary.seconds, 1),
        "AP on the 86 people of the photos that nobody is trained on": round(100 * summary.metrics["AP"], 1),
        "best": f"{100 * summary.best:.1f} after epoch {summary.best_epoch}",
        "crops a second": round(timed.people_per_second, 1),
    }


if __name__ == "__main__":
    main()
