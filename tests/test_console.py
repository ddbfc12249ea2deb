"""What is shown on the terminal is what files are called."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

import leanpose
from data_builders import person, write_coco
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
    monkeypatch.setattr("sys.stderr", io.StringIO())
    write_any_text()
    print("é\udcff")
    assert raw.getvalue() == b"\\xe9\\udcff\n"
    assert isinstance(make_console(), Console)


OBEYED = "a\x1b[2J\x07\u202eb\x9b1m"
SHOWN = "a\\x1b[2J\\x07\\u202eb\\x9b1m"


def test_what_a_terminal_would_obey_is_shown_as_escapes(monkeypatch: pytest.MonkeyPatch):
    raw = io.StringIO()
    monkeypatch.setattr("sys.stdout", raw)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    write_any_text()
    write_any_text()  # twice is once
    print(OBEYED, "c\td", sep="\n")
    assert raw.getvalue() == f"{SHOWN}\nc\td\n"

    raw.truncate(raw.seek(0))
    table = new_table(OBEYED, OBEYED)
    table.add_row(OBEYED)
    console = make_console(force_terminal=True, width=200)
    console.print(table)
    console.print(Text("d\x1b[2J", style="red"))
    written = raw.getvalue()
    assert written.count(SHOWN) == 3
    assert "d\\x1b[2J" in written
    assert "\x1b[31m" in written, "rich's own styles reach the terminal"
    assert "\x1b[2J" not in written
    assert not {"\x07", "\u202e", "\x9b"} & {*written}


def test_the_command_line_obeys_no_names(tmp_path: Path, command: Callable[..., Any]):
    """A file's name, a keypoint's and a category's, in sentences and in tables."""
    folder = tmp_path / OBEYED
    categories = [{"id": 1, "name": OBEYED, "keypoints": [OBEYED, "left_x", "right_x"], "skeleton": []}]
    people = [person(i, 1, keypoints=[30, 40, 2, 50, 60, 2, 50, 70, 2]) for i in (1, 2)]
    source = write_coco(folder, 1, people)
    (folder / "images" / "0001.jpg").rename(folder / "images" / f"{OBEYED}.jpg")
    content = json.loads(source.read_text()) | {"categories": categories}
    content["images"][0]["file_name"] = f"{OBEYED}.jpg"
    source.write_text(json.dumps(content))
    shown = ""
    for arguments in (
        ["data", "check", source, "--contact-sheet", tmp_path / "sheet.png"],
        ["data", "convert", source, tmp_path / "out.json", "--to", "labelstudio"],
        ["data", "convert", source, tmp_path / "out.csv", "--to", "csv"],
        ["data", "convert", source, tmp_path / "out.json", "--category", "goose"],
    ):
        done = command(*arguments)
        shown += done.stdout + done.stderr
    assert SHOWN in shown
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & {*shown}
