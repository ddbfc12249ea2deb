"""`leanpose weights`: the weights that ship with the package, with their training data and licences."""

from typing import TYPE_CHECKING, Annotated

from typer import Option

from leanpose.cli.options import new_table, table_console

if TYPE_CHECKING:
    from rich.table import Table


def weights(
    commercial: Annotated[
        bool, Option("--commercial", help="Only weights without research-only or non-commercial training data.")
    ] = False,
) -> None:
    """List released weights with training data and licence terms."""
    from leanpose.weights.released import RELEASED

    names = [name for name, release in RELEASED.items() if release.commercial or not commercial]
    if not names:
        print(
            f"None of the {len(RELEASED)} released weights is free of research-only or non-commercial training data; "
            "`leanpose weights` shows the terms of each."
        )
        return
    table_console().print(release_table(names))
    for name in names:
        data = "; ".join(RELEASED[name].card["training_data"])
        print(f"{name}\n  trained on: {data}\n  terms:      {RELEASED[name].licence}")


def release_table(names: list[str]) -> "Table":
    """The released weights of these names, with sizes."""
    from leanpose.weights.released import RELEASED

    columns = ("name", ">parameters", ">input", ">keypoints", ">file", "commercial use", "what it is")
    table = new_table("Released weights: leanpose.load_model(name)", *columns)
    for name in names:
        release, card = RELEASED[name], RELEASED[name].card
        size, keypoints = "{}x{}".format(*card["input_size"]), str(len(card["skeleton"]["keypoints"]))
        parameters, file = f"{card['parameters'] / 1e6:.2f} M", f"{release.path.stat().st_size / 1e6:.1f} MB"
        commercial = "yes" if release.commercial else "no"
        table.add_row(name, parameters, size, keypoints, file, commercial, release.summary)
    return table
