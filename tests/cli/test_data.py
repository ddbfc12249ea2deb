"""`leanpose data label-wholebody` prints what it found, and says in one sentence what is wrong."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from leanpose.cli.data_label import label_wholebody
from leanpose.errors import LeanposeError
from leanpose.pseudo_labels import AcceptanceThresholds


def test_its_sizes_are_those_of_the_gates() -> None:
    defaults = {name: p.default for name, p in inspect.signature(label_wholebody).parameters.items()}
    thresholds = AcceptanceThresholds()
    assert [defaults[n] for n in ("face_size", "hand_size", "person_size")] == [
        thresholds.face_size, thresholds.hand_size, thresholds.person_size
    ]  # fmt: skip


@pytest.mark.parametrize(("out", "compare"), [(None, False), (Path("out.json"), True)])
def test_it_either_writes_or_compares(out: Path | None, compare: bool) -> None:
    with pytest.raises(LeanposeError, match="either --out"):
        label_wholebody(Path("a.json"), images=Path("."), models=Path("."), out=out, compare=compare)


def test_it_labels_and_compares_real_people(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    models, data = shared / "data/pose_models", shared / "data/wholebody_mini"
    annotations = data / "annotations/coco_wholebody_sample.json"
    label_wholebody(
        annotations, images=data / "images", models=models, compare=True, contact_sheet=tmp_path / "sheet.png"
    )
    printed = capsys.readouterr().out
    assert "Against the file's own labels" in printed
    assert "big toe" in printed
    assert (tmp_path / "sheet.png").stat().st_size > 10_000

    content = json.loads(annotations.read_text())
    for record in content["annotations"]:
        for key in ("face", "foot", "lefthand", "righthand"):
            del record[f"{key}_kpts"], record[f"{key}_valid"]
    body = tmp_path / "body.json"
    body.write_text(json.dumps(content))
    with pytest.raises(LeanposeError, match="Nothing to compare with"):
        label_wholebody(body, images=data / "images", models=models, compare=True)
    label_wholebody(body, images=data / "images", models=models, out=tmp_path / "whole.json")
    printed = capsys.readouterr().out
    assert "10 people processed" in printed
    assert "body: 11 people in the file, 10 used: 1 without a labelled keypoint of the body." in printed
    labelled = json.loads((tmp_path / "whole.json").read_text())
    assert sum(record["face_valid"] for record in labelled["annotations"]) >= 4
    assert set(labelled["info"]["pseudo_labels"]["models"]) == {
        path.name for path in models.glob("mediapipe_*lite.onnx")
    } | {"mediapipe_face_landmark_468.onnx"}
