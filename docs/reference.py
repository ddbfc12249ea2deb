"""Writes the site's reference pages from the code: every command and option, every key of a recipe, the public names.

`make docs` runs it with the package's own Python; it prints a JSON object of Markdown texts by their place in the site.
The text of the public names is read by mkdocstrings, which imports nothing.
"""

from __future__ import annotations

import ast
import html
import importlib
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

import leanpose
from leanpose import codecs, losses
from leanpose.classification.recipe import ClassificationRecipe
from leanpose.cli import app
from leanpose.losses import METHODS
from leanpose.models import backbones, base, registry
from leanpose.training.recipe import Recipe

PUBLIC = {
    "leanpose": ("leanpose", [name for name in leanpose.__all__ if not name.startswith("_")]),
    "weights": ("leanpose.weights", leanpose.weights.__all__),
    "models": ("leanpose.models", ["PoseModel", "PoseOutput", "register_model", "model_entry", "model_table"]),
    "backbones": ("leanpose.models.backbones", backbones.__all__),
    "losses": ("leanpose.losses", losses.__all__),
    "codecs": ("leanpose.codecs", codecs.__all__),
}
"""The pages of the public names: by file the module, and its names."""


def cell(text: str) -> str:
    """A text as one cell of a table: nothing in it but code is markup."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    plain = [
        part if part.startswith("`") else re.sub(r"([*_\[\]])", r"\\\1", html.escape(part, quote=False))
        for part in parts
    ]
    return "".join(plain).replace("|", "\\|")


def code(text: str) -> str:
    """A text as code in a cell of a table."""
    return f"`{text}`"


def one_of(values: Iterable[object]) -> str:
    """Values of which one is chosen; a bar would end the cell."""
    first, *others = map(str, values)
    return ", ".join([first, *others[:-1]]) + (f" or {others[-1]}" if others else "")


def type_name(kind: Any) -> str:
    """A type as a reader of a recipe or a command writes its values."""
    if kind is type(None):
        return "null"
    if get_origin(kind) is Literal:
        return one_of(get_args(kind))
    if isinstance(kind, type) and not get_args(kind):
        return {"str": "text", "Path": "path", "bool": "true or false", "Any": "any"}.get(kind.__name__, kind.__name__)
    if get_args(kind):
        origin = get_origin(kind)
        if origin in (list, tuple, dict):
            parts = [type_name(part) for part in get_args(kind) if part is not Ellipsis]
            return f"{origin.__name__}[{', '.join(parts)}]"
        if getattr(kind, "__metadata__", None):
            return type_name(get_args(kind)[0])
        return one_of(type_name(part) for part in get_args(kind))
    return "any"


# Commands


def cli_page() -> str:
    """Every command with its arguments, options and defaults."""
    program: Any = get_command(app)
    lines = ["# Command line", "", cell(program.help), "", f"{cell(program.epilog)}", ""]
    lines += ["## Before a command", "", *parameter_table(program), ""]
    for name, command in program.commands.items():
        lines += command_section(f"leanpose {name}", command)
    return "\n".join(lines) + "\n"


def command_section(name: str, command: Any) -> Iterator[str]:
    """The section of a command, or those of a group of commands."""
    for below, inner in getattr(command, "commands", {}).items():
        yield from command_section(f"{name} {below}", inner)
    if hasattr(command, "commands"):
        return
    arguments = [parameter for parameter in command.params if not parameter.opts[0].startswith("-")]
    words = [f"{one.name.upper()}{'…' if one.nargs != 1 else ''}" for one in arguments]
    usage = [word if one.required else f"[{word}]" for one, word in zip(arguments, words, strict=True)]
    yield from [f"## {name}", "", "```text", " ".join([name, *usage, "[OPTIONS]"]), "```", ""]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield from [cell(paragraph), ""]
    yield from [*parameter_table(command), ""]


def parameter_table(command: Any) -> Iterator[str]:
    """A row for each argument and option."""
    yield from ["| argument or option | value | default | meaning |", "| --- | --- | --- | --- |"]
    for one in command.params:
        if one.hidden or one.name == "help":
            continue
        if one.opts[0].startswith("-"):
            name = ", ".join(code(word) for word in [*one.opts, *one.secondary_opts])
        else:
            name = code(one.name.upper())
        kind = "" if getattr(one, "is_flag", False) else code(type_name(one.type_descriptor.annotation))
        default = (
            "required"
            if one.required
            else ""
            if one.default is None or one.default is False
            else code(str(one.default))
        )
        yield f"| {name} | {kind} | {default} | {cell(one.help or '')} |"


# Recipes


def recipe_page() -> str:
    """Every key of a recipe, section by section, with type, default and meaning."""
    lines = [
        "# Recipe keys", "",
        "A recipe is one YAML file, checked before the first step. A dotted key names one value on the command line:",
        "`leanpose train RECIPE schedule.epochs=20`. How one is written: [quickstart](../quickstart.md#train).", "",
    ]  # fmt: skip
    lines += section_tables(Recipe, "", skip={"distillation"})
    lines += ["## distillation", "", "`distillation.method` decides which other keys there are.", ""]
    for method, loss in METHODS.items():
        lines += [f"### method: {method}", "", cell(description(loss.section_type)), ""]
        lines += key_table(loss.section_type, "distillation.")
    inner = {name for name in ClassificationRecipe.model_fields if name in Recipe.model_fields and name != "data"}
    lines += ["## Classifiers", "", "A recipe whose model is a classifier has the keys above, but for these.", ""]
    lines += section_tables(ClassificationRecipe, "", skip=inner, level=3)
    return "\n".join(lines) + "\n"


def section_tables(section: type[BaseModel], prefix: str, *, skip: set[str] = frozenset(), level: int = 2) -> list[str]:
    """The table of a section's own keys, then those of the sections below it."""
    title = prefix.removesuffix(".") or ("Top level" if level == 2 else "Their top level")
    lines = [f"{'#' * level} {title}", "", cell(description(section)), ""]
    lines += key_table(section, prefix, skip)
    for name, field in section.model_fields.items():
        below = section_of(field.annotation)
        if below is not None and name not in skip:
            number = "0." if "list" in str(field.annotation) else ""
            if (name, below.__name__) != ("val", "DatasetConfig"):  # the keys of data.train, said there
                lines += section_tables(below, f"{prefix}{name}.{number}", level=level)
    return lines


def description(section: type[BaseModel]) -> str:
    """What the code says of a section, without its list of keys; nothing where it says nothing of its own."""
    return inspect.cleandoc(vars(section)["__doc__"] or "").split("\nAttributes:")[0]


def section_of(kind: Any) -> type[BaseModel] | None:
    """The section that a key holds, alone, in a list or beside null."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next((found for part in get_args(kind) if (found := section_of(part)) is not None), None)


def key_table(section: type[BaseModel], prefix: str, skip: set[str] = frozenset()) -> list[str]:
    """A row for each key of a section that is no section itself."""
    meanings, rows = attribute_docs(section), []
    for name, field in section.model_fields.items():
        if name in skip:
            continue
        below = section_of(field.annotation)
        kind = code(type_name(field.annotation)) if below is None else "a section"
        said = "" if below is None else description(below).split("\n\n")[0]
        limits = [limit for one in field.metadata if (limit := bound(one))]
        meaning = cell(" ".join([meanings.get(name, said), f"({', '.join(limits)})" if limits else ""]))
        rows.append(f"| {code(prefix + name)} | {kind} | {default_of(field, below)} | {meaning} |")
    return ["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows, ""] if rows else []


def bound(limit: Any) -> str:
    """A limit of a number in words, or nothing."""
    signs = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most", "min_length": "length at least"}
    return " ".join(f"{word} {getattr(limit, sign)}" for sign, word in signs.items() if hasattr(limit, sign))


def default_of(field: FieldInfo, below: type[BaseModel] | None) -> str:
    """The default of a key as YAML would write it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or (below is not None and value in ([], {})):
        return ""
    return code(json.dumps(value, default=str))


def attribute_docs(section: type[BaseModel]) -> dict[str, str]:
    """What the code says of each key: the string below it, or its entry under `Attributes:` of the class."""
    found: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if not issubclass(kind, BaseModel) or kind is BaseModel:
            continue
        listed = (kind.__doc__ or "").partition("Attributes:\n")[2]
        for entry in re.split(r"\n(?=\S)", textwrap.dedent(listed)):
            names, _, text = entry.partition(":")
            found |= {name.strip(): text.strip() for name in names.split(",") if name.strip()}
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(body, ast.ClassDef)
        for key, after in pairwise(body.body):
            if isinstance(key, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[ast.unparse(key.target)] = str(after.value.value)
    return found


# Public names


def api_page(module: str, names: list[str], said: set[str]) -> str:
    """A page that mkdocstrings fills in: the module's public names, each by the place where it is written.

    Args:
        said: the places of what pages before it show, which it links to; gets those of this page.
    """
    home = importlib.import_module(module)
    lines = [f"# {module}", "", inspect.getdoc(home) or "", ""]
    for name in names:
        value = next(getattr(part, name) for part in (home, base, registry) if hasattr(part, name))
        if inspect.ismodule(value):
            continue
        place = f"{place_of(value, name, module)}.{name}"
        lines += [f"See also [`{name}`][{place}]." if place in said else f"::: {place}", ""]
        said.add(place)
    return "\n".join(lines)


def place_of(value: Any, name: str, module: str) -> str:
    """The module in which a class or function is written; of other things the one in the package that assigns it."""
    if hasattr(value, "__module__") and hasattr(value, "__qualname__"):  # a cached function is no function
        return value.__module__
    for file in sorted(Path(str(importlib.import_module(module).__file__)).parent.glob("*.py")):
        if re.search(rf"^{name}\b.*=", file.read_text(), re.MULTILINE):
            return module if file.stem == "__init__" else f"{module}.{file.stem}"
    raise LookupError(f"{module}.{name} is written nowhere")


def pages() -> dict[str, str]:
    """Every generated page by its place in the site."""
    said: set[str] = set()
    api = {f"reference/api/{page}.md": api_page(module, list(names), said) for page, (module, names) in PUBLIC.items()}
    return {"reference/cli.md": cli_page(), "reference/recipe.md": recipe_page(), **api}


if __name__ == "__main__":
    json.dump(pages(), sys.stdout)
