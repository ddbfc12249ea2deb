"""Frames of a package of SLEAP. `h5py` is an extra: a stand-in has the parts of its interface that are used."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_builders import encoded, make_image
from leanpose.data.annotations import ImageRef
from leanpose.data.image_files import BrokenImageError
from leanpose.data.image_folder import exists
from leanpose.data.images import read_image
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data.sleap_package import package_frame_name
from leanpose.skeleton import Skeleton

IMAGE = np.zeros((8, 6, 3), np.uint8)
IMAGE[2:5] = (200, 100, 0)


class Dataset(list):
    def __init__(self, rows: list[Any], ndim: int = 1, **attributes: Any) -> None:
        super().__init__(rows)
        self.ndim, self.attrs = ndim, attributes


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The content of a package of frames 3 and 7, which a test may change."""
    rows = [np.frombuffer(encoded(IMAGE, ".png"), np.int8)] * 2
    content: dict[str, Any] = {"video0/video": Dataset(rows), "video0/frame_numbers": [3, 7], "metadata": Dataset([])}

    class File(dict):
        def __init__(self, path: str, mode: str) -> None:
            super().__init__(content)

        def __enter__(self) -> File:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    module = types.ModuleType("h5py")
    module.File = File  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "h5py", module)
    return content


def frame(number: int) -> ImageRef:
    return ImageRef("a.pkg.slp", package_frame_name("video0/video", number))


@pytest.mark.parametrize(
    ("order", "version", "swapped"), [("RGB", 1.2, False), ("BGR", 1.4, True), (None, 1.3, True), (None, 1.5, False)]
)
def test_a_frame_has_its_colours(package: dict[str, Any], order: str | None, version: float, swapped: bool) -> None:
    package["metadata"].attrs["format_id"] = version
    if order is not None:
        package["video0/video"].attrs["channel_order"] = order
    assert exists(frame(7))
    assert (read_image(frame(7)) == (IMAGE[..., ::-1] if swapped else IMAGE)).all()


def test_frames_that_are_not_there_or_are_no_images_are_broken(package: dict[str, Any]) -> None:
    with pytest.raises(BrokenImageError, match=r"Cannot read the frame a\.pkg\.slp:video0/000004\.png"):
        read_image(frame(4))
    package["video0/video"].ndim = 4
    with pytest.raises(BrokenImageError, match="is not an encoded image"):
        read_image(frame(3))
    del package["video0/video"]
    with pytest.raises(BrokenImageError, match="Cannot read the frame"):
        read_image(frame(3))


def test_a_package_of_two_videos_written_by_sleap_io(tmp_path: Path) -> None:
    """Needs the extra itself."""
    sleap_io = pytest.importorskip("sleap_io")
    skeleton = sleap_io.Skeleton(["nose", "earL", "earR"], symmetries=[("earL", "earR")])
    frames = []
    for name in ("a", "b"):  # whose images have the same names
        (tmp_path / name).mkdir()
        files = [tmp_path / name / f"{number}.png" for number in range(3)]
        for number, file in enumerate(files):
            file.write_bytes(encoded(make_image(number + len(frames), 32, 40), ".png"))
        video = sleap_io.Video.from_filename([str(file) for file in files])
        points = [[1, 2], [np.nan, np.nan], [5 + len(frames), 6]]
        labelled = sleap_io.Instance.from_numpy(points, skeleton=skeleton)
        predicted = sleap_io.PredictedInstance.from_numpy(points, skeleton=skeleton, point_scores=np.ones(3), score=1)
        frames.append(sleap_io.LabeledFrame(video=video, frame_idx=2, instances=[labelled, predicted]))
    sleap_io.save_slp(sleap_io.Labels(frames), str(tmp_path / "links.slp"))
    sleap_io.save_slp(sleap_io.Labels(frames), str(tmp_path / "all.pkg.slp"), embed="user")
    mouse = Skeleton.from_dict({"name": "mouse", "keypoints": ["nose", "left_ear", "right_ear"]})
    for name in ("links.slp", "all.pkg.slp"):
        read = read_people(DatasetConfig(format="auto", annotations=tmp_path / name), mouse, training=True)
        assert [p.keypoints.tolist() for p in read.people] == [
            [[1, 2, 2], [0, 0, 0], [x, 6, 2]] for x in (5, 6)
        ]  # fmt: skip
        assert [(read_image(p.image) == make_image(2 + n, 32, 40)).all() for n, p in enumerate(read.people)] == [
            True,
            True,
        ]
        assert read.summaries[0].left_out["predicted, not labelled"] == 2
