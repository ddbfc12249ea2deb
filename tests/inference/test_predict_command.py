"""`leanpose predict`, in this process and as a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from leanpose.cli import app
from leanpose.errors import LeanposeError
from leanpose.inference import estimator
from tiny import tiny_recipe
from web import serve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (120, 90, 4), np.uint8)
    Image.fromarray(noise[..., :3]).save(folder / "photo.jpg")
    Image.fromarray(noise).save(folder / "alpha.png")
    Image.fromarray(noise[..., 0]).save(folder / "grey.webp")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    (folder / "cut.jpg").write_bytes((folder / "photo.jpg").read_bytes()[:3000])
    (folder / "notes.txt").write_text("not to be looked at")
    return folder


def test_a_folder_with_broken_files_goes_on(predict, folder: Path, tmp_path: Path):
    result = predict(folder, "--detector", "whole-image")
    assert result.exit_code == 3, result.output
    out = tmp_path / "predictions"
    assert sorted(p.name for p in out.iterdir()) == ["alpha.png", "grey.webp", "photo.jpg", "poses.csv", "poses.json"]
    assert len(json.loads((out / "poses.json").read_text())) == 3
    for words in (
        "Done:     3 images, 3 people\n",
        "Skipped:  3",
        "is empty (0 bytes)",
        "truncated",
        "not an image",
        "notes.txt",
        "whole image",
    ):
        assert words in result.output
    for name in ("empty.jpg", "cut.jpg", "text.png"):
        assert result.output.count(name) == 1


def test_options(predict, folder: Path, tmp_path: Path):
    result = predict(
        f"{folder}/*.webp", folder / "photo.jpg", "--out", "o", "--no-draw", "--coco", "c.json", "--csv", "t.csv",
        "--detector", "whole-image", "--batch-size", 1, "--flip-test", "--two-pass", "--keypoint-threshold", 0.5,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "o").exists()
    assert len(json.loads((tmp_path / "c.json").read_text())) == 2
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 3


def test_conditioning_images(predict, folder: Path, tmp_path: Path):
    Image.open(folder / "photo.jpg").save(folder / "photo.png")
    result = predict(folder / "photo.jpg", folder / "photo.png", "--style", "openpose", "--keypoint-threshold", 0, "--detector", "whole-image")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "conditioning images and OpenPose JSON in predictions" in " ".join(result.output.split())
    out = tmp_path / "predictions"
    names = [f"photo_openpose{number}.{kind}" for number in ("-2", "") for kind in ("json", "png")]
    assert sorted(p.name for p in out.iterdir()) == [*names, "poses.csv", "poses.json"]
    for number in ("", "-2"):
        assert Image.open(out / f"photo_openpose{number}.png").size == (90, 120)
        content = json.loads((out / f"photo_openpose{number}.json").read_text())
        assert (content["canvas_height"], content["canvas_width"], len(content["people"])) == (120, 90, 1)


def test_boxes_from_a_file(predict, folder: Path, tmp_path: Path):
    (tmp_path / "b.json").write_text(json.dumps([{"file_name": "photo.jpg", "bbox": [5, 5, 50, 90], "score": 0.8}]))
    result = predict(folder / "photo.jpg", folder / "alpha.png", "--bbox-file", "b.json")
    assert result.exit_code == 0, result.output
    records = json.loads((tmp_path / "predictions/poses.json").read_text())
    assert [r["bbox"] for r in records] == [[5, 5, 50, 90]]
    assert "Done:     2 images, 1 person, 1 without people\n" in result.output
    assert "has none" not in result.output


def test_boxes_of_other_images_are_told(predict, folder: Path, tmp_path: Path):
    (tmp_path / "b.json").write_text(json.dumps([{"image_id": 987654, "bbox": [5, 5, 50, 90], "score": 0.8}]))
    result = predict(folder / "photo.jpg", "--bbox-file", "b.json")
    assert "has none of these images" in " ".join(result.output.split())


def test_people_are_found_without_any_option(predict, shared: Path, tmp_path: Path, folder: Path):
    photo = shared / "data/coco_mini/images/000000000785.jpg"
    result = predict(photo, folder / "photo.jpg", "--person-threshold", 0)
    assert result.exit_code == 0, result.output
    assert "People:   from rtmdet_nano_person.onnx (RTMDet)\n" in result.output
    assert "Done:     2 images, 1 person, 1 without people\n" in result.output
    (record,) = json.loads((tmp_path / "predictions/poses.json").read_text())
    x, y, w, h = record["bbox"]
    assert np.allclose([x, y, x + w, y + h], [280, 44, 499, 389], atol=15)  # the skier


def test_folders_that_may_not_be_read_are_told(predict, tmp_path: Path, refuse_folders: Callable[[str], None]):
    for name in ("in/1.png", "in/closed/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    refuse_folders("closed")
    result = predict(tmp_path / "in", "--detector", "whole-image", "--no-draw")
    assert result.exit_code == 3, result.output
    assert "Skipped:  1 unreadable folder: closed\n" in result.output
    assert "Done:     1 image, 1 person" in result.output


def test_images_of_any_size_and_kind(predict, tmp_path: Path):
    """One pixel, a strip, too many pixels, few bits of many, several pages, and two moving images of one stem."""
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    Image.new("RGB", (20_000, 2)).save(folder / "strip.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    Image.fromarray(np.full((30, 40), 4000, np.uint16)).save(folder / "deep.png")
    frames = [Image.new("RGB", (40, 30), (60 * i, 0, 0)) for i in range(3)]
    for name in ("pages.tif", "walk.gif", "walk.webp"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    result = predict(folder, "--detector", "whole-image")
    assert result.exit_code == 3, result.output
    for words in (
        "Done:     4 images", "than the 25 million allowed", "scaled by that range, 0 … 4095: deep.png\n",
        "Notice:   Only the first of 3 pages is read: pages.tif\n", "walk.gif, 3 frames", "walk.webp, 3 frames",
    ):  # fmt: skip
        assert words in result.output
    names = sorted(path.name for path in (tmp_path / "predictions").iterdir())
    assert names == [
        "deep.png", "one.png", "pages.jpg", "poses.csv", "poses.json", "strip.png", "walk-2.jsonl", "walk-2.mp4",
        "walk.jsonl", "walk.mp4",
    ]  # fmt: skip


def test_uncertain_people_are_left_out_and_counted(predict, folder: Path, tmp_path: Path):
    boxes = [{"file_name": "photo.jpg", "bbox": [5, 5, 50, 90], "score": score} for score in (0.9, 0.4, 0.5)]
    (tmp_path / "b.json").write_text(json.dumps(boxes))
    assert "Hidden" not in predict(folder / "photo.jpg", "--bbox-file", "b.json").output
    scores = [record["score"] for record in json.loads((tmp_path / "predictions/poses.json").read_text())]
    between = sorted(scores)[1] + 1e-3
    result = predict(folder / "photo.jpg", "--bbox-file", "b.json", "--person-threshold", between)
    assert "Done:     1 image, 1 person\n" in result.output
    assert f"Hidden:   2 people with a score below {between:g} (see --person-threshold" in result.output
    kept = json.loads((tmp_path / "predictions/poses.json").read_text())
    assert [record["score"] for record in kept] == [max(scores)]
    assert len((tmp_path / "predictions/poses.csv").read_text().splitlines()) == 2
    result = predict(folder / "photo.jpg", "--bbox-file", "b.json", "--person-threshold", 1)
    assert "Done:     1 image, 0 people, 1 without people\n" in result.output


def test_what_was_recognised_of_a_file_is_said(predict, shared: Path, tmp_path: Path):
    folder = shared / "cases/detector-other-layout"
    result = predict(folder / "p.jpg", "--detector", folder / "detr.onnx", "--person-threshold", 0)
    assert result.exit_code == 0, result.output
    assert "from detr.onnx (DETR)" in result.output
    assert "91 classes" in result.output
    assert "Done:     1 image, 1 person\n" in result.output


def test_a_detector_file(predict, shared: Path, tmp_path: Path):
    photo = shared / "data/coco_mini/images/000000000785.jpg"
    result = predict(photo, "--detector", shared / "data/detectors/yolox_nano.onnx")
    assert result.exit_code == 0, result.output
    assert "yolox_nano.onnx (YOLOX)" in result.output
    records = json.loads((tmp_path / "predictions/poses.json").read_text())
    assert [r["image_id"] for r in records] == [785]
    x, y, w, h = records[0]["bbox"]
    assert np.allclose([x, y, x + w, y + h], [280, 44, 499, 389], atol=15)  # the skier


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in/*.tiff"], "No file matches the pattern in/*.tiff"),
        (["in/empty.jpg"], "No image could be read"),
        (["absent.jpg"], "There is no file or folder absent.jpg"),
        (["in/photo.jpg", "absent.jpg"], "There is no file or folder absent.jpg"),
        (["in/photo.jpg", "--out", "in/notes.txt"], "in/notes.txt is a file; give a folder"),
        (["https://a.org/x.jpg"], "loaded only with --allow-url"),
        (["http://127.0.0.1:1/x.jpg", "--allow-url"], "http://127.0.0.1:1/x.jpg cannot be loaded: "),
        (["http://127.0.0.1:1/x.mp4"], "http://127.0.0.1:1/x.mp4 cannot be opened: "),
        (["rtsp://me:secret@127.0.0.1:1/live"], "rtsp://127.0.0.1:1/live cannot be opened: Connection refused"),
        (["in", "--detector", "absent.onnx"], "absent.onnx"),
        (["in", "--detector", "rtmdet-nan"], "did you mean 'rtmdet-nano'"),
        (["in", "--bbox-file", "absent.json"], "absent.json"),
        (["in", "--bbox-file", "absent.json", "--detector", "whole-image"], "not both"),
        (["in", "--out", "in"], "replace the originals"),
        (["in", "--device", "toaster"], "toaster"),
        (["in", "--style", "openpose", "--no-draw"], "cannot be combined with --no-draw"),
        (["in", "--resolution", "512"], "--resolution needs --style openpose"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(predict, folder: Path, arguments: list[str], words: str):
    result = predict(*arguments)
    assert result.exit_code == 1
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not list(folder.parent.glob("predictions/*"))


@pytest.mark.parametrize(
    "arguments", [["in/empty.jpg", "in/cut.jpg"], ["in/text.png"], ["in/photo.jpg", "--out", "in"], ["97"]]
)
def test_bad_inputs_are_refused_before_a_model_is_loaded(
    predict, folder: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
):
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(estimator, "PoseEstimator", forbidden)
    result = predict(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, LeanposeError)


def test_an_image_from_standard_input(small_model_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    arguments = ["predict", "-", "--model", str(small_model_file), "--device", "cpu", "--detector", "whole-image"]
    result = CliRunner().invoke(app, arguments, input=(folder / "photo.jpg").read_bytes())
    assert result.exit_code == 0, result.output
    assert "Done:     1 image, 1 person\n" in result.output
    assert sorted(p.name for p in Path("predictions").iterdir()) == ["poses.csv", "poses.json", "stdin.jpg"]
    assert json.loads(Path("predictions/poses.json").read_text())[0]["file_name"] == "stdin"


def test_files_of_one_name_are_told_apart_and_links_are_named(predict, folder: Path, tmp_path: Path):
    for place in ("a", "b"):
        (folder / place).mkdir()
        Image.open(folder / "photo.jpg").save(folder / place / "1.jpg")
    (folder / "b" / "1.jpg").rename(folder / "b" / "1\n\x1b[2J.jpg")
    (folder / "b" / "1.jpg").write_bytes((folder / "a" / "1.jpg").read_bytes())
    (folder / "a" / "2.jpg").symlink_to(folder / "a" / "1.jpg")
    result = predict("in/a", "in/b", "--detector", "whole-image")
    assert result.exit_code == 0, result.output
    assert "Skipped:  1 link to files already in the list, or to folders: a/2.jpg\n" in result.output
    out = tmp_path / "predictions"
    assert [record["file_name"] for record in json.loads((out / "poses.json").read_text())] == [
        "a/1.jpg",
        "b/1\n\x1b[2J.jpg",
        "b/1.jpg",
    ]
    assert [line.split(",")[0] for line in (out / "poses.csv").read_text().splitlines()] == [
        "image",
        "a/1.jpg",
        r"b/1\n\x1b[2J.jpg",
        "b/1.jpg",
    ]
    assert (out / "a/1.jpg").is_file()
    assert (out / "b/1.jpg").is_file()


def test_an_image_from_the_web(predict, folder: Path, tmp_path: Path):
    (folder / "unnamed").write_bytes((folder / "photo.jpg").read_bytes())
    with serve(folder, {"/unnamed": "image/jpeg"}) as address:
        refused = predict(f"{address}/photo.jpg")
        assert "--allow-url" in str(refused.exception)
        images = [f"{address}/photo.jpg?size=1", f"{address}/unnamed", f"{address}/absent.jpg"]
        result = predict(*images[:2], "--allow-url", "--detector", "whole-image")
        absent = predict(images[2], "--allow-url")
    assert result.exit_code == 0, result.output
    assert "Done:     2 images, 2 people\n" in result.output
    records = json.loads((tmp_path / "predictions/poses.json").read_text())
    assert [record["file_name"] for record in records] == ["127.0.0.1/photo_size=1.jpg", "127.0.0.1/unnamed"]
    assert (tmp_path / "predictions/127.0.0.1/photo_size=1.jpg").is_file()
    assert "HTTP Error 404" in str(absent.exception)


def test_poses_as_labels_are_evaluated_and_trained_on(
    predict, command, small_model_file: Path, folder: Path, tmp_path: Path
):
    for name in ("empty.jpg", "text.png", "cut.jpg", "notes.txt"):
        (folder / name).unlink()
    boxes = [{"file_name": name, "bbox": [5, 5, 60, 90]} for name in ("photo.jpg", "alpha.png", "grey.webp")]
    (tmp_path / "b.json").write_text(json.dumps(boxes))
    result = predict(
        "in",
        "--bbox-file",
        "b.json",
        "--as-labels",
        "labels.json",
        "--keypoint-threshold",
        0,
        "--no-draw",
        "--backend",
        "torch",
    )
    assert result.exit_code == 0, result.output
    assert f"Labels:   labels.json (COCO annotations; its images lie below {folder})\n" in result.output
    data = ["--annotations", "labels.json", "--images", "in"]
    # Of random weights some map has two peaks of almost the same height, and evaluation reads images by parts.
    how = ["--device", "cpu", "--num-workers", 0, "--no-flip-test", "--scoring", "bbox_rle", "--out", "e.json"]
    done = command("eval", small_model_file, *data, *how)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["figures"]["AP"] > 0.9  # its own labels
    assert found["settings"]["scoring"] == "bbox_rle"
    recipe = tiny_recipe(tmp_path, skeleton="body19", schedule={"epochs": 1, "warmup_steps": 0}, batch_size=3)
    source = {"format": "coco", "images": "in", "annotations": "labels.json"}
    recipe["data"] = {"root": str(tmp_path), "train": [source], "val": source, "num_workers": 0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = command("train", "recipe.yaml", "--out", "run", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/best.safetensors").is_file()


def test_as_a_real_command(
    folder: Path, small_model_file: Path, tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = [sys.executable, "-m", "leanpose", "predict", "in", "--device", "cpu", "--detector", "whole-image"]
    process += ["--model", str(small_model_file)]
    good = subprocess.run(process, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert good.returncode == 3, good.stderr
    assert "Done:     3 images, 3 people" in good.stdout
    monkeypatch.chdir(tmp_path)
    bad = command("predict", "in/cut.jpg", "--out", "bad", "--model", small_model_file)
    assert bad.returncode == 1
    assert "truncated" in bad.stdout
    assert "No image could be read" in bad.stderr
    assert "Traceback" not in bad.stderr + good.stderr
