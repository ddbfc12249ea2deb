"""What `leanpose train` says at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from leanpose.cli.train import report
from leanpose.training.loop import RunSummary


def test_a_figure_without_anybody_to_measure_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    report(RunSummary(Path("run"), {"AP": 0.5, "AP (L)": -1.0}, 0.5, 3, 1.0, {}))
    assert "Last:  AP 50.0  AP (L) –\n" in capsys.readouterr().out
