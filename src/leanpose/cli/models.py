"""`leanpose models`: what can be built, what it costs, and what it is known to reach."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def models(
    pattern: Annotated[str, typer.Argument(help="Only names that fit, such as 'sdpose_*'.")] = "*",
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="The models' options, such as encoder_layers=4 input_size=[384,288].", metavar="KEY=VALUE …"
        ),
    ] = None,
) -> None:
    """List models, what they cost and what they reach, and the released weights."""
    from fnmatch import fnmatchcase

    from leanpose.errors import LeanposeError, did_you_mean
    from leanpose.models.registry import list_models
    from leanpose.weights import RELEASED

    if "=" in pattern:
        raise LeanposeError(f"Say first whose option '{pattern}' is, for example: leanpose models tfpose_r50 {pattern}")
    options = _options(settings or [])
    names = list_models(pattern)
    released = [name for name in RELEASED if fnmatchcase(name, pattern) and not options]
    if not names and not released:
        raise LeanposeError(f"No model is called '{pattern}'; {did_you_mean(pattern, [*list_models(), *RELEASED])}")
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # for files and pipes: one line a model
    if names:
        with console.status(f"Counting {len(names)} models …"):
            table = _architectures(names, options)
        console.print(table)
        console.print(
            "GMACs: of one crop at inference, as mmcv counts them, without the products of attention; "
            "'with attention' adds those. AP: on COCO val2017, as published, not measured here; '(whole body)': over the "
            "133 keypoints of COCO-WholeBody val, which is another measure; '(top-1)': of a classifier, in percent of "
            "ImageNet's pictures.",
            style="dim",
        )
    if released:
        console.print(_releases(released))


def _options(settings: list[str]) -> dict[str, Any]:
    if not settings:
        return {}
    from leanpose.training.recipe import read_setting

    return dict(read_setting(setting, "encoder_layers=4") for setting in settings)


def _architectures(names: list[str], options: dict[str, Any]) -> Table:
    from leanpose.models.cost import model_cost
    from leanpose.models.registry import configure_model, model_entry

    table = Table(title="Models: leanpose.create_model(name)", title_justify="left")
    table.add_column("name", no_wrap=True)
    for title in ("parameters", "GMACs", "with attention", "input", "AP"):
        table.add_column(title, justify="right")
    table.add_column("source of AP")
    for name in names:
        cost, (height, width) = model_cost(name, **options), configure_model(name, **options).input_size
        changed = ", ".join(f"{key}={value}" for key, value in options.items())
        published = ("–", f"with {changed}") if options else model_entry(name).published
        table.add_row(
            name,
            f"{cost.parameters / 1e6:.2f} M",
            f"{cost.macs / 1e9:.2f}",
            f"{(cost.macs + cost.attention_macs) / 1e9:.2f}",
            f"{height}x{width}",
            *published,
        )
    return table


def _releases(names: list[str]) -> Table:
    from leanpose.weights import RELEASED, describe

    table = Table(title="Released weights: leanpose.load_model(name)", title_justify="left")
    table.add_column("name", no_wrap=True)
    for title in ("parameters", "input", "keypoints", "file"):
        table.add_column(title, justify="right")
    for title in ("licence", "what it is"):
        table.add_column(title)
    for name in names:
        card, release = describe(name), RELEASED[name]
        table.add_row(
            name,
            f"{card['parameters'] / 1e6:.2f} M",
            "{}x{}".format(*card["input_size"]),
            str(len(card["skeleton"]["keypoints"])),
            f"{release.path.stat().st_size / 1e6:.1f} MB",
            release.licence,
            release.summary,
        )
    return table
