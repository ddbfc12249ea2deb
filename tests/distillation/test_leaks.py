"""Validation images that are, or look like, training images."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from leanpose.data.annotations import ImageRef, PoseAnnotation, PoseDataset
from leanpose.distillation import DistillationPlan, run_distillation
from leanpose.distillation.leaks import check_leaks
from leanpose.errors import LeanposeError

Plan = Callable[..., DistillationPlan]


def test_an_image_on_both_sides_is_refused(data: Path, plan: Plan, tmp_path: Path) -> None:
    shutil.copy(data / "images" / "3.jpg", data / "images" / "15.jpg")
    with pytest.raises(
        LeanposeError, match=r"1 of the 6 validation images are also in the training set, such as .*15\.jpg"
    ):
        run_distillation(plan(), tmp_path / "out", budget="1epochs", force=True)


def test_an_image_that_looks_like_a_trained_one_is_told(data: Path, tmp_path: Path) -> None:
    def people(*names: str) -> PoseDataset:
        where = (ImageRef(str(tmp_path / name)) for name in names)
        return PoseDataset("", [PoseAnnotation(i, np.zeros(4), np.zeros((17, 3)), 0, 0, 1.0) for i in where])

    photos = Path(__file__).parents[2] / "src/leanpose/demo/files/free_people/images"
    first, second, *_ = sorted(photos.iterdir())
    shutil.copy(first, tmp_path / "a.jpg")
    shutil.copy(second, tmp_path / "b.jpg")
    pixels = cv2.imread(str(first))
    assert pixels is not None
    cv2.imwrite(str(tmp_path / "small.jpg"), cv2.resize(pixels, None, fx=0.6, fy=0.6), [cv2.IMWRITE_JPEG_QUALITY, 60])
    (sentence,) = check_leaks(people("a.jpg"), people("small.jpg", "b.jpg"), tmp_path)
    assert re.match(r"1 of the 2 validation images look like training images", sentence)
    assert f"{tmp_path / 'small.jpg'} like {tmp_path / 'a.jpg'}" in sentence
    (tmp_path / "small.jpg").unlink()
    assert check_leaks(people("a.jpg"), people("small.jpg", "b.jpg"), tmp_path) == [sentence], "what was found is kept"
    (tmp_path / "leaks.json").unlink()
    assert check_leaks(people("a.jpg"), people("small.jpg", "b.jpg"), tmp_path) == [], "nothing to compare with"
