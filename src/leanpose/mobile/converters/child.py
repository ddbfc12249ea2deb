"""What the converters have in common. These files run in an environment without leanpose and import nothing of it.

A request is a line of JSON on the standard input, its answer a line on the standard output:

    {"do": "convert", "source": …, "target": …, "precision": …, "outputs": […]} → {"versions": {…}}
    {"do": "open", "file": …, "precision": …, "outputs": […], "threads": …} → {}
    {"do": "run", "images": IN.npz, "outputs": OUT.npz} → {}

or `{"error": SENTENCE}`. `IN.npz` holds `images`, a crop per row; `OUT.npz` the outputs by name, and `seconds` per crop (of processor time, where there is one thread).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], Sequence[np.ndarray]]
"""One crop, with its batch dimension, to the outputs in order, with theirs."""


class Failure(Exception):
    """What the user is to be told."""


def serve(packages: Sequence[str], convert: Callable[..., None], open_file: Callable[..., Run]) -> None:
    """Answer requests until there are no more.

    Args:
        packages: whose versions are told.
        convert: writes a file; takes `source`, `target`, `precision` and `outputs`.
        open_file: opens one; takes `file`, `precision`, `outputs` and `threads`.
    """
    # Libraries talk on the standard output; what they say goes to the log, as if it were an error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    run: Run | None = None
    names: Sequence[str] = ()
    clock = time.perf_counter
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        action, answer = request.pop("do"), {}
        try:
            if action == "convert":
                convert(**request)
                answer = {"versions": {name: importlib.metadata.version(name) for name in packages}}
            elif action == "open":
                names = request["outputs"]
                run = open_file(**request)
                clock = (
                    time.process_time if request["threads"] == 1 else time.perf_counter
                )  # without other programs' share
            else:
                assert run is not None
                _run(run, names, request["images"], request["outputs"], clock)
        except Failure as error:
            answer = {"error": str(error)}
        except Exception as error:  # the package's own, of which each has several
            traceback.print_exc()
            text = (str(error).strip().splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {text}"[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _run(run: Run, names: Sequence[str], source: str, target: str, clock: Callable[[], float]) -> None:
    with np.load(source, allow_pickle=False) as file:
        images = file["images"]
    parts, seconds = [], []
    for image in images:
        begin = clock()
        outputs = run(np.ascontiguousarray(image[None]))
        seconds.append(clock() - begin)
        parts.append([np.array(output) for output in outputs])
    values = {name: np.concatenate(rows) for name, rows in zip(names, zip(*parts, strict=True), strict=True)}
    values["seconds"] = np.array(seconds)
    np.savez(target, allow_pickle=False, **values)


def run_tool(command: Sequence[str], folder: str) -> str:
    """Run a converter's program in a folder, and log and return what it says.

    Raises:
        Failure: it ended with an error.
    """
    ended = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    sys.stderr.write(ended.stdout)
    if ended.returncode != 0:
        lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()]
        said = f": {lines[-1][:200]}" if lines else ""
        code = ended.returncode
        how = f"with code {code}" if code > 0 else f"by {signal.Signals(-code).name}"
        raise Failure(f"the program that converts ended {how}{said}")
    return ended.stdout
