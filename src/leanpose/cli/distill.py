"""`leanpose distill`: distil any teacher into any student, and report the gain."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from leanpose.cli.exit_codes import exit_if_skipped, stopped_code
from leanpose.cli.options import DeviceOption, ForeignSkeletonOption, SettingsArgument
from leanpose.errors import LeanposeError


def distill(
    teacher: Annotated[
        str, Argument(help="A released name, a .safetensors or .onnx file, hf://USER/NAME, or a run's folder.")
    ],
    student: Annotated[str, Argument(help="A model's name, a .safetensors file to start from, or a recipe.")],
    settings: SettingsArgument = None,
    data: Annotated[Path | None, Option(help="People: a folder, a COCO file, a YOLO data.yaml, or a recipe.")] = None,
    unlabelled: Annotated[
        list[Path] | None, Option(help="Images or a video to be pseudo-labelled by the teacher (repeatable).")
    ] = None,
    skeleton: ForeignSkeletonOption = None,
    budget: Annotated[
        str, Option(help="Training budget: time for all runs together (30min, 2h), or epochs of each (20epochs).")
    ] = "30min",
    seeds: Annotated[int, Option(min=1, help="Seeds (runs) per variant.")] = 1,
    baseline: Annotated[bool, Option(help="Also train the student without the teacher, to measure the gain.")] = True,
    explain: Annotated[
        bool, Option("--explain", help="Print the losses and the reasons for them; train nothing.")
    ] = False,
    force: Annotated[
        bool, Option("--force", help="Continue even if the teacher is not better than the student.")
    ] = False,
    matrix: Annotated[
        bool, Option("--matrix", help="TEACHER and STUDENT are comma-separated lists: run all pairs, print one table.")
    ] = False,
    out: Annotated[
        Path, Option("--out", "-o", help="Output folder of runs and report; repeating the command resumes.")
    ] = Path("runs/distillation"),
    device: DeviceOption = "auto",
) -> None:
    """Distil any teacher into any student.

    Trains the student without and with the teacher, at equal cost, and reports the difference.

    Example: leanpose distill leanpose-body-s rtmpose_t model_options.input_size=[128,96] --data people/
    """
    from leanpose.distillation import plan_distillation, run_distillation
    from leanpose.distillation.matrix import run_matrix, split_names
    from leanpose.distillation.run import PLAN_FILE, UNLABELLED
    from leanpose.distillation.run import explain as explained
    from leanpose.distillation.unlabelled import label_images, read_labels, with_unlabelled

    settings = [*(settings or []), *([] if skeleton is None else [f"distillation.teacher_skeleton={skeleton}"])]
    if matrix:
        if explain or unlabelled or not baseline:
            raise LeanposeError("--matrix takes neither --explain nor --unlabelled nor --no-baseline.")
        pairs = [(one, other) for one in split_names(student) for other in split_names(teacher)]
        plans = {(s, t): plan_distillation(t, s, data, settings, seeds=seeds) for s, t in pairs}
        table = run_matrix(plans, out, budget=budget, device=device)
        print(f"{table.read_text()}\nThe table is {table}.")
        return
    plan = plan_distillation(teacher, student, data, settings, seeds=seeds, baseline=baseline)
    if explain:
        for sentence in (*plan.sentences, *explained(plan, out)):
            print(sentence)
        return
    skipped = 0
    for number, source in enumerate(unlabelled or []):
        file = out / f"{UNLABELLED}-{number}.json"
        begun = file.is_file() and (out / PLAN_FILE).is_file()
        labels = read_labels(file, source) if begun else label_images(source, teacher, file, skeleton=skeleton)
        if labels.stopped:
            raise Exit(stopped_code())
        skipped += labels.skipped
        plan = with_unlabelled(plan, labels)
    result = run_distillation(plan, out, budget=budget, force=force, device=device)
    for sentence in result.summary:
        print(sentence)
    print(f"Open {result.report} in a browser.")
    exit_if_skipped(result.broken, range(skipped))
