"""The pages of the papers' tables: every row's recipe, network, golden file, cost and result is what the page says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanpose.models.cost import model_cost
from leanpose.models.registry import configure_model, model_table
from leanpose.training.recipe import read_recipe

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "papers"
PAGES = sorted(FOLDER.glob("tables_*.md"))
NETWORKS = ["model", "with", "golden file", "M", "GMACs"]
# The skeletons of the models that are not for COCO's 17 keypoints.
OWN = {f"dwpose_{size}": "coco_wholebody133" for size in "tsml"}
TESTS = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))


@dataclass(frozen=True)
class Network:
    """A line of a page's table of networks; `key` tells it from others, `options` are those of `create_model`."""

    key: tuple[str, Any, str]
    options: dict[str, Any]
    golden: str
    parameters: str
    gmacs: str

    @property
    def model(self) -> str:
        return self.key[0]

    @property
    def skeleton(self) -> str:
        return self.key[2]

    def counted(self, parameters: int, macs: int, attention_macs: int) -> bool:
        # TransPose's paper counts the products of attention, the others do not.
        macs += attention_macs if self.model.startswith("transpose") else 0
        return (self.parameters, self.gmacs) == (f"{parameters / 1e6:.2f}", f"{macs / 1e9:.2f}")


def tables(page: Path) -> list[tuple[list[str], list[list[str]]]]:
    """Header and rows of each table of a page."""
    blocks = re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE)
    cells = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]
    return [(lines[0], lines[2:]) for lines in cells]


def rows(page: Path) -> list[dict[str, str]]:
    return [
        dict(zip(header, row, strict=True)) for header, lines in tables(page) for row in lines if header[0] == "row"
    ]


@cache
def networks(page: Path) -> list[Network]:
    (lines,) = (lines for header, lines in tables(page) if header == NETWORKS)
    usual = "coco_wholebody133" if page.stem == "tables_dwpose" else "coco17"
    found = []
    for model, options, golden, *costs in lines:
        values = dict(word.split("=") for word in options.strip("`–").split())
        skeleton = values.pop("skeleton", usual)
        loaded = {key: yaml.safe_load(value) for key, value in values.items()}
        key = (model.strip("`"), configure_model(model.strip("`"), **loaded), skeleton)
        found.append(Network(key, loaded, golden, *costs))
    return found


@cache
def recipe(name: str) -> tuple[tuple[str, Any, str], str]:
    """The network of a recipe (with its row) as the pages name it, and its comments."""
    file, _, row = name.strip("`").partition(" ")
    path = ROOT / "recipes" / f"{file}.yaml"
    values = read_recipe(path, [row] if row else None)
    config = configure_model(values["model"], **(values.get("model_options") or {}))
    return (values["model"], config, values.get("skeleton", "coco17")), "".join(re.findall(r"#.*\n", path.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_row_names_its_recipe_and_what_its_network_costs(page: Path) -> None:
    for row in rows(page):
        if row["here"] == "not built":
            assert (row["model"], row["recipe"]) == ("–", "–")
            continue
        key, comments = recipe(row["recipe"])
        assert row["model"] == f"`{key[0]}`", row
        same = [network for network in networks(page) if network.key == key]
        assert len(same) == 1, f"{row} has {len(same)} networks"
        if "M" in row:
            assert (row["M"].split("/")[1], row["GFLOPs"].split("/")[1]) == (same[0].parameters, same[0].gmacs), row
        (published,) = set(row) - {"row", "model", "recipe", "M", "GFLOPs", "here"}
        if published != "1 … 9 people":  # seconds, which no recipe states
            assert row[published] in comments, f"the recipe does not state {row[published]}: {row}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_networks_are_used_and_cost_what_is_counted(page: Path) -> None:
    for network in networks(page):
        assert any(f"`{network.model}`" == row["model"] for row in rows(page))
        stored = model_table()[network.model]
        if network.key[1] == configure_model(network.model) and network.skeleton == OWN.get(network.model, "coco17"):
            assert network.counted(stored.parameters, stored.macs, stored.attention_macs), network


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_networks_with_options_cost_what_is_counted(page: Path) -> None:
    for network in networks(page):
        pose = {} if "deit" in network.model else {"skeleton": network.skeleton}
        cost = model_cost(network.model, **pose, **network.options)
        assert network.counted(cost.parameters, cost.macs, cost.attention_macs), (network, cost)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_golden_files_exist_and_are_compared(page: Path, shared: Path) -> None:
    for network in networks(page):
        names = re.findall(r"`(\w+)`", network.golden)
        assert names or network.golden.startswith("none;")
        for name in names:
            assert (shared / "golden" / "models" / f"{name}.npz").is_file(), name
            sizes = re.sub(r"(?<=^rtmpose_)[tsmlx]|(?<=^deit_)tiny", "{size}", name)
            assert f'"{name}"' in TESTS or (sizes != name and sizes in TESTS), f"no test compares {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_results_are_on_the_page_that_is_linked(page: Path) -> None:
    links = dict(re.findall(r"^\[(\w+)\]: (\S+)$", page.read_text(), re.MULTILINE))
    for row in rows(page):
        if row["here"] in {"open", "server", "not built"}:
            assert (row["here"] == "server") == ("AP, test-dev" in row and row["recipe"] != "–")
            continue
        match = re.fullmatch(r"\[([^\]]+)\]\[(\w+)\]", row["here"])
        assert match is not None, row
        results = (FOLDER / links[match[2]]).read_text()
        for number in re.findall(r"[\d.]+", match[1]):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", results), row


def test_the_overview_counts_the_rows() -> None:
    ((header, lines), *_) = tables(FOLDER / "README.md")
    assert header[0] == "paper"
    for (title, *counts), page in zip(lines, [*map(page_of, lines[:-1]), None], strict=True):
        pages = PAGES if page is None else [page]
        found = [(row, page) for page in pages for row in rows(page)]
        built = [(row, page) for row, page in found if row["recipe"] != "–"]
        golden = [golden_of(row, page) for row, page in built]
        ends = [row["here"] for row, _ in found]
        exact = sum("`" in name and "(" not in name and not name.startswith("none") for name in golden)
        near = sum("(" in name for name in golden)
        waiting = sum(end in {"open", "server"} for end in ends)
        missing = ends.count("not built")
        expected = [len(found), len(built), f"{exact} + {near}", len(ends) - waiting - missing, waiting, missing]
        assert counts == list(map(str, expected)), title


def page_of(line: list[str]) -> Path:
    return FOLDER / line[0].split("](")[1].rstrip(")")


def golden_of(row: dict[str, str], page: Path) -> str:
    return next(network.golden for network in networks(page) if network.key == recipe(row["recipe"])[0])


def test_every_trap_of_the_data_page_is_a_test() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    rows = re.findall(
        r"^\|[^|]+\|[^|]+\| (\w+) \|$", page.split("## Label file problems")[1].split("\n## ")[0], re.MULTILINE
    )
    assert len(rows) > 50
    assert [name for name in rows if name != "test" and f"def test_{name}(" not in TESTS] == []
