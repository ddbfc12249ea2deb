"""Where a converter's packages come from."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from leanpose.errors import LeanposeError
from leanpose.mobile import MOBILE_FORMATS, environment
from leanpose.mobile.environment import READY, converter_python, environment_folder

MNN = MOBILE_FORMATS["mnn"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEANPOSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_list_of_each_is_complete() -> None:
    for known in MOBILE_FORMATS.values():
        assert known.script.is_file()
        lines = [line for file in known.requirements for line in file.read_text().splitlines()]
        pinned = [line for line in lines if not line.startswith(("#", "--extra-index-url"))]
        assert pinned
        assert all(re.match(r"[\w.-]+==[\w.+]+( ; .+)?$", line) for line in pinned)
        names = {line.split("==")[0].replace("-", "_").lower() for line in pinned}
        assert {module.lower() for module in known.modules} <= names


def test_this_python_serves_where_it_has_the_packages() -> None:
    assert converter_python(replace(MNN, modules=("json", "numpy"))) == Path(sys.executable)
    with pytest.raises(LeanposeError, match="needs json and no_such_module in an environment of their own"):
        converter_python(replace(MNN, modules=("json", "no_such_module")))


def test_an_environment_is_made_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        Path(command[-1]).mkdir() if "venv" in command else None
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    (environment_folder(MNN) / "half").mkdir(parents=True)  # of an installation that was interrupted
    python = converter_python(MNN, install=True)
    assert python.is_relative_to(own_cache / "converters")
    assert [part for part in commands[0] if part.startswith("-")] == ["-m"]
    assert commands[0][:3] == [sys.executable, "-m", "venv"]
    assert commands[1][:4] == [str(python), "-m", "pip", "install"]
    assert {"--no-deps", "--only-binary"} <= set(commands[1])
    assert commands[1][-1] == str(MNN.requirements[0])
    assert [file.name for file in environment_folder(MNN).iterdir()] == [READY]
    assert converter_python(MNN) == python
    assert converter_python(MNN, install=True) == python
    assert len(commands) == 2


def test_a_failed_installation_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        SimpleNamespace(returncode=1, stdout="trying\n", stderr="ERROR: No matching distribution\nnotice: new pip\n")
    ]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answers[0])
    with pytest.raises(LeanposeError, match=r"is not made: No matching distribution$"):
        converter_python(MNN, install=True)
    assert not (environment_folder(MNN) / READY).exists()
    answers[0] = SimpleNamespace(returncode=1, stdout="", stderr="")
    with pytest.raises(LeanposeError, match="is not made: no reason given"):
        converter_python(MNN, install=True)

    def too_long(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, environment.INSTALL_SECONDS)

    monkeypatch.setattr(subprocess, "run", too_long)
    with pytest.raises(LeanposeError, match="took more than 3600 seconds"):
        converter_python(MNN, install=True)
