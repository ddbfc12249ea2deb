"""A video's people as OpenPose's JSON, a file per frame, or as ComfyUI's list of frames; scaled with the canvas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from leanpose.errors import LeanposeError
from leanpose.inference.results import PoseResult
from leanpose.openpose import conditioning_image
from leanpose.openpose.frames import OpenPoseWriter, frames_file, frames_folder, open_comfyui, open_openpose
from leanpose.skeleton import BODY19

SIZE = (96, 128)
FRAME = np.zeros((*SIZE, 3), np.uint8)


def poses_of(people: int, seed: int = 0) -> PoseResult:
    rng = np.random.default_rng(seed)
    points = rng.uniform((5, 5), (120, 90), (people, len(BODY19), 2))
    ones = np.ones((people, len(BODY19)))
    return PoseResult(points, ones, np.zeros((people, 4)), np.ones(people), BODY19, track_ids=np.arange(people))


def body(content: dict, person: int = 0) -> np.ndarray:
    return np.array(content["people"][person]["pose_keypoints_2d"]).reshape(18, 3)


@pytest.mark.parametrize(("resolution", "canvas"), [(None, SIZE), (192, (192, 256)), (64, (64, 64))])
def test_points_and_canvas_are_scaled_alike(tmp_path: Path, resolution: int | None, canvas: tuple[int, int]) -> None:
    people = [poses_of(2), poses_of(0), poses_of(1, 5)]
    with open_openpose(tmp_path / "walk.mp4", resolution=resolution) as writer:
        assert writer.canvas(SIZE) == canvas
        drawn = [writer(FRAME, poses) for poses in people]
        assert not frames_folder(tmp_path / "walk.mp4").exists()
    files = sorted(frames_folder(tmp_path / "walk.mp4").iterdir())
    assert [file.name for file in files] == [f"walk_{number:012d}_keypoints.json" for number in range(3)]
    for file, poses, pixels in zip(files, people, drawn, strict=True):
        content = json.loads(file.read_text())
        assert (content["canvas_height"], content["canvas_width"]) == canvas == pixels.shape[:2]
        assert len(content["people"]) == len(poses)
        np.testing.assert_array_equal(pixels, conditioning_image(poses, SIZE, resolution=resolution))
        for person in range(len(poses)):
            points = poses["nose"].xy[person], poses["left_wrist"].xy[person]
            scale = np.array(canvas[::-1]) / SIZE[::-1]
            expected = [(point + 0.5) * scale - 0.5 for point in points]
            np.testing.assert_allclose(body(content, person)[[0, 7], :2], expected, atol=1e-3)
            assert (body(content, person)[[0, 7], 2] == 1).all()  # ControlNet's readers drop anything below


@pytest.mark.parametrize(("resolution", "canvas"), [(None, SIZE), (192, (192, 256))])
def test_comfyui_gets_a_list_with_a_frame_for_each_image(
    tmp_path: Path, resolution: int | None, canvas: tuple[int, int]
) -> None:
    people = [poses_of(2), poses_of(0), poses_of(1, 5)]
    with open_comfyui(tmp_path / "walk.mp4", resolution=resolution) as writer:
        drawn = [writer(FRAME, poses) for poses in people]
        assert not writer.place.exists()
    assert writer.place == frames_file(tmp_path / "walk.mp4") == tmp_path / "walk_comfyui.json"
    frames = json.loads(writer.place.read_text())
    assert frames == [poses.resized(SIZE, canvas).to_comfyui(image_size=canvas) for poses in people]
    assert [len(frame["people"]) for frame in frames] == [2, 0, 1]
    for frame, poses, pixels in zip(frames, people, drawn, strict=True):
        assert (frame["canvas_height"], frame["canvas_width"]) == canvas == pixels.shape[:2]
        np.testing.assert_array_equal(pixels, conditioning_image(poses, SIZE, resolution=resolution))
    with open_comfyui(tmp_path / "still.mp4"):
        pass
    assert json.loads((tmp_path / "still_comfyui.json").read_text()) == []
    with pytest.raises(ValueError, match="not enough"), open_comfyui(tmp_path / "walk.mp4") as writer:
        _, _ = [writer(FRAME, people[0])]  # fails behind the first frame
    assert json.loads(writer.place.read_text()) == frames
    assert sorted(path.name for path in tmp_path.iterdir()) == ["still_comfyui.json", "walk_comfyui.json"]


def test_an_earlier_result_stays_until_another_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "walk.mp4"
    for count in (3, 2):
        with open_openpose(target) as writer:
            for _ in range(count):
                writer(FRAME, poses_of(1))
        assert len(list(frames_folder(target).iterdir())) == count
    with pytest.raises(ValueError, match="not enough"), open_openpose(target) as writer:
        _, _ = [writer(FRAME, poses_of(1))]  # fails behind the first frame
    assert len(list(frames_folder(target).iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["walk_openpose"]


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    folder = frames_folder(tmp_path / "walk.mp4")
    folder.mkdir()
    (folder / "mine.txt").write_text("")
    with (
        pytest.raises(LeanposeError, match="contains other files than OpenPose's JSON"),
        open_openpose(tmp_path / "walk.mp4"),
    ):
        pass
    assert (folder / "mine.txt").exists()
    with pytest.raises(LeanposeError, match="are 131072 pixels long; choose a lower --resolution"):
        OpenPoseWriter(tmp_path, tmp_path / "strip.mp4", resolution=512).canvas((1, 256))
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(LeanposeError, match=r"Cannot write .*(Not a directory|File exists)"),
        open_openpose(tmp_path / "file" / "a.mp4"),
    ):
        pass
