"""Images by the names that label files call them by: found in other spellings with a note, never outside the folder."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest

from data_builders import coco_content, encoded, make_image, person, write_tar
from leanpose.data.annotations import ImageRef
from leanpose.data.image_folder import ENDING, LAST_PART, SLASHES, SUB_FOLDER, UNICODE, ImageFolder
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data_checks import check_data
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17

NFC, NFD = (unicodedata.normalize(form, "Bärbel.jpg") for form in ("NFC", "NFD"))


def folder_of(tmp_path: Path, *files: str) -> Path:
    for name in files:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(encoded(make_image(1)))
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("name", "file", "way"),
    [
        ("1.jpg", "1.jpg", ""),
        ("a/b/1.jpg", "a/b/1.jpg", ""),
        ("./1.jpg", "./1.jpg", ""),
        ("a\\b\\1.jpg", "a/b/1.jpg", SLASHES),
        ("C:\\photos\\a\\1.jpg", "a/1.jpg", LAST_PART),
        ("https://x.org/photos/1.jpg?size=3", "1.jpg", LAST_PART),
        ("https://x.org/photos/a%20b.jpg", "a b.jpg", LAST_PART),
        ("/home/me/set/images/1.jpg", "1.jpg", LAST_PART),
        ("../images/1.jpg", "1.jpg", LAST_PART),
        ("train/1.jpg", "1.jpg", LAST_PART),
        (NFC, NFD, UNICODE),
        (NFD, NFC, UNICODE),
        (f"a\\{NFC}", f"a/{NFD}", SLASHES),
        ("1.jpg", "deep/er/1.jpg", SUB_FOLDER),
        ("http://[x/1.jpg", "1.jpg", LAST_PART),
        ("100%.jpg", "100%.jpg", ""),
        ("frame_000012", "frame_000012.PNG", ENDING),  # of a video task of CVAT
        ("IMG_1.JPG", "IMG_1.jpg", ENDING),
        ("a/1.jpeg", "a/1.JPEG", ENDING),
    ],
)
@pytest.mark.parametrize("archive", [False, True])
def test_images_are_found_by_other_spellings_with_a_note(
    tmp_path: Path, name: str, file: str, way: str, archive: bool
) -> None:
    path = folder_of(tmp_path, file)
    if archive:
        if file.startswith("./"):
            pytest.skip("members have no dot in front")
        path = write_tar(tmp_path / "images.tar", {file: b"1"})
    folder = ImageFolder(path, "set", [name])
    expected = ImageRef(str(path), file) if archive else ImageRef(str(path / file))
    assert Path(folder(name).path) == Path(expected.path)
    assert folder(name).member == expected.member
    assert dict(folder.notes) == ({way: 1} if way else {})


def test_base_names_that_two_images_have_are_not_enough(tmp_path: Path) -> None:
    path = folder_of(tmp_path, "1.jpg", "sub/2.jpg", "sub/deep/2.jpg")
    folder = ImageFolder(path, "set", ["a/1.jpg", "b/1.jpg", "2.jpg"])
    assert folder.find("a/1.jpg") is None
    assert not os.path.exists(folder("b/1.jpg").path)
    assert not os.path.exists(folder("2.jpg").path)
    assert not folder.notes
    whole = ImageFolder(path, "set", whole_names=True)
    assert "1.jpg" in whole
    assert whole.find("x/1.jpg") is None


def test_a_missing_image_is_not_taken_from_another_folder_where_others_are_in_place(tmp_path: Path) -> None:
    folder = ImageFolder(folder_of(tmp_path, "1.jpg", "other/2.jpg"), "set", ["1.jpg", "2.jpg"])
    assert folder("2.jpg") == ImageRef(str(tmp_path / "images" / "2.jpg"))


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "a/../../secret.jpg", "..\\secret.jpg", "/etc/hostname", "/dev/zero", "C:\\x.jpg"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(encoded(make_image(1)))
    folder = ImageFolder(folder_of(tmp_path, "1.jpg"), "set")
    with pytest.raises(LeanposeError, match=r"names the image .* which lies outside its image folder"):
        folder(name)


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    path = folder_of(tmp_path, "1.jpg", "sub/2.jpg")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "3.jpg").write_bytes(b"x")
    (path / "file.jpg").symlink_to(outside / "3.jpg")
    (path / "linked").symlink_to(outside)
    (path / "inside.jpg").symlink_to(path / "1.jpg")
    (tmp_path / "alias").symlink_to(path)
    folder = ImageFolder(tmp_path / "alias", "set")  # a link to the folder itself is the user's own
    assert folder("inside.jpg") == ImageRef(str(tmp_path / "alias" / "inside.jpg"))
    for name in ("file.jpg", "linked/3.jpg"):
        with pytest.raises(LeanposeError, match=f"is a link out of its image folder, to {outside}"):
            folder(name)
    assert ImageFolder(path, "set", ["3.jpg"])("3.jpg") == ImageRef(str(path / "3.jpg"))  # nor are links followed


def coco_set(tmp_path: Path, *names: str) -> DatasetConfig:
    content = coco_content(len(names), [person(i, i) for i in range(1, len(names) + 1)])
    for record, name in zip(content["images"], names, strict=True):
        record["file_name"] = name
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    return DatasetConfig(format="coco", images=Path("images"), annotations=Path("annotations.json"))


def test_a_coco_set_says_how_its_images_were_found(tmp_path: Path) -> None:
    folder_of(tmp_path, "1.jpg", "a/2.jpg", NFD)
    config = coco_set(tmp_path, "https://x.org/1.jpg", "a\\2.jpg", NFC)
    read = read_people(config, COCO17, tmp_path, training=True)
    assert all(os.path.isfile(p.image.path) for p in read.people)
    said = " ".join(read.summaries[0].sentences())
    for note in (LAST_PART, SLASHES, UNICODE):
        assert f"1 {note}" in said
    checked = check_data([tmp_path / "annotations.json"], images=tmp_path / "images").sets[0]
    assert len([finding for finding in checked.findings if finding.kind == "image name"]) == 3
    assert not any(finding.kind.startswith("image ") and "missing" in finding.kind for finding in checked.findings)


def test_a_coco_set_never_leaves_its_folder(tmp_path: Path) -> None:
    folder_of(tmp_path, "1.jpg")
    config = coco_set(tmp_path, "1.jpg", "../annotations.json")
    with pytest.raises(LeanposeError, match=r"names the image \.\./annotations\.json, which lies outside"):
        read_people(config, COCO17, tmp_path, training=True)
    checked = check_data([tmp_path / "annotations.json"], images=tmp_path / "images").sets[0]
    assert [finding.kind for finding in checked.findings if "outside" in finding.text] == ["image outside"]
