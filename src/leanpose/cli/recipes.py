"""`leanpose recipes`: what comes with leanpose to be trained."""

from __future__ import annotations

from typing import Annotated

import typer


def recipes(
    pattern: Annotated[str, typer.Argument(help="Only names that fit, such as 'sdpose/*'.")] = "*",
) -> None:
    """List the recipes: a row of a paper's table each, with the command that trains it and the expected result."""
    from fnmatch import fnmatch

    import yaml

    from leanpose.errors import LeanposeError
    from leanpose.training.recipe import recipes_folder

    shown = 0
    for file in sorted(recipes_folder().glob("*/*.yaml")):
        name, text = f"{file.parent.name}/{file.stem}", file.read_text()
        comments = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
        expected = next((line for line in comments if line.startswith("Expect")), "")
        rows = yaml.safe_load(text).get("rows") or {None: None}
        for row in rows:
            command = name if row is None else f"{name} row={row}"
            if fnmatch(command, pattern) or fnmatch(name, pattern):
                print(f"leanpose train {command}\n    {comments[0]} {expected}")
                shown += 1
    if not shown:
        raise LeanposeError(f"No recipe fits '{pattern}'; `leanpose recipes` lists all.")
