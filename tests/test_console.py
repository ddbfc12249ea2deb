"""What is shown on the terminal is what files are called."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

import leanpose
from leanpose.cli.options import new_table, status
from leanpose.console import make_console, printable, text_column, write_any_text
from leanpose.training.log import RunProgress

ODD = "[/x] [bold]y[/] :smile: [link=a]"


def shown(thing: object) -> str:
    file = io.StringIO()
    make_console(file=file, width=200).print(thing)
    return file.getvalue()


def test_a_table_shows_names_as_they_are():
    table = new_table(ODD, ODD)
    table.add_row(ODD)
    assert shown(table).count(ODD) == 3


def test_bars_and_sentences_show_names_as_they_are(capsys: pytest.CaptureFixture[str]):
    with Progress(text_column("{task.description}"), console=make_console(file=io.StringIO(), width=200)) as bar:
        bar.add_task(ODD)
        assert ODD in shown(bar.get_renderable())
    RunProgress(1, 1).say(ODD)
    assert capsys.readouterr().err == f"{ODD}\n"


def test_the_line_of_what_is_under_way_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch):
    file = io.StringIO()
    # The package has a function of the module's name.
    monkeypatch.setattr(
        sys.modules["leanpose.cli.options"],
        "make_console",
        lambda **_: make_console(file=file, width=200, force_terminal=True),
    )
    with status() as say:
        say(ODD)
    assert f"{ODD} …" in file.getvalue()


def test_nothing_else_makes_a_console():
    """Each of these takes text in brackets for a style unless it is told not to."""
    makers = ("Console(", "TextColumn(", "from_markup", "rich.print", ".status(f", '.status("')
    for path in Path(leanpose.__file__).parent.rglob("*.py"):
        if path.name != "console.py":
            text = path.read_text(encoding="utf-8")
            assert [maker for maker in makers if maker in text] == [], path


def test_text_that_no_terminal_shows(monkeypatch: pytest.MonkeyPatch):
    assert printable("a\tb\r\x1b[2J\ud800é") == "a\\tb\\r\\x1b[2J\\ud800é"
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    write_any_text()
    print("é\udcff")
    assert raw.getvalue() == b"\\xe9\\udcff\n"
    assert isinstance(make_console(), Console)
