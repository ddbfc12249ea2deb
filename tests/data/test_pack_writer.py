"""Making packs: whole or resumable, the same bytes either way, and never where they do not fit."""

from __future__ import annotations

import errno
import os
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_builders import encoded, make_image, pack, person, read_coco_folder, write_coco
from leanpose.data import pack_writer
from leanpose.data.annotations import PoseAnnotation, PoseDataset
from leanpose.data.dataset import TopDownDataset
from leanpose.data.pack_file import PackConfig, PackFile
from leanpose.data.pack_writer import ensure_pack
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17

CONFIG = PackConfig((64, 48))


@pytest.fixture
def people(tmp_path: Path) -> list[PoseAnnotation]:
    write_coco(tmp_path, 3, [person(1, 1), person(2, 1, x=90), person(3, 2), person(4, 3)])
    return read_coco_folder(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "packed" / "people.pack"


def cached(people: list[PoseAnnotation], path: Path, config: PackConfig = CONFIG) -> tuple[PackFile, list[str]]:
    """The pack for a training, and what was said of it."""
    said: list[str] = []
    cache = ensure_pack([PoseDataset("people", people)], COCO17, config, path, said.append)
    assert cache is not None
    return cache, said


def test_the_order_of_people_does_not_change_the_file(people: list[PoseAnnotation], tmp_path: Path) -> None:
    pack(people, CONFIG, tmp_path / "one.pack")
    pack(people[::-1], CONFIG, tmp_path / "other.pack")
    assert (tmp_path / "one.pack").read_bytes() == (tmp_path / "other.pack").read_bytes()


def test_broken_images_are_named_and_left_out(people: list[PoseAnnotation], path: Path) -> None:
    Path(people[0].image.path).write_bytes(encoded(make_image(1))[:900])
    done: list[tuple[int, int]] = []
    cache = pack(people, CONFIG, path, progress=lambda *step: done.append(step))
    assert (done[0], done[-1]) == ((0, 4), (4, 4))
    assert len(cache) == 2
    assert list(cache.broken) == ["0001.jpg"]
    assert "truncated" in cache.broken["0001.jpg"]


class Killed(Exception):
    pass


def killed_after(people: list[PoseAnnotation], path: Path, count: int, config: PackConfig = CONFIG) -> Path:
    """What a run leaves that is killed once so many people are done."""

    def stop(done: int, _total: int) -> None:
        if done >= count:
            raise Killed

    with pytest.raises(Killed):
        pack(people, config, path, progress=stop)
    return path.with_name(f"{path.name}.partial")


def gone_on_from(people: list[PoseAnnotation], path: Path, config: PackConfig = CONFIG) -> int:
    """How many people a run finds done that goes on."""
    done: list[int] = []
    pack(people, config, path, progress=lambda count, _: done.append(count))
    return done[0]


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_a_killed_run_goes_on_to_the_same_bytes(people: list[PoseAnnotation], path: Path, encoding: Any) -> None:
    """Also where the end of what it left is missing or damaged: from the last image that is whole."""
    config = PackConfig((64, 48), encoding=encoding)
    Path(people[2].image.path).write_bytes(b"no image")
    pack(people, config, path)
    whole = path.read_bytes()
    path.unlink()
    partial = killed_after(people, path, 3, config)
    left = partial.read_bytes()
    assert not path.exists()
    first = left.index(b"IMG\n", 40)  # the second image's frame
    damaged = bytearray(left)
    damaged[first - 3] ^= 1  # the first image's last crop
    cases = ((left, 3), (left[: first + 9], 2), (left[: first - 1], 0), (bytes(damaged), 0), (left[:20], 0))
    for data, kept in cases:
        partial.write_bytes(data)
        assert gone_on_from(people, path, config) == kept
        assert path.read_bytes() == whole
        assert not partial.exists()


def test_what_others_have_left_is_not_gone_on_with(people: list[PoseAnnotation], path: Path) -> None:
    partial = killed_after(people, path, 3)
    assert len(pack(people, PackConfig((32, 24)), path)) == 4
    assert PackFile(path).config.input_size == (32, 24)
    assert not partial.exists()


def test_a_full_disk_loses_nothing(people: list[PoseAnnotation], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(people[:1], CONFIG, path)
    before, write, written = path.read_bytes(), pack_writer._write_frame, []

    def fill(*frame: Any) -> Any:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(frame)
        return write(*frame)

    monkeypatch.setattr(pack_writer, "_write_frame", fill)
    with pytest.raises(LeanposeError, match=r"The disk is full: 2 of 4 people are kept in .*people.pack.partial"):
        pack(people, CONFIG, path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert gone_on_from(people, path) == 2


def test_what_does_not_fit_the_disk_is_not_begun(
    people: list[PoseAnnotation], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    size = len(pack(people, CONFIG, path).data)
    path.unlink()
    monkeypatch.setattr(pack_writer.shutil, "disk_usage", lambda _: usage(size // 2))
    with pytest.raises(
        LeanposeError, match=r"takes about 0.0\d MB \(raw\), but 0.0\d MB are free there: choose another"
    ):
        pack(people, CONFIG, path)
    assert not list(path.parent.iterdir())
    monkeypatch.setattr(pack_writer.shutil, "disk_usage", lambda _: usage(size + 1))  # less than the bound, but enough
    assert len(pack(people, CONFIG, path)) == 4


def test_no_other_file_is_replaced(people: list[PoseAnnotation], tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match=r"annotations.json is there already and no pack"):
        pack(people, CONFIG, tmp_path / "annotations.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(LeanposeError, match="Cannot write"):
        pack(people, CONFIG, tmp_path / "file" / "people.pack")


def test_a_pack_that_fits_is_used_again(people: list[PoseAnnotation], path: Path) -> None:
    assert cached(people[:2], path)[1] == []
    stamp = path.stat().st_mtime_ns
    assert cached(people[:1], path)[1] == []
    assert path.stat().st_mtime_ns == stamp
    cache, said = cached(people, path)
    assert len(cache) == 4
    assert said == [f"The pack {path} is made again: it lacks 2 of the 4 people."]
    cache, said = cached(people, path, PackConfig((32, 24)))
    assert cache.config.input_size == (32, 24)
    assert said == [f"The pack {path} is made again: it is for crops of 64×48 pixels, not of 32×24."]


def test_a_pack_that_is_damaged_or_older_is_made_again(people: list[PoseAnnotation], path: Path) -> None:
    cached(people, path)
    path.write_bytes(path.read_bytes()[:-5])
    cache, said = cached(people, path)
    assert len(cache) == 4
    assert "is truncated" in said[0]
    assert said[0].endswith("pack it again. This is done now.")
    path.write_text("a letter")
    with pytest.raises(LeanposeError, match="is not a pack of crops"):
        cached(people, path)


def test_images_that_have_changed_are_packed_again(people: list[PoseAnnotation], path: Path) -> None:
    """By their size or their time; those that are gone are not missed."""
    image = Path(people[0].image.path)
    Path(people[3].image.path).unlink()
    cache, _ = cached(people, path)
    assert len(cache) == 3
    stamp = path.stat().st_mtime_ns
    image.rename(image.with_suffix(".moved"))
    assert cached(people, path)[1] == []
    assert path.stat().st_mtime_ns == stamp
    image.with_suffix(".moved").rename(image)
    os.utime(image, ns=(1, 1))
    assert cached(people, path)[1] == [
        f"The pack {path} is made again: 1 of the images have changed since, such as {image}."
    ]
    image.write_bytes(encoded(np.full((120, 160, 3), 90, np.uint8)))
    cache, said = cached(people, path)
    assert len(said) == 1
    dataset = TopDownDataset(people, COCO17, CONFIG.input_size, cache=cache)
    assert abs(int(dataset.read(0).image[30, 24, 0]) - 90) < 5
