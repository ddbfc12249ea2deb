"""The site's settings name every page once, and its reference names every command, option, key and public name."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import leanpose
from leanpose import codecs, losses
from leanpose.cli import COMMANDS
from leanpose.losses import METHODS
from leanpose.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TOP_PAGES = {"index.md", "contributing.md", "changelog.md"}


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text())


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The script that writes the reference; `docs` is not a package."""
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(reference: ModuleType) -> dict[str, str]:
    return reference.pages()


def places(entry: object) -> Iterator[str]:
    """The pages below an entry of the navigation."""
    if isinstance(entry, str):
        yield entry
    for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from places(inner)


def test_the_navigation_names_every_page_once(settings: dict[str, Any], pages: dict[str, str]) -> None:
    written = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    notebooks = {f"notebooks/{path.stem}.md" for path in DOCS.glob("notebooks/*.ipynb")}
    assert sorted(places(settings["nav"])) == sorted(written | notebooks | TOP_PAGES | pages.keys())
    assert [name for part in settings["nav"] for name in part][1:] == [
        "Tutorials", "How-to", "Reference", "Explanation",
    ]  # fmt: skip


def test_the_site_is_named_as_the_package(settings: dict[str, Any]) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for line in (
        f'name = "{settings["site_name"]}"',
        f'description = "{settings["site_description"]}"',
        f'Documentation = "{settings["extra"]["source"]}"',
    ):
        assert line in project


def test_every_command_and_option_is_in_the_reference(pages: dict[str, str]) -> None:
    page = pages["reference/cli.md"]
    for name in COMMANDS:
        assert f"\n## leanpose {name}\n" in page
    assert "\n## leanpose data check\n" in page
    assert "| `--split` | `all, train or val` | `all` | val (every tenth image), train (the others) or all. |" in page
    assert (
        "| `--baseline`, `--no-baseline` |  | `True` | Also train the student without the teacher, to measure the gain. |"
        in page
    )
    assert "| `INPUTS` | `list[text]` | required |" in page


def test_every_key_of_a_recipe_is_in_the_reference(pages: dict[str, str], reference: ModuleType) -> None:
    page = pages["reference/recipe.md"]
    for key in Recipe.model_fields:
        assert f"\n| `{key}` | " in page or key == "distillation"
    for method, loss in METHODS.items():
        section = page.partition(f"\n### method: {method}\n")[2].partition("\n### ")[0]
        for key in loss.section_type.model_fields:
            assert f"\n| `distillation.{key}` | " in section
    row = "| `schedule.min_lr_ratio` | `float` | `0.0` | Final learning rate of `cosine` and `flat_cosine`, as a "
    assert row + "fraction of the initial one. (at least 0, at most 1) |" in page
    assert "| `data.train.0.format` | `text` | required | `auto` detects it" in page
    assert reference.attribute_docs(Recipe)["skeleton"].startswith("A skeleton name or a YAML file")


def test_every_public_name_is_in_the_reference(pages: dict[str, str]) -> None:
    everything = "\n".join(text for page, text in pages.items() if "/api/" in page)
    for name in {*leanpose.__all__, *leanpose.weights.__all__, *losses.__all__, *codecs.__all__}:
        assert re.search(rf"^::: leanpose\..*\.{name}$", everything, re.MULTILINE) or name in ("__version__", "weights")
    shown = re.findall(r"^::: (.+)$", everything, re.MULTILINE)
    assert len(shown) == len(set(shown))
    for place in shown:
        module, _, name = place.rpartition(".")
        assert hasattr(importlib.import_module(module), name)


def test_texts_in_tables_are_no_markup(reference: ModuleType) -> None:
    assert reference.cell("a*b_c [1|2] <x>\n  `d*|e`") == r"a\*b\_c \[1\|2\] &lt;x&gt; `d*\|e`"


def test_the_citation_and_the_changelog_name_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == leanpose.__version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    releases = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[:2] == ["Unreleased", leanpose.__version__]


def test_locks_of_the_site_and_the_build_are_exact() -> None:
    for file in (DOCS / "requirements.txt", ROOT / "requirements-build.txt"):
        for line in file.read_text().splitlines():
            assert re.fullmatch(r"[\w-]+==[\w.]+( ; .+)?", line), line


@pytest.mark.slow
@pytest.mark.network
def test_the_site_builds_without_a_warning() -> None:
    """With what `make docs` installs, which comes from the network where it is not there yet."""
    made = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "WARNING" not in made.stderr
    site = ROOT / "site"
    for page in ("index", "quickstart", "notebooks/distil", "reference/cli", "papers/index"):
        assert (site / f"{page}.html").is_file()
    assert 'href="https://github.com/leanpose/leanpose/blob/main/LICENSE"' in (site / "index.html").read_text()
