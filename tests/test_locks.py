"""Locks: who gets them, who is told what, and that they end with their process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clips import write_clip
from fuzz import label_files
from leanpose import locks
from leanpose.data.convert import convert_labels
from leanpose.data.inputs import ImageFile
from leanpose.data.pack_file import PackConfig
from leanpose.data.pack_writer import pack_people
from leanpose.demo import run_demo
from leanpose.distillation.run import run_distillation
from leanpose.distillation.unlabelled import label_images
from leanpose.errors import LeanposeError
from leanpose.export.exporter import export_model
from leanpose.inference.folders import predict_images
from leanpose.locks import lock_file, lock_folder, lock_together
from leanpose.models.registry import create_model
from leanpose.pseudo_labels.labelling import label_wholebody
from leanpose.skeleton import COCO17
from leanpose.synthetic import write_synthetic
from leanpose.video.predict import predict_video
from tiny import TINY_MODEL

FORK = multiprocessing.get_context("fork")


def hold(folder: Path, told: Connection) -> None:
    """Hold a folder's lock, with a child that lives longer, until killed."""
    with lock_folder(folder):
        (folder / ".state.0123abcd.partial.pt").write_text("unfinished")
        child = FORK.Process(target=time.sleep, args=(30,))
        child.start()
        told.send(child.pid)
        time.sleep(30)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_killed_process_holds_no_lock_and_leaves_no_partial_file(tmp_path: Path):
    folder = tmp_path / "run"
    here, there = FORK.Pipe()
    process = FORK.Process(target=hold, args=(folder, there))
    process.start()
    child = here.recv()
    try:
        names = set(os.listdir(folder))
        with (
            pytest.raises(LeanposeError, match=rf"run is being written by process {process.pid} on \S+ since \d{{4}}-"),
            lock_folder(folder),
        ):
            pass
        assert set(os.listdir(folder)) == names, "the second one has changed nothing"
        process.kill()
        process.join()
        with lock_folder(folder):
            assert os.listdir(folder) == [".folder.lock"]
    finally:
        os.kill(child, signal.SIGKILL)
    assert os.listdir(folder) == []


def test_the_lock_of_a_file_is_its_own(tmp_path: Path):
    one, other = tmp_path / "deep" / "one.json", tmp_path / "deep" / "other.json"
    with lock_file(one), lock_file(other):
        with pytest.raises(LeanposeError, match=r"one\.json is being written by process"), lock_file(one):
            pass
        other.write_text("{}")
    assert [path.name for path in other.parent.iterdir()] == ["other.json"]


def test_only_what_was_to_become_the_file_is_removed(tmp_path: Path):
    names = [
        ".a.0123abcd.partial.json",
        ".a.b.0123abcd.partial.json",
        ".a.0123abcd.partial.csv",
        "a.partial",
        ".a.json",
    ]
    for name in names:
        (tmp_path / name).write_text("")
    (tmp_path / ".a.01_3abcd.partial").mkdir()
    (tmp_path / ".a.01_3abcd.partial" / "a.xml").write_text("")
    with lock_file(tmp_path / "a.json"):
        assert {path.name for path in tmp_path.iterdir()} == {*names[1:], ".a.json.lock"}
    with lock_folder(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {"a.partial", ".a.json", ".folder.lock"}


def test_waiting_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = lock_file(tmp_path / "a")
    first.__enter__()
    monkeypatch.setattr(locks.time, "sleep", lambda _: first.__exit__(None, None, None))
    with lock_file(tmp_path / "a", wait=True):
        assert (tmp_path / ".a.lock").exists()


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def unsupported(_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks, "_take", unsupported)
    with lock_folder(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert "cannot be locked on this file system" in caplog.text
    assert os.listdir(tmp_path / "run") == ["file"]


def test_a_folder_that_cannot_be_locked_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LeanposeError, match="Cannot write"), lock_folder(tmp_path / "file"):
        pass


def pack(out: Path) -> None:
    pack_people([], COCO17, PackConfig((8, 8)), out)


def predict_folder(out: Path) -> None:
    estimator: Any = SimpleNamespace(uncertain=0, duplicates=0)
    predict_images(estimator, [ImageFile(out.parent / "a.png", "a.png", 1)], coco=out)


def predict_clip(out: Path) -> None:
    nobody: Any = None
    predict_video(nobody, write_clip(out.with_name("clip.mp4"), frames=1), lines=out)


def label(out: Path) -> None:
    nobody: Any = None
    label_wholebody(out.with_name("people.json"), out.parent, nobody, out)


def export(out: Path) -> None:
    export_model(create_model("sdpose_t", **TINY_MODEL), out, crops=np.zeros((1, 64, 48, 3), np.uint8))


def convert(out: Path) -> None:
    convert_labels(label_files.csv_table(out.parent), out, "coco")


def label_people(out: Path) -> None:
    label_images(label_files.csv_table(out.parent).with_name("images"), "no-such-teacher", out)


WORKS = [pack, predict_folder, predict_clip, label, export, convert, label_people]


@pytest.mark.parametrize("work", WORKS)
def test_the_second_writer_of_a_file_is_refused(work: Callable[[Path], None], tmp_path: Path):
    out = tmp_path / "result.onnx"
    out.write_text("before")
    with lock_file(out), pytest.raises(LeanposeError, match=r"result\.onnx is being written by process"):
        work(out)
    assert out.read_text() == "before"


def distil(folder: Path) -> None:
    nothing: Any = None
    run_distillation(nothing, folder)


def synthesise(folder: Path) -> None:
    write_synthetic(folder, 1)


def label_clip(folder: Path) -> None:
    label_images(write_clip(folder.with_name("clip.mp4"), frames=1), "no-such-teacher", folder.with_suffix(".json"))


@pytest.mark.parametrize("work", [distil, synthesise, label_clip, run_demo])
def test_the_second_writer_of_a_folder_is_refused(work: Callable[[Path], None], tmp_path: Path):
    with lock_folder(tmp_path / "out"):
        with pytest.raises(LeanposeError, match="out is being written by process"):
            work(tmp_path / "out")
        assert os.listdir(tmp_path / "out") == [".folder.lock"]


def test_the_second_yolo_set_in_a_folder_is_refused_whatever_its_yaml_is_called(tmp_path: Path):
    source = label_files.csv_table(tmp_path)
    with (
        lock_file(tmp_path / "out" / "labels"),
        pytest.raises(LeanposeError, match="labels is being written by process"),
    ):
        convert_labels(source, tmp_path / "out" / "other.yaml", "yolo")


def test_files_that_belong_together_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, tried = lock_file(tmp_path / "sheet.png"), []
    first.__enter__()

    def wait(_: float) -> None:
        tried.append(sorted(path.name for path in tmp_path.iterdir()))
        first.__exit__(None, None, None)

    monkeypatch.setattr(locks.time, "sleep", wait)
    with lock_together(tmp_path / "sheet.png", None, tmp_path / "all.json"):
        assert tried == [[".all.json.lock", ".sheet.png.lock"]]
