"""What holds for all commands: help, version, completion, and the bar of progress."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

import leanpose
from leanpose.cli import COMMANDS, app
from leanpose.cli.options import progress


def test_the_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"leanpose {leanpose.__version__}\n")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["data"], ["data", "check"]], ids=" ".join)
def test_both_names_of_help(command: list[str]):
    short, long = (CliRunner().invoke(app, [*command, name]) for name in ("-h", "--help"))
    assert short.exit_code == 0
    assert "Usage:" in short.output
    assert short.output == long.output


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
