"""The demo, small: every part of it runs, and prints and reports what was measured."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from leanpose.data.images import read_image
from leanpose.demo import demo
from leanpose.errors import LeanposeError
from leanpose.files import load_json
from leanpose.inference.estimator import DEFAULT_MODEL
from leanpose.models.registry import create_model
from leanpose.training.recipe import Recipe, load_recipe
from leanpose.weights import save_model
from tiny import TINY_MODEL


@pytest.fixture
def tiny_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo with a tiny student and a tiny teacher; returns the folder to write to."""
    teacher = tmp_path / "teacher.safetensors"
    save_model(create_model("tokenpose_s_v1", **TINY_MODEL), teacher, training_data=[], licence="none", metrics={})
    recipe = yaml.safe_load(demo.RECIPE.read_text())
    recipe |= {"model": "tokenpose_s_v1", "model_options": dict(TINY_MODEL), "init_from": None, "codec": {}}
    recipe["rows"]["distilled"]["distillation.teacher"] = str(teacher)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(demo, "RECIPE", tmp_path / "recipe.yaml")
    monkeypatch.setattr("leanpose.report.evaluation.DRAWS", 4)
    return tmp_path / "out"


def test_the_demo_looks_trains_measures_and_reports(
    tiny_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = tmp_path / "mine.png"
    cv2.imwrite(str(photo), np.full((64, 48, 3), 90, np.uint8))
    result = demo.run_demo(tiny_demo, photo, minutes=0.01)
    assert result.report == tiny_demo / "report.html"

    printed = capsys.readouterr().out
    training = printed.index("Training the same student twice on 165 labelled people")
    for name in ("mine", *(Path(name).stem for name in demo.GROUP_PHOTOS), "astronaut"):
        path = tiny_demo / "photos" / f"{name}.png"
        assert 0 <= printed.index(str(path)) < training, "the photos come before any training"
        assert read_image(path).shape[2] == 3
    assert "0 people in mine.png" in printed

    first, second, *_ = result.summary
    assert "86 unseen people in 20 photos" in first
    assert "from the labels alone" in first
    assert any(verdict in first for verdict in ("distilled wins", "made it worse", "no gain shown"))
    assert "Both took 20 steps from the same start" in second
    assert (demo.WHY_NO_GAIN in result.summary) == ("distilled wins" not in first)

    page = result.report.read_text()
    assert (
        page.count("data:image/jpeg;base64,") == 6
    )  # the students' photos, the photo, three of the demo's, the portrait
    assert all(
        word in page for word in ("baseline", "distilled", "mine.png", "staticflickr.com", "CC BY 4.0", *result.summary)
    )
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "https://matplotlib.org", ""
    ).replace("http://creativecommons.org", ""), "a self-contained page fetches nothing"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "GROUP_PHOTOS", ())
    monkeypatch.setattr(demo, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(tiny_demo, None, minutes=0.01)
    photos = [path.name for path in (tiny_demo / "photos").iterdir()]
    assert (photos, (tiny_demo / "baseline").exists()) == (["astronaut.png"], False), "an earlier demo is replaced"


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "state.pt").write_bytes(b"a run")
    with pytest.raises(LeanposeError, match="no earlier demo"):
        demo.run_demo(tmp_path, None, minutes=0.01)
    assert (tmp_path / "baseline" / "state.pt").read_bytes() == b"a run"


def test_a_photo_that_cannot_be_read_stops_the_demo_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(LeanposeError, match=r"broken\.jpg"):
        demo.run_demo(tmp_path / "out", tmp_path / "broken.jpg", minutes=0.01)
    assert not (tmp_path / "out").exists()


def test_both_students_differ_in_nothing_but_the_teacher() -> None:
    baseline, distilled = (load_recipe(demo.RECIPE, [f"row={name}"]) for name in (demo.BASELINE, demo.DISTILLED))
    assert distilled.distillation.model_dump()["teacher"] == DEFAULT_MODEL

    def rest(recipe: Recipe) -> dict[str, object]:
        return recipe.model_dump(exclude={"distillation"})

    assert rest(baseline) == rest(distilled)


def test_every_photo_that_is_shipped_may_be() -> None:
    images = {path.name for path in (demo.PEOPLE / "images").iterdir()}
    with (demo.PEOPLE / "ATTRIBUTION.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert images == rows.keys()
    assert {row["licence"] for row in rows.values()} == {"Attribution License", "No known copyright restrictions"}
    counts = {}
    for split in ("train", "val"):
        labels = load_json(demo.PEOPLE / f"{split}.json", "labels")
        names = {image["file_name"] for image in labels["images"]}
        assert names == {name for name, row in rows.items() if row["split"] == split}
        counts[split] = len(names), sum(person["num_keypoints"] > 0 for person in labels["annotations"])
    assert counts == {"train": (48, 165), "val": (20, 86)}
    assert {rows[name]["split"] for name in demo.COMPARED_PHOTOS} == {"val"}
