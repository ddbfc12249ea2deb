"""`leanpose recipes`: the recipes that come with leanpose."""

from itertools import pairwise
from typing import Annotated

from typer import Argument


def recipes(pattern: Annotated[str, Argument(help="Name pattern, such as 'sdpose/*'.")] = "*") -> None:
    """List the recipes with commands and expected results.

    Each is a row of a paper's table.
    """
    from fnmatch import fnmatch

    from leanpose.errors import LeanposeError
    from leanpose.training.recipe import recipes_folder

    shown = 0
    for file in sorted(recipes_folder().glob("*/*.yaml")):
        name = f"{file.parent.name}/{file.stem}"
        for command, summary in _commands(name, file.read_text()):
            if fnmatch(command, pattern) or fnmatch(name, pattern):
                print(f"leanpose train {command}\n    {summary}")
                shown += 1
    if not shown:
        raise LeanposeError(f"No recipe matches '{pattern}'; `leanpose recipes` lists all.")


def _commands(name: str, text: str) -> list[tuple[str, str]]:
    """The command for each row of a recipe file, and its description and expected result from the comments."""
    lines = text.splitlines()
    comments = [line[1:].strip() for line in lines if line.startswith("#")]
    rows = [
        (f"{name} row={line.strip().partition(':')[0]}", above.strip().removeprefix("# "))
        for above, line in pairwise(lines)
        if above.startswith("  # ")
    ]
    expected = next((line for line in comments if line.startswith("Expect")), "")
    return rows or [(name, f"{comments[0]} {expected}")]
