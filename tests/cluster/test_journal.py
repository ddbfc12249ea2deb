"""What counts as done after a kill at any byte, and after damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leanpose.cluster.journal import Journal
from leanpose.errors import LeanposeError

SETTINGS = {"teacher": "a", "keypoint_threshold": 0.5}


def write(folder: Path, parts: int, settings: dict[str, Any] = SETTINGS) -> Journal:
    journal = Journal(folder, settings)
    for number in reversed(range(parts)):
        journal.add(number, b"part %d" % number, {"people": number})
    return journal


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _line_ends(text: bytes) -> list[int]:
    return [at for at, value in enumerate(text, start=1) if value == ord("\n")]


def test_a_kill_at_any_byte_loses_no_part_and_makes_none_twice(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", 3)
    text = whole.path.read_bytes()
    whole.finish({"people": 3})
    folder = tmp_path / "cut"
    for end in sorted({*range(0, len(text), 31), *(at + more for at in _line_ends(text) for more in (-1, 0))}):
        write(folder, 3).path.write_bytes(text[:end])
        (folder / "parts" / ".part-000000.abcdefgh.partial.parquet").touch()
        journal = Journal(folder, SETTINGS)
        assert len(journal.done) == max(0, text[:end].count(b"\n") - 1)
        assert journal.complete is None
        journal = write(folder, 3)
        journal.finish({"people": 3})
        assert Journal(folder, SETTINGS).complete == {"people": 3}
    assert Journal(tmp_path / "whole", SETTINGS).done == Journal(folder, SETTINGS).done
    assert files(folder) == files(tmp_path / "whole"), "the order in which parts come does not matter"


def test_a_part_that_is_there_stays(tmp_path: Path) -> None:
    journal = write(tmp_path, 1)
    before = files(tmp_path)
    journal.add(0, b"another", {"people": 9})
    assert files(tmp_path) == before


@pytest.mark.parametrize("what", ["part", "missing", "line"])
def test_damage_is_made_again_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str) -> None:
    journal = write(tmp_path, 3)
    journal.finish({})
    if what == "part":
        journal.part_path(1).write_bytes(b"part 7")
    elif what == "missing":
        journal.part_path(1).unlink()
    else:
        journal.path.write_bytes(journal.path.read_bytes().replace(b'"part": 1', b'"part": 5'))
    again = Journal(tmp_path, SETTINGS)
    assert (sorted(again.done), again.complete) == ([0, 2], None)
    assert "made again" in caplog.text


def test_other_settings_are_refused(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(LeanposeError, match=r"keypoint_threshold 0\.5, now 0\.3.*another --out"):
        Journal(tmp_path, {"teacher": "a", "keypoint_threshold": 0.3})
    (tmp_path / "manifest.jsonl").write_bytes(b"something else\n")
    with pytest.raises(LeanposeError, match="first line"):
        Journal(tmp_path, SETTINGS)
