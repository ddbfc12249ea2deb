"""Every command in the documentation and in the recipes' comments exists with its options, whether it is run or not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from leanpose.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
SHELL = {"|", ">", "&&", ";", "&"}


def commands(file: Path) -> Iterator[list[str]]:
    """The words after `leanpose` of each command line: in fenced blocks of a page, in comments of a recipe."""
    text = file.read_text()
    if file.suffix == ".md":
        text = "".join(re.findall(r"^```(?:bash|text)\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        found = re.findall(r"^\s*(?:\w+=\S+ )*leanpose (.*)$", text.replace("\\\n", " "), re.MULTILINE)
    else:
        found = re.findall(r"^#.*?\bleanpose ([a-z].*)$", text, re.MULTILINE)
    for line in found:
        # A page abbreviates the options of the command above it.
        words = shlex.split(line.replace("(the same)", ""), comments=True)
        yield words[: next((place for place, word in enumerate(words) if word in SHELL), len(words))]


def parse(words: list[str]) -> None:
    """Read the options of a command without running it."""
    command = get_command(app)
    context = command.make_context("leanpose", list(words))
    while isinstance(command, TyperGroup):
        name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert inner is not None
        command, context = inner, inner.make_context(name, rest, parent=context)


@pytest.mark.parametrize("file", [f for f in [*PAGES, *RECIPES] if any(commands(f))], ids=lambda file: file.stem)
def test_commands_exist_with_their_options(file: Path) -> None:
    for words in commands(file):
        try:
            parse(words)
        except SystemExit:  # --help and --version
            continue
        except Exception as error:
            raise AssertionError(f"leanpose {' '.join(words)}: {error}") from error


def test_wrong_commands_are_noticed() -> None:
    for words in (["pridict", "photo.jpg"], ["predict", "photo.jpg", "--modl", "x"]):
        with pytest.raises(Exception, match=r"No such (command|option)"):
            parse(words)
