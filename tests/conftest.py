"""Fixtures that several rooms share."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from typer.testing import CliRunner, Result

from leanpose.cli import app, main
from spots import SpotFinder

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# An example may take long: a machine may be busy, the first example fills caches, and checks of shapes take their time.
settings.register_profile("leanpose", deadline=None)
settings.load_profile("leanpose")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of the tests' own: what a user has measured and exported is neither used nor touched."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["LEANPOSE_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and real data beside the checkout; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("LEANPOSE_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip("the folder of reference data is not here (set LEANPOSE_SHARED)")
    return folder


@dataclass(frozen=True)
class Ended:
    """What a command has left: its exit code and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The command `leanpose` with its error sentence and exit code, without the seconds that a process takes to start."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr("sys.argv", ["leanpose", *(str(argument) for argument in arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        written = capsys.readouterr()
        return Ended(int(end.value.code or 0), written.out, written.err)

    return run


@pytest.fixture
def spot_finder() -> SpotFinder:
    return SpotFinder()


@pytest.fixture(scope="session")
def small_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A freshly initialized real model of few layers, as a file of weights."""
    from leanpose.models.registry import create_model
    from leanpose.weights import save_model

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    model = create_model("tokenpose_s_v1", skeleton="body19", input_size=(128, 96), depth=2, stage1_blocks=1)
    save_model(model, path, training_data=["none"], licence="none", metrics={})
    return path


@pytest.fixture
def predict(small_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line's `predict` with the small model, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        settings = ["--model", small_model_file, "--device", "cpu"]
        return CliRunner().invoke(app, [str(a) for a in ["predict", *settings, *arguments]])

    return run


STARTS_PROCESSES = (
    "test_another_process_draws_the_same_scene",
    "test_the_bytes_do_not_depend_on_the_number_of_workers",
    "test_a_killed_run_resumes_to_bit_identical_weights",
    "test_a_signal_to_all_processes_saves_and_says_how_to_go_on",
    "test_two_processes_train_one_model",
    "test_sigterm_keeps_what_was_found",
    "test_as_a_real_command",
    "test_two_processes_share_a_cache",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start other processes come first: a worker that has hundreds of networks, compilers and runtimes behind it was
    seen to die when it starts one."""
    items.sort(key=lambda item: getattr(item, "originalname", item.name) not in STARTS_PROCESSES)


@pytest.fixture
def refuse_folders(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let no folder be read whose name ends so; made up, since root may read every folder."""

    def refuse(ending: str) -> None:
        scan = os.scandir

        def refused(path: Any) -> Any:
            if str(path).endswith(ending):
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr("os.scandir", refused)

    return refuse


class _SignalStack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def pytest_runtest_teardown() -> None:
    """One of the runtimes that are measured leaves this process a signal stack whose memory is gone: the next signal that a
    test raises would end the process, whichever test that is."""
    if sys.platform == "linux":
        disabled = 2  # SS_DISABLE
        ctypes.CDLL(None).sigaltstack(ctypes.byref(_SignalStack(None, disabled, 0)), None)
