"""Files are read whole where they are regular, and never waited for where they are not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from leanpose.data.sets import label_files
from leanpose.errors import LeanposeError
from leanpose.files import (
    dump_yaml,
    files_below,
    load_json,
    load_yaml,
    open_safetensors,
    parse_yaml,
    read_regular,
    require_honest_archive,
)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").symlink_to("/dev/zero")
    for name, kind in (("a.json", "named pipe"), ("b.json", "device")):
        with pytest.raises(LeanposeError, match=f"Cannot read the set .*{name}: it is a {kind}, no regular file"):
            load_json(tmp_path / name, "set")
        with pytest.raises(LeanposeError, match=f"it is a {kind}"):
            load_yaml(tmp_path / name, "recipe")
        with pytest.raises(LeanposeError, match=f"it is a {kind}"), open_safetensors(tmp_path / name):
            pass
        require_honest_archive(tmp_path / name, "archive")  # which is none
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    (tmp_path / "c.json").write_bytes(b"[1, 2]")
    (tmp_path / "link.json").symlink_to("c.json")
    assert load_json(tmp_path / "link.json", "set") == [1, 2]


def test_folders_that_may_not_be_read_are_named(tmp_path: Path, refuse_folders: Callable[[str], None]) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "labels.json").write_text("[]")
    assert files_below(tmp_path) == [tmp_path / "a" / "b" / "labels.json"]
    refuse_folders("b")
    with pytest.raises(LeanposeError, match=r"The folder .*a/b cannot be read: Permission denied\."):
        label_files(tmp_path)


def test_a_size_may_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(2_000_000))
    assert len(read_regular(tmp_path / "a", 2_000_000)) == 2_000_000
    with pytest.raises(OSError, match="it has 2 MB, more than the 1 MB allowed"):
        read_regular(tmp_path / "a", 1_000_000)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("-2E+5", -2e5), ("1.5e-3", 1.5e-3), ("10", 10), ("1e", "1e"), ("'1e3'", "1e3")]
)
def test_numbers_need_no_dot_before_their_exponent(text: str, value: float | str) -> None:
    assert parse_yaml(text) == value
    assert type(parse_yaml(text)) is type(value)


def test_text_that_looks_like_a_number_stays_text() -> None:
    values = {"name": "1e3", "lr": 1e-3, "other": ["2E-4", "on", "1_0"]}
    assert parse_yaml(dump_yaml(values)) == values
