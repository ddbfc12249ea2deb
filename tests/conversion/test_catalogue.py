"""The catalogue of official checkpoints is whole, and names what the library knows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from leanpose.conversion.catalogue import (
    Official,
    fetch_official,
    official_checkpoint,
    official_checkpoints,
    official_with,
)
from leanpose.errors import LeanposeError
from leanpose.models.registry import list_models
from leanpose.skeleton import get_skeleton
from web import serve

KNOWN = official_checkpoints()


@pytest.mark.parametrize("entry", KNOWN.values(), ids=KNOWN)
def test_every_entry_is_whole(entry: Official) -> None:
    assert entry.url.startswith("https://")
    assert re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", entry.sha256)
    if "openmmlab" in entry.url:
        assert f"-{entry.sha256}" in entry.file
    assert entry.training_data
    assert entry.licence
    assert re.match(r"https://github\.com/[\w-]+/[\w-]+/blob/[0-9a-f]{40}/", entry.source)
    if entry.model is None:
        assert (entry.input_size, entry.skeleton, entry.published) == (None, None, {})
        return
    assert entry.model in list_models()
    assert entry.input_size is not None
    assert "{}x{}".format(*entry.input_size) in entry.name or entry.name == "dw-ll_ucoco_384"
    assert entry.skeleton is not None
    assert get_skeleton(entry.skeleton).name == entry.skeleton
    assert all(0 < figure < 100 for figure in entry.published.values())


def test_no_file_is_listed_twice() -> None:
    assert len({entry.sha256[:8] for entry in KNOWN.values()}) == len(KNOWN)
    assert len({entry.url for entry in KNOWN.values()}) == len(KNOWN)


def test_a_checksum_finds_its_entry() -> None:
    entry = KNOWN["dw-ll_ucoco_384"]
    assert official_with(entry.sha256) == entry
    assert official_with(KNOWN["hrnet-w32-coco-256x192"].sha256 + 56 * "0") == KNOWN["hrnet-w32-coco-256x192"]
    assert official_with(hashlib.sha256(b"mine").hexdigest()) is None


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(LeanposeError, match="did you mean 'hrnet-w32-coco-256x192'"):
        official_checkpoint("hrnet-w32-coco-256x19")
    with pytest.raises(LeanposeError, match="neither a file nor an official checkpoint; `leanpose convert --list`"):
        official_checkpoint("something")


CONTENT = b"weights" * 100


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Official]:
    """An entry whose file lies on a server of this machine."""
    monkeypatch.setenv("LEANPOSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "weights.pth").write_bytes(CONTENT)
    with serve(tmp_path) as address:
        digest = hashlib.sha256(CONTENT).hexdigest()
        yield replace(KNOWN["dw-ll_ucoco_384"], url=f"{address}/weights.pth", sha256=digest[:8])


def test_downloads_lie_in_the_cache_folder_and_are_not_fetched_twice(entry: Official, tmp_path: Path) -> None:
    path = fetch_official(entry)
    assert path == tmp_path / "cache" / "official" / "weights.pth"
    assert path.read_bytes() == CONTENT
    (tmp_path / "weights.pth").unlink()
    assert fetch_official(entry) == path
    path.write_bytes(b"corrupt")
    with pytest.raises(LeanposeError, match="Cannot download"):
        fetch_official(entry)


def test_a_wrong_file_is_not_kept(entry: Official, tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match=r"Cannot download .*SHA-256 differs"):
        fetch_official(replace(entry, sha256="0" * 8))
    assert not list((tmp_path / "cache" / "official").iterdir())
