"""The demo, small: every part of it runs and the report holds what was measured."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from leanpose import demo
from leanpose.errors import LeanposeError


def test_the_demo_draws_trains_measures_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TRAIN_IMAGES", 200)
    monkeypatch.setattr(demo, "VAL_IMAGES", 16)
    photo = tmp_path / "mine.png"
    cv2.imwrite(str(photo), np.full((64, 48, 3), 90, np.uint8))
    result = demo.run_demo(tmp_path / "out", photo, minutes=0.01)
    page = result.report.read_text()
    assert result.report == tmp_path / "out" / "report.html"
    assert any("self-distillation" in sentence and "AP" in sentence for sentence in result.summary)
    assert "plain" in page
    assert "distilled" in page
    assert "mine.png" in page
    assert page.count("data:image/jpeg;base64,") == 3  # the students' pictures, the photo, the portrait
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "https://matplotlib.org", ""
    ).replace("http://creativecommons.org", ""), "a self-contained page fetches nothing"
    again = demo.run_demo(tmp_path / "out", None, minutes=0.01)
    assert again.report.is_file(), "an earlier demo in the folder is replaced"


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "state.pt").write_bytes(b"a run")
    with pytest.raises(LeanposeError, match="no earlier demo"):
        demo.run_demo(tmp_path, None, minutes=0.01)
    assert (tmp_path / "plain" / "state.pt").read_bytes() == b"a run"


def test_a_photo_that_cannot_be_read_stops_the_demo_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(LeanposeError, match=r"broken\.jpg"):
        demo.run_demo(tmp_path / "out", tmp_path / "broken.jpg", minutes=0.01)
    assert not (tmp_path / "out").exists()
