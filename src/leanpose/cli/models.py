"""`leanpose models`: what can be built, what it costs, and what it is known to reach."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def models(
    pattern: Annotated[str, typer.Argument(help="Only names that fit, such as 'sdpose_*'.")] = "*",
) -> None:
    """List models, what they cost and what they reach, and the released weights."""
    from fnmatch import fnmatchcase

    from leanpose.errors import LeanposeError, did_you_mean
    from leanpose.models.registry import list_models
    from leanpose.weights import RELEASED

    names = list_models(pattern)
    released = [name for name in RELEASED if fnmatchcase(name, pattern)]
    if not names and not released:
        raise LeanposeError(f"No model is called '{pattern}'; {did_you_mean(pattern, [*list_models(), *RELEASED])}")
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # for files and pipes: one line a model
    if names:
        with console.status(f"Counting {len(names)} models …"):
            table = _architectures(names)
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


def _architectures(names: list[str]) -> Table:
    from leanpose.models.cost import model_cost
    from leanpose.models.registry import configure_model, model_entry

    table = Table(title="Models: leanpose.create_model(name)", title_justify="left")
    table.add_column("name", no_wrap=True)
    for title in ("parameters", "GMACs", "with attention", "input", "AP"):
        table.add_column(title, justify="right")
    table.add_column("source of AP")
    for name in names:
        entry, cost, (height, width) = model_entry(name), model_cost(name), configure_model(name).input_size
        table.add_row(
            name,
            f"{cost.parameters / 1e6:.2f} M",
            f"{cost.macs / 1e9:.2f}",
            f"{(cost.macs + cost.attention_macs) / 1e9:.2f}",
            f"{height}x{width}",
            *entry.published,
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
