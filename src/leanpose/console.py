"""The terminal: names of files, keypoints and models are shown as they are, whatever brackets or colons they have, and
what a terminal would obey is shown as an escape (`\\x1b`).

Rich, which draws tables and bars, takes text in brackets for styles and names between colons for emoji. Nothing else in
this package makes a console, and what is to be styled is a `Text` with a style.
"""

from __future__ import annotations

import io
import sys
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TextColumn
    from rich.segment import Segment
    from rich.text import Text

MAX_SHOWN = 2000
"""Characters of an error's sentence: what a corrupt file holds may be millions."""


def say_nothing(_sentence: str) -> None:
    """A receiver of messages that are not shown, or have been shown already."""


def make_console(*, stderr: bool = False, **settings: Any) -> Console:
    """A console that shows text as it is.

    Args:
        settings: others of rich's.
    """
    from rich.console import Console  # takes time that `leanpose --help` does not have, here and below
    from rich.segment import Segment

    class EscapingConsole(Console):
        """Escapes text, not what rich itself says to the terminal."""

        def render_str(self, text: str, **settings: Any) -> Text:
            return super().render_str(escaped(text), **settings)  # before a table measures it

        def render(self, *arguments: Any, **settings: Any) -> Iterator[Segment]:
            for segment in super().render(*arguments, **settings):
                yield segment if segment.control else Segment(escaped(segment.text), segment.style)

    return EscapingConsole(stderr=stderr, markup=False, emoji=False, highlight=False, **settings)


def text_column(text: str, **settings: Any) -> TextColumn:
    """A column of a bar that shows what its fields hold as it is; `text` is rich's format."""
    from rich.progress import TextColumn

    return TextColumn(text, markup=False, **settings)


def printable(text: str) -> str:
    """Text for one line of a terminal: control characters as escapes, and of very much the two ends."""
    if len(text) > MAX_SHOWN:
        half = MAX_SHOWN // 2
        text = f"{text[:half]} … {text[-half:]}"
    return one_line(text)


def one_line(text: str) -> str:
    """Text of one line, whatever the names in it hold: line breaks and control characters as escapes."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def escaped(text: str) -> str:
    """Text of any lines with what terminals obey, hide or take for marks of direction as escapes."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(letter if letter in "\n\t" or not _obeyed(letter) else _escape(letter) for letter in text)


def _obeyed(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


class EscapingStream:
    """A stream of text that escapes what is printed; rich, which escapes on its own, writes to the one inside."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # the name by which rich looks for it

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        """Write the text with escapes."""
        return self.rich_proxied_file.write(escaped(text))


def write_any_text() -> None:
    """Let standard output and error take any text.

    What their encoding lacks, such as a file's name that is not UTF-8, and what a terminal would obey are written as
    escapes.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        if stream is not None and not isinstance(stream, EscapingStream):
            setattr(sys, name, EscapingStream(stream))
