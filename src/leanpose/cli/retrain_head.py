"""`leanpose retrain-head`: a new head for a trained SimCC model, distilled from its own (DWPose, stage 2)."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from leanpose.cli.exit_codes import exit_if_skipped
from leanpose.cli.options import DeviceOption, SettingsArgument
from leanpose.errors import LeanposeError

_DECIDED = frozenset(
    ["model", "model_options", "codec", "distillation", "init_from", "strict", "pretrained", "auxiliary_heatmap_weight"]
)
"""Recipe keys that are replaced by those of the trained model and of the method."""


def retrain_head(
    trained: Annotated[str, Argument(help="A trained SimCC model: a .safetensors file, a run or a released name.")],
    recipe: Annotated[
        Path | None, Argument(help="Recipe that provides data and schedule. [default: the run's own]")
    ] = None,
    settings: SettingsArgument = None,
    epochs: Annotated[int | None, Option(min=1, help="[default: a fifth of the recipe's]")] = None,
    logit_weight: Annotated[float, Option(min=0, help="Weight of the distillation loss.")] = 1.0,
    out: Annotated[Path | None, Option("--out", "-o", help="Folder of the run. [default: runs/NAME-new-head]")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Retrain the head of a SimCC model by self-distillation (DWPose, stage 2).

    The backbone is frozen and the model itself is the teacher; labels are needed for validation only. To distil from
    another model, use `leanpose distill`, or `leanpose train` with a teacher in the recipe.
    """
    from leanpose.cli.train import report
    from leanpose.device import choose_device
    from leanpose.distillation.retrain_head import retrain_head_recipe
    from leanpose.evaluation.report import primary_metric
    from leanpose.training.build import read_validation_people, require_no_run, validate_model
    from leanpose.training.recipe import load_recipe
    from leanpose.training.sources import weights_of
    from leanpose.training.train import train
    from leanpose.weights import load_model

    folder = Path(trained)
    if recipe is not None and recipe.suffix not in (".yaml", ".yml"):  # an override of the run's own recipe
        settings, recipe = [str(recipe), *(settings or [])], None
    for setting in settings or []:
        if setting.partition("=")[0].partition(".")[0] in _DECIDED:
            raise LeanposeError(f"'{setting}' has no effect: retrain-head only trains the head of {trained}.")
    file = weights_of(trained)
    source = recipe or folder / "recipe.yaml"
    if recipe is None and not source.is_file():
        raise LeanposeError(f"{trained} is not a run folder with a recipe; pass a recipe as the second argument.")
    model = load_model(file)
    recipe_now = load_recipe(source, settings)
    plan = retrain_head_recipe(recipe_now, model, str(file), logit_weight=logit_weight, epochs=epochs)
    out = out or Path("runs") / f"{folder.name if folder.is_dir() else folder.stem}-new-head"
    require_no_run(out)  # before the validation, which may take long
    people = read_validation_people(plan)
    before = None if people is None else validate_model(plan, model.to(choose_device(device)).eval(), people)
    summary = train(plan, out, device=device)
    report(summary)
    if before is not None:
        name = primary_metric(before)
        print(f"{name} {100 * before[name]:.1f} with the old head, {100 * summary.best:.1f} with the new one.")
    exit_if_skipped(summary.broken)
