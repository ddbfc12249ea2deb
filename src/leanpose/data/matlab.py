"""MATLAB files of version 5 to 7.2, read without trusting what they declare: SciPy's reader crashes on corrupt ones.

A file is a header of 128 bytes and one element a variable: its kind and size in bytes, then the content, which zlib may
have packed. A matrix is again made of elements: flags with its class, its sides, its name, its values. Structs and
cells hold matrices ("MAT-File Format", The MathWorks, 2015).
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from leanpose.files import MODEST, open_regular, read_errors

NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""NumPy's codes of the kinds of elements that hold numbers."""
_SCALARS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_SIZES = {kind: int(code[1]) for kind, code in NUMBERS.items()}
_CHARACTERS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _PACKED = 14, 15
_CELL, _STRUCT, _OBJECT, _CHAR, _DOUBLE, _LAST_NUMBER = 1, 2, 3, 4, 6, 15  # classes of matrices
_HEADER = 128
_GROWTH = 32  # times a packed variable may grow; MPII's grows 13 times
_DEEPEST = 32  # matrices in matrices
_START = 1024  # bytes of a variable that its name lies in


def load_matlab(path: Path) -> dict[str, Any]:
    """The variables of a MATLAB file by name.

    Numbers come as arrays of their sides, a single one as itself; text as `str`, several rows of it as a list; structs
    as a list of dictionaries, also a single one; cells as a list; whatever else there is as None.

    Raises:
        LeanposeError: the file is missing, truncated, corrupt, or of version 4 or 7.3.
    """
    with _reading(path), open_regular(path) as file:
        variables = {}
        for order, kind, size in _elements(file):
            content = file.read(size)
            if kind == _PACKED:
                kind, content = _unpacked(content, order, MODEST + _GROWTH * size)
            if kind == _MATRIX:
                name, value = _Reader(content, order).matrix(0, len(content))
                variables[name] = value
        return variables


def matlab_names(path: Path) -> list[str]:
    """The names of a MATLAB file's variables, without reading these.

    Raises:
        LeanposeError: as `load_matlab`.
    """
    with _reading(path), open_regular(path) as file:
        names = []
        for order, kind, size in _elements(file):
            content = file.read(min(size, _START))
            if kind == _PACKED:
                kind, content = _unpacked(content, order, _START, whole=False)
            if kind == _MATRIX:
                names.append(_Reader(content, order).heading(0, len(content))[1])
        return names


def _reading(path: Path) -> Any:
    damage = (ValueError, OverflowError, struct.error, zlib.error, UnicodeDecodeError)
    return read_errors("annotation file", path, *damage, kind="truncated or not a MATLAB file")


def _elements(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """The byte order, the kind and the size of each variable; the file stands at its content then."""
    header = file.read(_HEADER)
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128], "")
    if header.startswith(b"MATLAB 7.3"):
        raise ValueError("it is of version 7.3, save it with -v7")
    if len(header) < _HEADER or not order:
        raise ValueError("it has no header of version 5 to 7.2")
    end = os.fstat(file.fileno()).st_size
    at = _HEADER
    while at < end:
        kind, size = struct.unpack(f"{order}II", file.read(8))
        if at + 8 + size > end:
            raise ValueError(f"a variable declares {size} bytes, {end - at - 8} are there")
        yield order, kind, size
        at += 8 + size
        file.seek(at)


def _unpacked(content: bytes, order: str, most: int, *, whole: bool = True) -> tuple[int, bytes]:
    """The kind and the content of a packed element, of which no more than `most` bytes are taken."""
    packed = zlib.decompressobj()
    plain = packed.decompress(content, most + 8)
    kind, size = struct.unpack_from(f"{order}II", plain)
    if whole and len(plain) - 8 < size:
        raise ValueError(f"a packed variable declares {size} bytes, {len(plain) - 8} are there or allowed")
    return kind, plain[8 : 8 + size]


class _Reader:
    """Reads the matrices of one variable."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data, self.order = data, order
        self._pair = struct.Struct(f"{order}II")
        self._scalars = {kind: struct.Struct(order + code) for kind, code in _SCALARS.items()}

    def element(self, at: int, end: int) -> tuple[int, int, int, int]:
        """The element at a position: its type, the start of its content, its size, and the start of the next
        element."""
        if at + 8 > end:
            raise ValueError("an element is truncated")
        kind, size = self._pair.unpack_from(self.data, at)
        if kind >> 16:  # a small one: kind and size share four bytes, the content is in the other four
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start = at + 8
            after = min(start + size + -size % 8, end)
        if start + size > end or (start == at + 4 and size > 4):
            raise ValueError(f"an element declares {size} bytes, {end - start} are there")
        return kind, start, size, after

    def heading(self, at: int, end: int) -> tuple[int, str, tuple[int, ...], int]:
        """The class, name and sides of a matrix, and where its values begin."""
        kind, start, size, at = self.element(at, end)
        if kind != 6 or size != 8:
            raise ValueError("a matrix has no flags")
        flags = self._pair.unpack_from(self.data, start)[0]
        kind, start, size, at = self.element(at, end)
        if kind != 5 or size % 4 or not 8 <= size <= 128:
            raise ValueError("a matrix has no sides")
        sides = struct.unpack_from(f"{self.order}{size // 4}i", self.data, start)
        if min(sides) < 0:
            raise ValueError("a matrix has a negative side")
        kind, start, size, at = self.element(at, end)
        return flags & 0xFF, self.data[start : start + size].decode("latin-1"), sides, at

    def matrix(self, at: int, end: int, depth: int = 0) -> tuple[str, Any]:
        """The name and the value of a matrix whose content lies between two places."""
        if at == end:  # an empty one
            return "", np.zeros((0, 0))
        if depth > _DEEPEST:
            raise ValueError("matrices lie too deep in others")
        kind, name, sides, at = self.heading(at, end)
        count = math.prod(sides)
        if kind == _CELL:
            return name, self._matrices(count, at, end, depth)
        if kind in (_STRUCT, _OBJECT):
            if kind == _OBJECT:  # the name of its class
                at = self.element(at, end)[3]
            return name, self._structs(count, at, end, depth)
        if kind == _CHAR:
            return name, self._text(sides, at, end)
        if _DOUBLE <= kind <= _LAST_NUMBER:
            return name, self._numbers(sides, count, at, end)
        return name, None  # sparse, a function, an object of a newer kind

    def _numbers(self, sides: tuple[int, ...], count: int, at: int, end: int) -> Any:
        kind, start, size, _ = self.element(at, end)
        if kind not in NUMBERS or size != count * _SIZES[kind]:
            raise ValueError(f"{count} numbers are declared, {size} bytes are there")
        if count == 1:
            return self._scalars[kind].unpack_from(self.data, start)[0]
        return np.frombuffer(self.data, self.order + NUMBERS[kind], count, start).reshape(sides, order="F")

    def _text(self, sides: tuple[int, ...], at: int, end: int) -> str | list[str]:
        kind, start, size, _ = self.element(at, end)
        code = _CHARACTERS.get(kind)
        if code is None:
            raise ValueError("a text is of no known kind")
        if code in ("utf-16", "utf-32"):
            code += "-le" if self.order == "<" else "-be"
        text = self.data[start : start + size].decode(code)
        rows = sides[0]
        return text if rows <= 1 else [text[row::rows] for row in range(min(rows, len(text)))]

    def _structs(self, count: int, at: int, end: int, depth: int) -> list[dict[str, Any]]:
        kind, start, size, at = self.element(at, end)
        if kind != 5 or size != 4:
            raise ValueError("a struct does not say how long its fields' names are")
        (length,) = struct.unpack_from(f"{self.order}i", self.data, start)
        _, start, size, at = self.element(at, end)
        if length < 1 or size % length:
            raise ValueError("a struct's fields have no names")
        texts = (self.data[place : place + length] for place in range(start, start + size, length))
        fields = [text.split(b"\0", 1)[0].decode("latin-1") for text in texts]
        if not fields:
            return []
        values = self._matrices(count * len(fields), at, end, depth)
        return [
            dict(zip(fields, values[place : place + len(fields)], strict=True))
            for place in range(0, len(values), len(fields))
        ]

    def _matrices(self, count: int, at: int, end: int, depth: int) -> list[Any]:
        """So many matrices one after the other."""
        if count > (end - at) // 8:
            raise ValueError(f"{count} matrices are declared in {end - at} bytes")
        values = []
        for _ in range(count):
            kind, start, size, at = self.element(at, end)
            if kind != _MATRIX:
                raise ValueError("a matrix is missing")
            values.append(self.matrix(start, start + size, depth + 1)[1])
        return values
