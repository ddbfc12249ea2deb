"""Kill every long command at random, run it again, and compare what comes out with an uninterrupted run.

`make torture` does 50 kills (`--kills`), by SIGKILL to the command and all its processes, through the real command line:
train, distill, data pack, data label, predict on images and on a video, and export. Results must be equal: weights and
logs but for times, packs, labels and poses byte for byte, exports but for the moment that is in no file.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from clips import write_clip
from tiny import tiny_recipe, write_tiny_coco


@dataclass(frozen=True)
class Work:
    """A long command.

    Attributes:
        name: of its case.
        first: the arguments of a run that begins, given the folder to write to.
        again: the arguments of one that goes on.
        results: what it wrote, in a form that can be compared.
    """

    name: str
    first: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    results: Callable[[Path], Any]


def main() -> None:
    """Run the kills in turn over the commands; exit code 1 where a result differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="names of commands, with commas between them")
    parser.add_argument("--jobs", type=int, default=2, help="commands at the same time, each on one core")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        root = Path(name)
        os.environ["LEANPOSE_CACHE"] = str(root / "cache")
        works = [work for work in _works(root) if options.only is None or work.name in options.only.split(",")]
        with ThreadPoolExecutor(options.jobs) as pool:
            whole = dict(zip((work.name for work in works), pool.map(partial(_whole, root), works), strict=True))
            start_up = _start_up()

            def torture(number: int, at: float) -> bool:
                work = works[number % len(works)]
                expected, seconds = whole[work.name]
                # Most of them inside the work, one in ten while Python and PyTorch start; what was cached since shortens it.
                start = min(start_up, seconds / 3)
                moment = start * 10 * at if at < 0.1 else start + (at - 0.1) * 0.8 * (seconds - start)
                # As deep as the uninterrupted runs: a pack names its label files by the way from it to them.
                out = root / "killed" / f"{number}-{work.name}"
                return _same_after_a_kill(work, out, moment, expected)

            right = sum(pool.map(torture, range(options.kills), [rng.random() for _ in range(options.kills)]))
    print(f"{right} of {options.kills} equal the uninterrupted runs.")
    sys.exit(right < options.kills)


def _start_up() -> float:
    """Seconds until the work of a command begins."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import leanpose.training.train, leanpose.inference.folders"], check=True)
    return time.monotonic() - began


def _whole(root: Path, work: Work) -> tuple[Any, float]:
    """The results of an uninterrupted run, and the seconds that a second one takes, for which all is cached."""
    first, second = root / "whole" / work.name, root / "again" / work.name
    _finish(work, first)
    began = time.monotonic()
    _finish(work, second)
    seconds = time.monotonic() - began
    same = "" if work.results(first) == work.results(second) else ", DIFFERENT from the run before"
    print(f"{work.name}: {seconds:.1f} s uninterrupted{same}", flush=True)
    return work.results(first), seconds


def _same_after_a_kill(work: Work, out: Path, moment: float, expected: Any) -> bool:
    """Whether a run that is killed and goes on ends like an uninterrupted one, with nothing unfinished left."""
    killed = _kill(work, out, moment)
    _finish(work, out)
    same = work.results(out) == expected
    left = [str(path.relative_to(out)) for path in out.rglob(".*")]
    verdict = "equal" if same else "DIFFERENT"
    print(f"{out.name} {killed} after {moment:.1f} s: {verdict} {left or ''}", flush=True)
    shutil.rmtree(out)
    return same and not left


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "leanpose", *arguments]


def _kill(work: Work, out: Path, moment: float) -> str:
    """Begin the command and kill it, with all its processes, after so many seconds."""
    process = subprocess.Popen(
        _command(work.first(out)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "killed"
    return "had ended"


def _finish(work: Work, out: Path) -> None:
    """Run the command to its end, on from where it was stopped."""
    arguments = work.again(out) if out.exists() else work.first(out)
    done = subprocess.run(_command(arguments), capture_output=True, text=True, check=False)
    if done.returncode and "already contains a run" not in done.stderr:
        sys.exit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _works(root: Path) -> list[Work]:
    data, recipe = root / "data", root / "recipe.yaml"
    write_tiny_coco(data, people=40)
    write_clip(root / "clip.mp4", frames=40, size=(96, 128), audio="aac")
    settings = tiny_recipe(data, schedule={"epochs": 12, "warmup_steps": 0}, checkpoint_minutes=0.01)
    settings["data"]["num_workers"] = 2
    recipe.write_text(yaml.safe_dump(settings))
    val = write_tiny_coco(root / "val", people=20, seed=1)  # distill refuses to evaluate on what it trains on
    others = {
        **settings["data"],
        "val": {"format": "coco", "images": str(val.parent / "images"), "annotations": str(val)},
    }
    student = {**settings, "data": others, "distillation": {"method": "none"}}
    (root / "student.yaml").write_text(yaml.safe_dump(student))
    find = ["--detector", "whole-image", "--device", "cpu", "--backend", "torch"]

    def once(name: str, arguments: list[str], option: str, file: str, results: Callable[[Path], Any]) -> Work:
        def run(out: Path) -> list[str]:
            return [*arguments, option, str(out / file)]

        return Work(name, run, run, results)

    return [
        Work(
            "train",
            lambda out: ["train", str(recipe), "--out", str(out)],
            lambda out: (
                ["train", "--resume", str(out)]
                if (out / "state.pt").exists() or (out / "state-previous.pt").exists()
                else ["train", str(recipe), "--out", str(out)]
            ),
            _run,
        ),
        once(
            "distill",
            f"distill leanpose-body-tokenpose {root / 'student.yaml'} skeleton=body19 --budget 2epochs --force --device cpu".split(),
            "--out",
            "",
            lambda out: {run.name: _run(run) for run in sorted(out.glob("*-0"))},
        ),
        once(
            "pack",
            ["data", "pack", str(recipe)],
            "--out",
            "people.pack",
            lambda out: (out / "people.pack").read_bytes(),
        ),
        once(
            "label",
            ["data", "label", str(data / "images"), "--detector", "whole-image", "--keypoint-threshold", "0"],
            "--out",
            "labels.json",
            lambda out: (out / "labels.json").read_bytes(),
        ),
        once("images", ["predict", str(data / "images"), *find], "--out", "", _files),
        once("video", ["predict", str(root / "clip.mp4"), *find], "--out", "", _files),
        once("export", ["export", "sdpose_t"], "--out", "model.onnx", _graph),
    ]


def _run(folder: Path) -> Any:
    """Weights and logs but for the times."""
    weights = {
        name: {key: value.tobytes() for key, value in load_file(folder / f"{name}.safetensors").items()}
        for name in ("best", "last")
    }
    logs = []
    for name in ("train.csv", "val.csv"):
        if (folder / name).exists():
            rows = csv.DictReader((folder / name).open(newline=""))
            logs.append([{key: value for key, value in row.items() if key != "seconds"} for row in rows])
    return weights, logs


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _graph(folder: Path) -> Any:
    import onnx

    proto = onnx.load(folder / "model.onnx")
    card = json.loads(next(entry.value for entry in proto.metadata_props if entry.key == "leanpose"))
    return card, proto.graph.SerializeToString(deterministic=True)


if __name__ == "__main__":
    main()
