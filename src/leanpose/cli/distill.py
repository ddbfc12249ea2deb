"""`leanpose distill`: any teacher, any student, one command, and a report that says what it was worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanpose.cli.options import Device, Settings


def distill(
    teacher: Annotated[
        str, typer.Argument(help="A released name, a .safetensors or .onnx file, or the folder of a run.")
    ],
    student: Annotated[str, typer.Argument(help="A model's name, a .safetensors file to start from, or a recipe.")],
    settings: Settings = None,
    data: Annotated[
        Path | None,
        typer.Option(help="What to train on: a folder or COCO file of people, a YOLO data.yaml, or a recipe."),
    ] = None,
    unlabelled: Annotated[
        list[Path] | None, typer.Option(help="Pictures without labels, a folder; the teacher labels them. Repeatable.")
    ] = None,
    budget: Annotated[str, typer.Option(help="For all runs together (30min, 2h), or for each (20epochs).")] = "30min",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each kind.")] = 1,
    baseline: Annotated[
        bool, typer.Option(help="Train the plain student too, so that the gain can be measured.")
    ] = True,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the losses and why they were chosen; train nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on with a teacher that is no better than the student.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the runs and the report; the same again goes on.")] = Path(
        "runs/distillation"
    ),
    device: Device = "auto",
) -> None:
    """Train a student from the labels alone and taught by a teacher, at equal cost, and report the difference.

    Example: leanpose distill leanpose-body-s rtmpose_t model_options.input_size=[128,96] --data people/
    """
    from leanpose.distillation import plan_distillation, run_distillation
    from leanpose.distillation.run import explain as explained
    from leanpose.distillation.unlabelled import label_pictures, with_unlabelled

    plan = plan_distillation(teacher, student, data, settings or [], seeds=seeds, baseline=baseline)
    if explain:
        for sentence in (*plan.sentences, *explained(plan, out)):
            print(sentence)
        return
    for number, folder in enumerate(unlabelled or []):
        plan = with_unlabelled(plan, label_pictures(folder, teacher, out / f"unlabelled-{number}.json"))
    result = run_distillation(plan, out, budget=budget, force=force, device=device)
    for sentence in result.summary:
        print(sentence)
    print(f"Open {result.report} in a browser.")
