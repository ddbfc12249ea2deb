"""Which person is looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from leanpose.choices import Encoding
from leanpose.codecs.heatmap import HeatmapCodec
from leanpose.errors import LeanposeError
from leanpose.explanation.person import check_box, choose_box, look_at
from leanpose.geometry import apply_affine, bbox_to_center_scale, warp_matrix
from leanpose.inference.detectors import Detections, Detector
from leanpose.models.registry import create_model
from tiny import TINY_MODEL

PHOTO = np.random.default_rng(0).integers(0, 255, (120, 90, 3), np.uint8)


class Finds(Detector):
    """Finds the boxes it was made with."""

    name = "finds"

    def __init__(self, *boxes: tuple[float, ...]) -> None:
        self.boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        return [(self.boxes, np.ones(len(self.boxes)))]


SMALL, LARGE = (0.0, 0.0, 10.0, 20.0), (20.0, 10.0, 60.0, 100.0)


def test_people_are_counted_from_the_largest():
    assert choose_box(PHOTO, Finds(SMALL, LARGE))[0].tolist() == list(LARGE)
    box, people = choose_box(PHOTO, Finds(SMALL, LARGE), person=1)
    assert (box.tolist(), people) == (list(SMALL), 2)


def test_too_few_people_are_said():
    with pytest.raises(LeanposeError, match=r"no person 0.* detects 0"):
        choose_box(PHOTO, Finds())
    with pytest.raises(LeanposeError, match=r"no person 1 .* detects 1"):
        choose_box(PHOTO, Finds(SMALL), person=1)
    with pytest.raises(LeanposeError, match=r"no person 5 .* detects 2"):
        choose_box(PHOTO, Finds(SMALL, LARGE), person=5)


@pytest.mark.parametrize("box", [(10, 10, 10, 20), (20, 0, 10, 20), (0, 0, float("nan"), 5), (0, 0, float("inf"), 5)])
def test_a_box_that_is_none_is_refused(box: tuple[float, ...]):
    with pytest.raises(LeanposeError, match="is not x1 y1 x2 y2"):
        check_box(PHOTO, box)


def test_a_box_outside_is_refused_and_one_over_the_edge_is_not():
    with pytest.raises(LeanposeError, match="pixels of the image, which is 90 wide and 120 high"):
        check_box(PHOTO, (90, 0, 100, 50))
    assert check_box(PHOTO, (-10, -10, 50, 50)).tolist() == [-10, -10, 50, 50]


def test_the_shown_crop_is_the_models_in_more_pixels():
    model = create_model("sdpose_t", **TINY_MODEL)
    view = look_at(PHOTO, np.array(LARGE), model)
    assert view.images.shape == (1, 3, 64, 48)
    assert view.shown.shape == (384, 288, 3)
    fine = model.normalize(torch.from_numpy(view.shown[None])).numpy()[0]
    seen = view.images.numpy()[0]
    assert np.corrcoef(fine[:, ::6, ::6].ravel(), seen.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("encoding", ["unbiased", "udp"])
def test_a_place_in_the_models_crop_is_the_same_place_in_the_shown_one(encoding: Encoding):
    model = create_model("sdpose_t", **TINY_MODEL)
    model.codec = HeatmapCodec((64, 48), (16, 12), encoding=encoding)
    warp = "udp" if encoding == "udp" else "msra"
    assert model.codec.warp == warp
    view = look_at(PHOTO, np.array(LARGE), model)
    center, scale = (value[0] for value in bbox_to_center_scale(np.array([LARGE]), (64, 48)))
    photo = np.array([[20.0, 10.0], [60.0, 100.0], [33.3, 71.9], [-4.0, 130.0]])
    seen, shown = (apply_affine(warp_matrix(center, scale, size, warp=warp), photo) for size in ((64, 48), (384, 288)))
    assert np.allclose(view.to_shown(seen), shown)
