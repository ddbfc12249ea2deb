"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of the tests' own: what a user has measured and exported is neither used nor touched."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["LEANPOSE_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and real data beside the checkout; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("LEANPOSE_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip("the folder of reference data is not here (set LEANPOSE_SHARED)")
    return folder
