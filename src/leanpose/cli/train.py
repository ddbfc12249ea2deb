"""`leanpose train`: run a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from leanpose.cli.exit_codes import exit_if_skipped
from leanpose.cli.options import DeviceOption, SettingsArgument, counted, print_some
from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from leanpose.training.loop import RunSummary


def train(
    recipe: Annotated[str | None, Argument(help="A file, or one of `leanpose recipes`: sdpose/s_v1_coco.")] = None,
    settings: SettingsArgument = None,
    out: Annotated[
        Path | None, Option("--out", "-o", help="Folder of the run. [default: runs/NAME OF THE RECIPE]")
    ] = None,
    resume: Annotated[Path | None, Option(help="Run folder to resume, instead of a recipe.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train or distil a model from a recipe.

    Several GPUs or machines: torchrun --nproc-per-node 8 -m leanpose train RECIPE
    """
    if (recipe is None) == (resume is None):
        raise LeanposeError("Give either a recipe or --resume FOLDER.")
    if resume is not None and (out is not None or settings):
        raise LeanposeError(
            "--resume cannot be combined with --out or overrides: a run keeps its folder and its recipe."
        )
    from leanpose.training.recipe import find_recipe, parse_recipe, read_recipe, recipe_file, row_of

    if resume is not None:
        file, folder = recipe_file(resume), resume
    else:
        file = find_recipe(str(recipe))
        row = row_of(settings)
        folder = out or Path("runs") / (file.stem if row is None else f"{file.stem}-{row}")
    values = read_recipe(file, settings)
    from leanpose.models.registry import model_entry

    how = {"resume": resume is not None, "device": device}
    if model_entry(str(values.get("model"))).task == "classification":
        from leanpose.classification.recipe import parse_classification_recipe
        from leanpose.classification.train import train_classifier

        summary = train_classifier(parse_classification_recipe(values, str(file)), folder, **how)
    else:
        checked = parse_recipe(values, str(file))
        from leanpose.training.train import train as run  # takes seconds, which a wrong recipe need not

        summary = run(checked, folder, **how)
    report(summary)
    exit_if_skipped(summary.broken)


def report(summary: "RunSummary") -> None:
    """Print the results of a finished run."""
    from leanpose.training.log import duration

    print(f"Trained in {duration(summary.seconds)}; weights, log and state are in {summary.folder}.")
    for number, stage in enumerate(summary.stages, start=1):
        if stage.metrics:
            print(f"Stage {number}: " + _figures(stage.metrics))
    if summary.metrics:
        print("Last:  " + _figures(summary.metrics))
        from leanpose.evaluation.report import primary_metric

        best = f"{primary_metric(summary.metrics)} {100 * summary.best:.1f}"
        print(f"Best:  {best} after epoch {summary.best_epoch} (best.safetensors)")
    if summary.broken:
        print(f"{counted(len(summary.broken), 'image')} could not be read and were skipped:")
        print_some(list(summary.broken.values()))


def _figures(metrics: dict[str, float]) -> str:
    """In percent; -1 marks a metric that cannot be computed on this data."""
    return "  ".join(f"{name} {100 * value:.1f}" if value >= 0 else f"{name} –" for name, value in metrics.items())
