"""The claims of README and docs/models.md are found where `benchmarks/claims.py` looks, and drift is seen."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("claims", ROOT / "benchmarks" / "claims.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["claims"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def claim(script: ModuleType, **changes: Any) -> Any:
    values = {
        "name": "a",
        "page": "docs/models.md",
        "pattern": r"tuned on at most ([\d,]+) people",
        "compute": lambda: 1,
    }
    return script.Claim(**{**values, **changes})


def test_every_claim_is_found_in_its_page_once(script: ModuleType) -> None:
    found = list(script.claims())
    assert len({one.name for one in found}) == len(found) > 200
    for one in found:
        assert one.stated() > 0


@pytest.mark.parametrize("name", ["parameters m of sdpose_t", "gmacs of leanpose-body-t", "file of leanpose-body-t"])
def test_cheap_claims_hold(script: ModuleType, name: str) -> None:
    (one,) = (one for one in script.claims() if one.name == name)
    assert script.check(iter([one])) == 0


def test_drift_is_counted_and_named(script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = r"\| `leanpose-body-t` \| .* \| ([\d.]+) \| \[results"
    found = [
        claim(script, name="right", pattern=file, compute=lambda: 1.62, tolerance=0.05),
        claim(script, name="wrong", pattern=file, compute=lambda: 1.5, tolerance=0.05),
        claim(script, name="reworded", pattern="no such ([0-9]) sentence"),
        claim(script, name="missing", needs=tmp_path / "data"),
    ]
    assert script.check(iter(found)) == 2
    printed = capsys.readouterr().out
    assert "holds    right: 1.6 (1.62), docs/models.md" in printed
    assert "DRIFT    wrong: docs/models.md says 1.6, computed 1.5" in printed
    assert "DRIFT    reworded: docs/models.md has 0 figures at" in printed
    assert "skipped  missing" in printed
    assert "1 claims hold, 2 have drifted, 1 were skipped." in printed


def test_times_are_compared_by_order(script: ModuleType) -> None:
    one = claim(script, factor=2.0)
    assert [one.holds(5.0, minutes) for minutes in (2.4, 2.5, 5, 10, 11)] == [False, True, True, True, False]
    assert claim(script, tolerance=0.05).holds(1.6, 1.65)
    assert not claim(script, tolerance=0.05).holds(1.6, 1.66)
