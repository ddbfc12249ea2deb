"""Where images are found, in which order, and what they are called."""

from __future__ import annotations

import io
import json
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from data_builders import write_tar
from leanpose.cluster.images import ImageList, StoredImage, list_images
from leanpose.data.image_files import VARIABLE, BrokenImageError
from leanpose.data.inputs import find_inputs
from leanpose.errors import LeanposeError


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def values(listed: ImageList) -> dict[str, tuple[int, int]]:
    """Name → (id, red) of each image, read as a worker does: from what travels to it."""
    travelled = [StoredImage.from_row(json.loads(json.dumps(image.row))) for image in listed.images]
    return {image.name: (image.image_id, int(image.read()[0, 0, 0])) for image in travelled}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "b").mkdir(parents=True)
    for number, name in enumerate(("b/7.png", "b/x.png", "a.png", ".hidden.png")):
        (tmp_path / "in" / name).write_bytes(png(number))
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path / "in"


def test_a_folder_is_listed_as_without_a_cluster(folder: Path) -> None:
    listed = list_images(str(folder))
    expected = {image.name: image.image_id for image in find_inputs([str(folder)]).images}
    assert values(listed) == {"a.png": (8, 2), "b/7.png": (7, 0), "b/x.png": (9, 1)}
    assert {image.name: image.image_id for image in listed.images} == expected
    assert listed.left_out == {"files that are not images": 1}
    assert list_images(folder.as_uri()) == listed


def test_archives_are_looked_into(folder: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for shard in range(2):
        write_tar(shards / f"{shard}.tar", {f"./{shard}1.png": png(10 + shard), f"{shard}1.json": b"{}"})
    assert values(list_images(str(shards))) == {"0.tar/01.png": (1, 10), "1.tar/11.png": (11, 11)}
    assert list_images(str(shards)).left_out == {"members of archives that are not images": 2}
    assert values(list_images(str(shards / "1.tar"))) == {"11.png": (11, 11)}
    write_tar(folder / "more.tar", {"y.png": png(5)})
    assert values(list_images(str(folder))).keys() == {"a.png", "b/7.png", "b/x.png", "more.tar/y.png"}
    (shards / "1.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(LeanposeError, match=r"1\.tar.*uncompressed tar"):
        list_images(str(shards))


def test_addresses_of_fsspec(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    write_tar(tmp_path / "0.tar", {"3.png": png(30), "3.txt": b"caption"})
    files.pipe({"/bucket/x/2.png": png(2), "/bucket/x/1.png": png(1), "/bucket/x/.a.png": b"", "/bucket/x/a.txt": b""})
    files.pipe("/bucket/x/0.tar", (tmp_path / "0.tar").read_bytes())
    try:
        listed = list_images("memory://bucket/x")
        assert values(listed) == {"0.tar/3.png": (3, 30), "1.png": (1, 1), "2.png": (2, 2)}
        assert list(values(listed)) == sorted(values(listed))
        assert listed.left_out == {"files that are not images": 1, "members of archives that are not images": 1}
        digest = listed.digest
        files.pipe("/bucket/x/2.png", png(2) + b"more")
        assert list_images("memory://bucket/x").digest != digest
        with pytest.raises(LeanposeError, match=r"2\.png has another size now"):
            listed.images[-1].read()
        files.rm("/bucket/x/2.png")
        with pytest.raises(LeanposeError, match="missing") as gone:
            listed.images[-1].read()
        assert not isinstance(gone.value, BrokenImageError), "what is gone is not a corrupt image"
    finally:
        files.rm("/bucket", recursive=True)


def test_damage_is_the_images_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a.png").write_bytes(png(0)[:40])
    with pytest.raises(BrokenImageError, match=r"a\.png"):
        list_images(str(folder)).images[0].read()
    (folder / "a.png").write_bytes(bytes(400))
    monkeypatch.setenv(VARIABLE, "0.00001")
    with pytest.raises(BrokenImageError, match="allowed"):
        list_images(str(folder)).images[0].read()


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nowhere", "no file or folder"),
        ("ftp://a/b", "not a location for"),
        ("memory://nothing/there", "nothing/there"),
    ],
)
def test_nothing_there(source: str, sentence: str) -> None:
    with pytest.raises(LeanposeError, match=sentence):
        list_images(source)


def test_an_empty_folder(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"a.txt": b""})
    with pytest.raises(LeanposeError, match=r"no image in .*; there are 1 members of archives"):
        list_images(str(tmp_path))
