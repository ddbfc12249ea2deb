"""A converter's process: what happens if it fails, ends or hangs, and what it is told of this one's surroundings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from leanpose.errors import LeanposeError
from leanpose.mobile.process import ConverterError, ConverterProcess

SCRIPT = """
import json, os, sys, time
for line in sys.stdin:
    action = json.loads(line)["do"]
    if action == "say":
        print(json.dumps({"path": sys.path[1:], "folder": os.getcwd(), "set": sorted(os.environ)}), flush=True)
    if action == "fail":
        print("the reason in full", file=sys.stderr, flush=True)
        print(json.dumps({"error": "no such layer"}), flush=True)
    if action == "babble":
        print("no JSON", flush=True)
    if action == "end":
        sys.exit("out of ideas")
    if action == "kill":
        os.kill(os.getpid(), 9)
    if action == "hang":
        time.sleep(60)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_it_knows_nothing_of_this_python(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with ConverterProcess(Path(sys.executable), script, "MNN", tmp_path) as process:
        said = process.ask({"do": "say"}, 30)
        assert "/somewhere/else" not in said["path"]
        assert said["folder"] == str(tmp_path)
        assert "OMP_NUM_THREADS" in said["set"]
        assert "PYTHONPATH" not in said["set"]
        for action, words in {"fail": "The converter of MNN failed: no such layer", "babble": "cannot be read"}.items():
            with pytest.raises(LeanposeError, match=words) as caught:
                process.ask({"do": action}, 30)
            assert isinstance(caught.value.__cause__, ConverterError)
            assert str(caught.value.__cause__) == "the reason in full"
        with pytest.raises(LeanposeError, match=r"did not answer within 0\.2 seconds and was ended"):
            process.ask({"do": "hang"}, 0.2)


@pytest.mark.parametrize(("action", "words"), [("end", "ended with code 1;"), ("kill", "ended by SIGKILL;")])
def test_one_that_ends(action: str, words: str, script: Path, tmp_path: Path) -> None:
    with ConverterProcess(Path(sys.executable), script, "MNN", tmp_path) as process:
        with pytest.raises(LeanposeError, match=words):
            process.ask({"do": action}, 30)
        with pytest.raises(LeanposeError, match=words):  # and stays so
            process.ask({"do": action}, 30)


def test_one_that_cannot_be_started(script: Path, tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match=r"cannot be run: No such file"):
        ConverterProcess(tmp_path / "python", script, "MNN", tmp_path)
