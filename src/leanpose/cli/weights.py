"""`leanpose weights`: the weights that ship with the package, what they were trained on, and under what terms."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from leanpose.cli.options import new_table, table_console


def weights(
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Only weights without research-only or non-commercial training data.")
    ] = False,
) -> None:
    """List the released weights with their training data and terms."""
    from leanpose.weights.released import RELEASED

    names = [name for name, release in RELEASED.items() if release.commercial or not commercial]
    console = table_console()
    if not names:
        print(
            f"None of the {len(RELEASED)} released weights is free of research-only or non-commercial training data; "
            "`leanpose weights` shows the terms of each."
        )
        return
    console.print(release_table(names))
    for name in names:
        release = RELEASED[name]
        console.print(f"[bold]{name}[/bold]", highlight=False)
        console.print(f"  trained on: {'; '.join(release.card['training_data'])}", highlight=False, markup=False)
        console.print(f"  terms:      {release.licence}", highlight=False, markup=False)


def release_table(names: list[str]) -> Table:
    """The released weights of these names, with sizes."""
    from leanpose.weights.released import RELEASED

    columns = ("name", ">parameters", ">input", ">keypoints", ">file", "commercial use", "what it is")
    table = new_table("Released weights: leanpose.load_model(name)", *columns)
    for name in names:
        release = RELEASED[name]
        card = release.card
        table.add_row(
            name,
            f"{card['parameters'] / 1e6:.2f} M",
            "{}x{}".format(*card["input_size"]),
            str(len(card["skeleton"]["keypoints"])),
            f"{release.path.stat().st_size / 1e6:.1f} MB",
            "yes" if release.commercial else "no",
            release.summary,
        )
    return table
