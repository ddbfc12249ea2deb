"""`leanpose predict` with videos, in this process and as a real one that is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from clips import audio_of, frame_times, write_clip
from leanpose.cli.predict import _summarise_clip
from leanpose.data.inputs import Clip
from leanpose.openpose import controlnet_size
from leanpose.video import reader as reader_file
from leanpose.video.predict import VideoOutcome
from web import serve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    write_clip(folder / "clip.mov", frames=6, audio="aac")
    write_clip(folder / "deep/clip.mkv", frames=4)
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(folder / "photo.jpg")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("not to be looked at")
    return folder


def test_a_folder_of_images_and_videos(predict, folder: Path, tmp_path: Path):
    result = predict(folder)
    assert result.exit_code == 3, result.output
    out = tmp_path / "predictions"
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert written == [
        "clip.jsonl", "clip.mp4", "deep/clip.jsonl", "deep/clip.mp4", "photo.jpg", "poses.csv", "poses.json",
    ]  # fmt: skip
    for words in ("Images:   1", "Videos:   3", "notes.txt", "clip.mov, 6 frames", "clip.mkv, 4 frames", "busy"):
        assert words in result.output
    assert "empty.mp4 is empty (0 bytes)" in result.output
    head, *frames = [json.loads(line) for line in (out / "clip.jsonl").read_text().splitlines()]
    assert head["skeleton"] == "body19"
    assert len(frames) == len(frame_times(out / "clip.mp4")) == 6
    assert audio_of(out / "clip.mp4")[0] == "aac"
    assert audio_of(out / "deep/clip.mp4")[0] == ""


def test_options(predict, folder: Path, tmp_path: Path):
    result = predict(
        folder / "clip.mov", "--out", "o", "--duration", 0.1, "--no-audio", "--detect-every", 2, "--no-smooth"
    )
    assert result.exit_code == 0, result.output
    assert len(frame_times(tmp_path / "o/clip.mp4")) == 3
    assert audio_of(tmp_path / "o/clip.mp4")[0] == ""
    result = predict(folder / "clip.mov", "--out", "lines", "--no-draw")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "lines").iterdir()] == ["clip.jsonl"]
    assert len((tmp_path / "lines/clip.jsonl").read_text().splitlines()) == 7
    result = predict(folder / "deep/clip.mkv", write_clip(folder / "deep/b.mp4"), "--out", folder / "deep", "--no-draw")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (folder / "deep").iterdir()) == ["b.jsonl", "b.mp4", "clip.jsonl", "clip.mkv"]


def test_frames_for_controlnet(predict, folder: Path, tmp_path: Path):
    result = predict(
        folder / "clip.mov",
        folder / "empty.mp4",
        "--style",
        "openpose",
        "--resolution",
        128,
        "--detector",
        "whole-image",
    )
    assert result.exit_code == 3, result.output  # of the empty one nothing is written
    out = tmp_path / "predictions"
    assert sorted(path.name for path in out.iterdir()) == ["clip.jsonl", "clip.mp4", "clip_openpose"]
    assert f"{Path('predictions/clip_openpose')} (OpenPose JSON a frame)" in result.output
    lines = [json.loads(line) for line in (out / "clip.jsonl").read_text().splitlines()]
    files = [json.loads(path.read_text()) for path in sorted((out / "clip_openpose").iterdir())]
    assert len(files) == len(frame_times(out / "clip.mp4")) == len(lines) - 1 == 6
    size = lines[0]["height"], lines[0]["width"]
    canvas = controlnet_size(size, 128)
    assert canvas != size
    with av.open(str(out / "clip.mp4")) as copy:
        assert (copy.streams.video[0].height, copy.streams.video[0].width) == canvas
    for line, content in zip(lines[1:], files, strict=True):
        assert (content["canvas_height"], content["canvas_width"]) == canvas
        assert len(content["people"]) == len(line["people"]) == 1


def test_frames_for_comfyui(predict, folder: Path, tmp_path: Path):
    result = predict(folder / "clip.mov", "--style", "comfyui", "--detector", "whole-image")
    assert result.exit_code == 0, result.output
    out = tmp_path / "predictions"
    assert sorted(path.name for path in out.iterdir()) == ["clip.jsonl", "clip.mp4", "clip_comfyui.json"]
    assert f"{Path('predictions/clip_comfyui.json')} (POSE_KEYPOINT, all frames)" in result.output
    lines = [json.loads(line) for line in (out / "clip.jsonl").read_text().splitlines()]
    frames = json.loads((out / "clip_comfyui.json").read_text())
    assert len(frames) == len(frame_times(out / "clip.mp4")) == len(lines) - 1 == 6
    for line, frame in zip(lines[1:], frames, strict=True):
        assert (frame["canvas_height"], frame["canvas_width"]) == (lines[0]["height"], lines[0]["width"])
        assert len(frame["people"]) == len(line["people"]) == 1


def test_a_camera(predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def address(number: int) -> tuple[str, str]:
        asked.append(number)
        return "testsrc=size=64x48:rate=30,realtime", "lavfi"

    monkeypatch.setattr(reader_file, "camera_address", address)
    result = predict(2, "--duration", 0.5)
    assert result.exit_code == 0, result.output
    assert set(asked) == {2}
    assert "camera2" in result.output
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == ["camera2.jsonl", "camera2.mp4"]


def test_a_video_from_the_web(predict, folder: Path, tmp_path: Path):
    write_clip(folder / "sound.mkv", frames=5, audio="aac")
    with serve(folder) as address:
        result = predict(f"{address}/deep/clip.mkv", f"{address}/sound.mkv?x=1")
        absent = predict(f"{address}/absent.mkv")
        text = predict(f"{address}/notes.txt")
    assert result.exit_code == 0, result.output
    out = tmp_path / "predictions" / "127.0.0.1"
    assert len((out / "deep/clip.jsonl").read_text().splitlines()) == len(frame_times(out / "deep/clip.mp4")) + 1 == 5
    assert audio_of(out / "sound_x=1.mp4")[0] == "aac"
    assert "absent.mkv cannot be opened: Server returned 404 Not Found" in str(absent.exception)
    assert "notes.txt holds no video that can be read" in str(text.exception)


def test_the_summary_says_who_is_hidden(capsys: pytest.CaptureFixture[str]):
    _summarise_clip(Clip(Path("a.mp4"), "a.mp4"), VideoOutcome(frames=1, track_ids={4}, uncertain=1, elapsed=1), 0.1)
    printed = capsys.readouterr().out
    assert "Done:     a.mp4, 1 frame, 1 person, in 1.0 s" in printed
    assert "Hidden:   1 person in all frames with a score below 0.1 (see --person-threshold)\n" in printed


def test_two_videos_of_one_name(predict, folder: Path, tmp_path: Path):
    write_clip(folder / "clip.mp4", frames=2)
    result = predict(folder / "clip.mov", folder / "clip.mp4", "--duration", 0.1)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "predictions").iterdir())
    assert names == ["clip-2.jsonl", "clip-2.mp4", "clip.jsonl", "clip.mp4"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in/empty.mp4"], "is empty (0 bytes)"),
        (["absent.mp4"], "There is no file or folder absent.mp4"),
        (["in/text.mp4", "in/empty.mp4"], "No video could be read"),
        (["in/clip.mov", "--bbox-file", "absent.json"], "--bbox-file is for images"),
        (["in/clip.mov", "--duration", "0"], "No frame of"),
        (["in/clip.mov", "--duration", "inf"], "0 or more, not inf"),
        (["in/clip.mov", "--csv", "poses.csv"], "--coco, --csv and --as-labels are for images"),
        (["in/clip.mov", "--as-labels", "labels.json"], "--coco, --csv and --as-labels are for images"),
        (["in/clip.mov", "--coco", "poses.json"], "--coco, --csv and --as-labels are for images"),
        (["in/deep/clip.mkv", "in/empty.mp4", "--out", "in"], "replace the originals"),
        (["97"], "amera"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(predict, folder: Path, arguments: list[str], words: str):
    (folder / "text.mp4").write_text("no video")
    result = predict(*arguments)
    assert result.exit_code == 1
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send")
def test_sigterm_keeps_what_was_found(small_model_file: Path, tmp_path: Path):
    write_clip(tmp_path / "long.mp4", frames=1000, audio="aac")
    command = [
        sys.executable,
        "-m",
        "leanpose",
        "predict",
        "long.mp4",
        "--model",
        str(small_model_file),
        "--device",
        "cpu",
        "--detector",
        "whole-image",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    running = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    lines, deadline = tmp_path / "predictions/long.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and running.poll() is None:
        if any(path.read_text().count("\n") > 10 for path in lines.parent.glob(".long.*.partial.jsonl")):
            break
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGTERM)
    printed, errors = running.communicate(timeout=120)
    assert running.returncode == 143, errors
    assert "Stopped:  long.mp4 after" in printed
    assert "Traceback" not in errors
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    times = frame_times(tmp_path / "predictions/long.mp4")
    assert 10 <= len(times) == len(found) - 1 < 1000
    assert audio_of(tmp_path / "predictions/long.mp4")[2] == pytest.approx(times[-1], abs=0.2)
    assert sorted(path.name for path in lines.parent.iterdir()) == ["long.jsonl", "long.mp4"]
