"""`leanpose bench`: how fast is a model in each backend, and how fast does a recipe train?"""

import statistics
import time
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from leanpose.cli.options import BackendOption, DetectorOption, DeviceOption, new_table, status, table_console
from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from rich.table import Table

    from leanpose.inference.choice import BackendBenchmark
    from leanpose.models.base import PoseModel

ROUNDS = 5  # of whole images


def bench(
    model: Annotated[
        str, Argument(help="A file, a released name, hf://USER/NAME, a model's name, or `train` to benchmark a recipe.")
    ] = "leanpose-body-s",
    recipe: Annotated[
        list[str] | None,
        Argument(help="After `train`: a recipe, and overrides such as batch_size=64."),
    ] = None,
    device: DeviceOption = "auto",
    batches: Annotated[str, Option(help="Batch sizes to time.")] = "1,2,5,10,20",
    time_budget: Annotated[float, Option(min=0.1, help="Time budget for all backends together, in seconds.")] = 30.0,
    threads: Annotated[int | None, Option(min=1, help="Threads of each backend. [default: torch's choice]")] = None,
    people: Annotated[
        int | None, Option(min=1, help="Benchmark detector and pose model on images with 1 to N people instead.")
    ] = None,
    detector: DetectorOption = "auto",
    backend: BackendOption = "auto",
    steps: Annotated[int, Option(min=1, help="With `train`: number of steps to time.")] = 20,
) -> None:
    """Time the installed backends and remember the fastest, or time the training steps of a recipe.

    Backends whose outputs differ from torch are excluded; keypoint distances are in pixels of the crop.
    """
    import torch

    from leanpose.cli.export import fresh_model
    from leanpose.device import choose_device
    from leanpose.inference.choice import benchmark_backends, remember
    from leanpose.weights import load_model

    if threads is not None:
        torch.set_num_threads(threads)
    if model == "train":
        _training(recipe or [], device, steps)
        return
    if recipe:
        raise LeanposeError(f"'{recipe[0]}' is one argument too many: give one model, or `train` and a recipe.")
    try:
        sizes = tuple(int(part) for part in batches.split(","))
    except ValueError:
        sizes = (0,)
    if min(sizes) < 1:
        raise LeanposeError(f"--batches {batches} is not valid: give positive integers, such as 1,8.")
    chosen = choose_device(device)
    net = (fresh_model(model) or load_model(model)).to(chosen).eval()
    if people is not None:
        _whole_images(net, people, detector, chosen, backend)
        return
    what = f"{model} ({net.name}, {len(net.skeleton)} keypoints, {'×'.join(map(str, net.input_size))})"
    print(f"Model:    {what} on {chosen}, {torch.get_num_threads()} threads")
    with status() as advance:
        results = benchmark_backends(net, chosen, batches=sizes, time_budget=time_budget, advance=advance)
    table_console().print(_table(results, sizes))
    for result in results:
        if result.reason is not None:
            print(f"{result.setup}: not used: {result.reason}")
    print(f"Fastest:  {remember(net, chosen, results)}; --backend auto takes it from now on.")


def _training(arguments: list[str], device: str, steps: int) -> None:
    """Where the time of a recipe's steps goes."""
    from leanpose.training.bench import bench_training
    from leanpose.training.recipe import find_recipe, load_recipe

    if not arguments:
        raise LeanposeError("Give a recipe: leanpose bench train RECIPE; `leanpose recipes` lists them.")
    file, settings = find_recipe(arguments[0]), arguments[1:]
    times = bench_training(load_recipe(file, settings), steps=steps, device=device)
    table = new_table(f"A step of {times.batch_size} people on {times.device}", "phase", ">milliseconds", ">share")
    for phase, seconds in times.phases.items():
        table.add_row(phase, f"{1000 * seconds:.1f}", f"{100 * seconds / times.seconds:.1f} %")
    table.add_row("whole step", f"{1000 * times.seconds:.1f}", "")
    table_console().print(table)
    rate, limit = times.people_per_second, times.limit
    print(
        f"{rate:.1f} people per second over {times.steps} steps; the device computes {100 * times.busy:.0f} % of the time."
    )
    print(
        f"Limit: {limit:.0f} people per second, at {times.flops / 1e9:.2f} billion operations each and "
        f"{times.matrix_rate / 1e9:.0f} billion a second in large products ({100 * rate / limit:.0f} % of it reached); "
        f"memory copies {times.bandwidth / 1e9:.1f} GB/s."
    )
    print(f"All epochs of the recipe, without validation: {times.hours:.2f} hours.")


def _table(results: "Sequence[BackendBenchmark]", sizes: "Sequence[int]") -> "Table":
    title = "Milliseconds a batch, with decoding, and how many times as fast as torch fp32"
    columns = (f">batch {size}" for size in sizes)
    table = new_table(title, "backend", *columns, ">prediction off by", ">median px", ">99 % px")
    base = results[0].milliseconds
    for result in results:
        if result.reason is None:
            cells = [f"{result.milliseconds[s]:.1f} ({base[s] / result.milliseconds[s]:.2f}×)" for s in sizes]
            near = result.agreement
            off = (None,) * 3 if near is None else (near.prediction, near.median, near.tail)
            forms = zip(off, (".0e", ".3f", ".3f"), strict=True)
            table.add_row(str(result.setup), *cells, *("–" if v is None else f"{v:{form}}" for v, form in forms))
    return table


def _whole_images(model: "PoseModel", most: int, detector: str, device: "torch.device", backend: str) -> None:
    """Seconds per image with 1, 2, … people: the detector's time and the pose model's."""
    import numpy as np

    from leanpose.inference.detectors import Detector, WholeImage
    from leanpose.inference.estimator import PoseEstimator
    from leanpose.synthetic import render_scene

    finder = Detector.load(detector, device=str(device))
    estimator = PoseEstimator(model, finder, device, backend)
    without = isinstance(finder, WholeImage)
    print(f"Backend:  {estimator.backend}, {estimator.backend_reason}; people from {finder.name}")
    print("Images: 1280×720 with drawn people; poses are in their known boxes, however many are detected.")
    print(f"{'people':>6}  {'detector ms':>11}  {'poses ms':>8}  {'together ms':>11}")
    for count in range(1, most + 1):
        scene = render_scene(1, count, (720, 1280), people=(count, count), framing="group")
        boxes = np.resize(scene.boxes, (count, 4))
        detected, posed = [], []
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            if not without:
                finder([scene.image])
            between = time.perf_counter()
            estimator(scene.image, boxes)
            detected.append(1000 * (between - began))
            posed.append(1000 * (time.perf_counter() - between))
        first, second = (statistics.median(times[1:]) for times in (detected, posed))
        print(f"{count:6d}  {'–' if without else f'{first:.1f}':>11}  {second:8.1f}  {first + second:11.1f}")
