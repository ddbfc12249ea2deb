"""MATLAB files are read as SciPy reads them, and corrupt ones end in a sentence, where SciPy can crash."""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from data_builders import mpii_person, write_mpii_mat
from leanpose.data.lsp import load_lsp
from leanpose.data.matlab import load_matlab, matlab_names
from leanpose.data.mpii import load_mpii
from leanpose.errors import LeanposeError

CELLS = np.empty((1, 3), object)
CELLS[0] = [np.arange(3.0), "text", np.zeros((0, 0))]
CONTENT: dict[str, Any] = {
    "joints": np.arange(3 * 14 * 5, dtype=np.float64).reshape(3, 14, 5),
    "small": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "single": np.array([[0.5, 1.5]], np.float32),
    "large": np.array([[2**40, -3]], np.int64),
    "yes": np.array([[True, False]]),
    "one": 7.25,
    "name": "im0001.jpg",
    "umlaut": "Bärbel",
    "rows": np.array(["ab", "cd"]),
    "empty": np.zeros((0, 0)),
    "cells": CELLS,
    "person": {"x": 1.0, "deep": {"name": "a"}, "list": np.arange(4.0)},
}


def write(path: Path, packed: bool = True, **content: Any) -> Path:
    savemat(path, content or CONTENT, do_compression=packed)
    return path


@pytest.mark.parametrize("packed", [True, False])
def test_everything_is_as_scipy_reads_it(tmp_path: Path, packed: bool) -> None:
    path = write(tmp_path / "a.mat", packed)
    read, expected = load_matlab(path), loadmat(path, chars_as_strings=True)
    assert matlab_names(path) == list(CONTENT) == list(read)
    for name in ("joints", "small", "single", "large", "yes", "empty"):
        np.testing.assert_array_equal(read[name], expected[name])
    assert (read["one"], read["name"], read["umlaut"], read["rows"]) == (7.25, "im0001.jpg", "Bärbel", ["ab", "cd"])
    numbers, text, nothing = read["cells"]
    assert (np.ravel(numbers).tolist(), text, nothing.size) == ([0, 1, 2], "text", 0)
    (person,) = read["person"]
    assert person["x"] == 1
    assert person["deep"] == [{"name": "a"}]
    np.testing.assert_array_equal(np.ravel(person["list"]), np.arange(4))


def test_the_real_joints(shared: Path) -> None:
    path = shared / "data" / "lsp" / "joints.mat"
    np.testing.assert_array_equal(load_matlab(path)["joints"], loadmat(path)["joints"])


def test_files_of_the_other_byte_order(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3)
    matrix = (
        struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 2, 3) + struct.pack(">HH4s", 1, 1, b"x\0\0\0")
    )
    matrix += struct.pack(">II", 9, 48) + values.astype(">f8").tobytes(order="F")
    header = b"MATLAB 5.0".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    (tmp_path / "a.mat").write_bytes(header + struct.pack(">II", 14, len(matrix)) + matrix)
    np.testing.assert_array_equal(load_matlab(tmp_path / "a.mat")["x"], values)


@pytest.mark.parametrize("packed", [True, False])
def test_damage_ends_in_a_sentence(tmp_path: Path, packed: bool) -> None:
    whole = bytearray(write(tmp_path / "a.mat", packed).read_bytes())
    mpii = write_mpii_mat(tmp_path / "m", [[mpii_person()], [mpii_person()]])
    rng = np.random.default_rng(0)
    for content, path, load in ((whole, tmp_path / "a.mat", load_matlab), (mpii.read_bytes(), mpii, load_mpii)):
        for trial in range(80):
            changed = bytearray(content)
            for _ in range(1 + trial % 5):
                changed[int(rng.integers(124, len(changed)))] = int(rng.choice([0, 1, 5, 14, 127, 255]))
            path.write_bytes(changed[: len(changed) - (trial % 3) * int(rng.integers(200))])
            for read in (load, matlab_names, load_lsp):
                with suppress(LeanposeError):
                    read(path)


def packed_variable(plain: bytes, declared: int) -> bytes:
    content = zlib.compress(struct.pack("<II", 14, declared) + plain)
    return b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + struct.pack("<II", 15, len(content)) + content


def numbers_of(count: int, sides: tuple[int, ...]) -> bytes:
    matrix = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack(f"<II{len(sides)}i", 5, 4 * len(sides), *sides)
    matrix += struct.pack("<HH4s", 1, 1, b"x\0\0\0")
    return matrix + struct.pack("<II", 9, 8 * count) + bytes(8 * count)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (packed_variable(bytes(100_000_000), 2_000_000_000), "declares 2000000000 bytes"),
        (
            packed_variable(numbers_of(2, (60_000, 60_000)), len(numbers_of(2, (60_000, 60_000)))),
            "3600000000 numbers are",
        ),
        (b"MATLAB 7.3 MAT-file".ljust(200), r"of version 7\.3, save it with -v7"),
        (b"\0" * 200, "no header of version 5"),
        (b"", "no header of version 5"),
    ],
)
def test_what_declares_more_than_it_holds_is_not_made(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(LeanposeError, match=words):
        load_matlab(tmp_path / "a.mat")


def test_matrices_in_matrices_without_end(tmp_path: Path) -> None:
    value: Any = 1.0
    for _ in range(60):
        cell = np.empty((1, 1), object)
        cell[0, 0] = value
        value = cell
    with pytest.raises(LeanposeError, match="too deep"):
        load_matlab(write(tmp_path / "a.mat", joints=value))


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mat")
    with pytest.raises(LeanposeError, match="it is a named pipe"):
        matlab_names(tmp_path / "a.mat")
