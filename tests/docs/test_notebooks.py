"""The notebooks run from top to bottom, and are kept as they are read: without outputs, in nbformat 4."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from leanpose import PoseResult

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
QUICK = {"PEOPLE": 8, "EPOCHS": 1}
"""Values of the cells tagged `parameters`, instead of the reader's."""


def cells(notebook: Path) -> list[dict[str, Any]]:
    return json.loads(notebook.read_text())["cells"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("quick_exports")
def test_cells_run(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session: dict[str, Any] = {"__name__": "notebook"}
    for cell in cells(notebook):
        if cell["cell_type"] == "code":
            place = f"{notebook.name}, cell {cell['id']}"
            exec(compile("".join(cell["source"]), place, "exec", dont_inherit=True), session)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert session.keys() >= QUICK.keys()
            session |= QUICK
    assert isinstance(session["poses"], PoseResult)
    assert len(session["poses"]) > 0 or notebook.stem == "own-keypoints"  # nothing is learned in one step


def test_all_three_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["distil", "own-keypoints", "predict"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_valid_and_hold_no_outputs(notebook: Path) -> None:
    content = json.loads(notebook.read_text())
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    found = content["cells"]
    assert len({cell["id"] for cell in found}) == len(found)
    for cell in found:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
        assert all(isinstance(line, str) and len(line.rstrip("\n")) <= 120 for line in cell["source"])
        extra = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert cell.keys() == {"cell_type", "id", "metadata", "source"} | extra
        if extra:
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
