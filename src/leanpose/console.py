"""The terminal: names of files, keypoints and models are shown as they are, whatever brackets, colons or control characters they have.

Rich, which draws tables and bars, takes text in brackets for styles and names between colons for emoji. Nothing else in this package
makes a console, and what is to be styled is a `Text` with a style.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TextColumn

MOST_SHOWN = 2000
"""Characters of an error's sentence: what a damaged file holds may be millions."""


def make_console(*, stderr: bool = False, **settings: Any) -> Console:
    """A console that shows text as it is.

    Args:
        settings: others of rich's.
    """
    from rich.console import Console  # takes time that `leanpose --help` does not have, here and below

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, **settings)


def text_column(text: str, **settings: Any) -> TextColumn:
    """A column of a bar that shows what its fields hold as it is; `text` is rich's format."""
    from rich.progress import TextColumn

    return TextColumn(text, markup=False, **settings)


def printable(text: str) -> str:
    """Text for one line of a terminal: control characters as escapes, and of very much the two ends."""
    if len(text) > MOST_SHOWN:
        half = MOST_SHOWN // 2
        text = f"{text[:half]} … {text[-half:]}"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def write_any_text() -> None:
    """Let standard output and error take text that their encoding lacks, such as a file's name that is no UTF-8: as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
