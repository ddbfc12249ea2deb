"""A hub of this machine, instead of huggingface.co."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from hub_server import WRITER, StandInHub, serve_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandInHub]:
    """An empty hub on which this account may write, and an empty cache."""
    with serve_hub() as standing:
        # The client has read its environment when it was imported.
        monkeypatch.setattr(constants, "ENDPOINT", standing.endpoint)
        files = standing.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own, behind the same API
        monkeypatch.setattr(
            "huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None)
        )  # between five tries
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield standing
