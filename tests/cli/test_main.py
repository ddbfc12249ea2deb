"""What holds for all commands: help, version, completion, and the bar of progress."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

import leanpose
from conftest import Ended
from leanpose import cli
from leanpose.cli import COMMANDS, app, exit_codes
from leanpose.cli.options import progress
from leanpose.errors import LeanposeError, StoppedError


def test_the_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"leanpose {leanpose.__version__}\n")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["data"], ["data", "check"]], ids=" ".join)
def test_both_names_of_help(command: list[str]):
    short, long = (CliRunner().invoke(app, [*command, name]) for name in ("-h", "--help"))
    assert short.exit_code == 0
    assert "Usage:" in short.output
    assert short.output == long.output


def test_the_exit_codes_are_in_the_help():
    assert "130 or 143 interrupted" in " ".join(CliRunner().invoke(app, ["--help"]).output.split())


@pytest.mark.parametrize(
    ("ended_by", "code", "printed"),
    [
        (None, 0, ""),
        (LeanposeError("No."), 1, "leanpose: No.\n"),
        (StoppedError("Stopped.", signal.SIGINT), 130, "leanpose: Stopped.\n"),
        (StoppedError("Stopped.", signal.SIGTERM), 143, "leanpose: Stopped.\n"),
        (KeyboardInterrupt(), 130, "leanpose: stopped.\n"),
        (signal.SIGTERM, 143, "leanpose: stopped.\n"),
        (
            KeyError("a\nb"),
            1,
            "leanpose: `leanpose weights` failed unexpectedly (KeyError: 'a\\nb'); please report it with "
            "the output of `leanpose --debug …`.\n",
        ),
        (LeanposeError("\x1b[2J\ud800" + "x" * 5000), 1, f"leanpose: \\x1b[2J\\ud800{'x' * 995} … {'x' * 1000}\n"),
    ],
)
def test_how_a_command_ends_is_its_exit_code(
    ended_by: object, code: int, printed: str, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
):
    """`weights` stands for all of them."""

    def work() -> None:
        if isinstance(ended_by, BaseException):
            raise ended_by
        if ended_by is not None:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(app.registered_commands[list(COMMANDS).index("weights")], "callback", work)
    monkeypatch.setattr(cli, "_leave", sys.exit)
    monkeypatch.setattr(exit_codes, "_received", [signal.SIGINT])
    before = signal.getsignal(signal.SIGTERM)
    try:
        ended = command("weights")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (ended.returncode, ended.stderr) == (code, printed)
    assert command("weights", "--no-such-option").returncode == 2


def test_debug_shows_where_an_error_comes_from(command: Callable[..., Ended]):
    ended = command("--debug", "data", "check", "no such [/folder]")
    assert "Traceback" in ended.stderr
    assert ended.stderr.endswith("leanpose: There is no no such [/folder].\n")


def test_completion_can_be_installed():
    names = {name for option in get_command(app).params for name in option.opts}
    assert {"--install-completion", "--show-completion", "--version"} <= names
    code = "from leanpose.cli import main; import sys; sys.argv = ['leanpose']; main()"
    environment = {"_LEANPOSE_COMPLETE": "complete_bash", "COMP_WORDS": "leanpose pre", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["predict"], done.stderr


def test_the_bar_shows_the_mean_speed():
    times = [0.0]
    with progress("images") as bar:
        bar.get_time = lambda: times[-1]
        task = bar.add_task("images", total=10)
        for seconds, completed in ((4.0, 2), (5.0, 10)):  # slow at first, then fast
            times.append(seconds)
            bar.update(task, completed=completed)
        shown = Console(file=io.StringIO(), width=120)
        shown.print(bar.get_renderable())
        assert isinstance(shown.file, io.StringIO)
        assert "2.0 images/s" in shown.file.getvalue()
