"""Tables of texts, and numbers as texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NOTHING = "–"
"""Stands where there is nothing to measure."""


@dataclass(frozen=True)
class ReportTable:
    """A table of plain texts below its title, the names of the rows first.

    Attributes:
        bold: the places of rows that stand out.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: Sequence[int] = ()


def number(value: float | None, form: str = ".1f") -> str:
    """A number in a format of Python's; a dash for None."""
    return NOTHING if value is None else f"{value:{form}}"


def between(interval: tuple[float, float], form: str = ".1f") -> str:
    """An interval in words."""
    return f"{interval[0]:{form}} to {interval[1]:{form}}"
