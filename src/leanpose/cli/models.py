"""`leanpose models`: the models, their costs and their published results."""

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from leanpose.cli.options import new_table, status, table_console
from leanpose.cli.weights import release_table

if TYPE_CHECKING:
    from rich.table import Table

    from leanpose.models.registry import ModelRow


def models(
    pattern: Annotated[str, Argument(help="Name pattern, such as 'sdpose_*'.")] = "*",
    settings: Annotated[
        list[str] | None, Argument(help="Model options: encoder_layers=4 …", metavar="KEY=VALUE …")
    ] = None,
) -> None:
    """List models with costs and results, and released weights."""
    from leanpose.errors import LeanposeError, did_you_mean
    from leanpose.models.registry import model_table
    from leanpose.weights.released import RELEASED

    if "=" in pattern:
        raise LeanposeError(f"Give a model name before '{pattern}', for example: leanpose models tfpose_r50 {pattern}")
    options: dict[str, Any] = {}
    if settings:
        from leanpose.training.recipe import read_setting  # takes longer than the whole table

        options = dict(read_setting(setting, "encoder_layers=4") for setting in settings)
    rows = {name: row for name, row in model_table().items() if fnmatchcase(name, pattern)}
    released = [name for name in RELEASED if fnmatchcase(name, pattern) and not options]
    if not rows and not released:
        raise LeanposeError(f"No model is called '{pattern}'; {did_you_mean(pattern, [*model_table(), *RELEASED])}")
    console = table_console()
    if options:
        from leanpose.models.cost import table_row

        with status() as say:
            say(f"Counting {len(rows)} models")
            source = f"with {', '.join(f'{key}={value}' for key, value in options.items())}"
            rows = {name: replace(table_row(name, **options), published="–", source=source) for name in rows}
    if rows:
        console.print(_architectures(rows))
        console.print(
            "GMACs: per crop at inference, as mmcv counts them, without the matrix products of attention; "
            "'with attention' adds those. AP: on COCO val2017, as published, not reproduced here; '(whole body)': on "
            "the 133 keypoints of COCO-WholeBody val; '(top-1)': top-1 accuracy of a classifier in percent, on "
            "ImageNet.",
            style="dim",
        )
    if released:
        console.print(release_table(released))
        console.print("Their training data and terms: leanpose weights.", style="dim")


def _architectures(rows: "dict[str, ModelRow]") -> "Table":
    numbers = (">parameters", ">GMACs", ">with attention", ">input", ">AP")
    table = new_table("Models: leanpose.create_model(name)", "name", *numbers, "source of AP")
    for name, row in rows.items():
        macs = (f"{count / 1e9:.2f}" for count in (row.macs, row.macs + row.attention_macs))
        size = "{}x{}".format(*row.input_size)
        table.add_row(name, f"{row.parameters / 1e6:.2f} M", *macs, size, row.published, row.source)
    return table
