"""Crops change their look as RTMPose's recipe says, by a generator of their own."""

from __future__ import annotations

import numpy as np
import pytest

from leanpose.data.appearance import PhotometricAugmentation

PHOTO = np.random.default_rng(0).integers(20, 235, (64, 48, 3)).astype(np.uint8)
RTMPOSE = PhotometricAugmentation(hue=5, saturation=30, value=30, blur_probability=0.1, coarse_dropout_probability=1.0)


def looks(appearance: PhotometricAugmentation, count: int = 400, image: np.ndarray = PHOTO) -> list[np.ndarray]:
    return [appearance.apply(np.random.default_rng(i), image) for i in range(count)]


def test_by_default_nothing_changes() -> None:
    assert all((look == PHOTO).all() for look in looks(PhotometricAugmentation(), 20))


def test_the_same_generator_gives_the_same_look_and_the_photo_stays() -> None:
    before = PHOTO.copy()
    assert all((a == b).all() for a, b in zip(looks(RTMPOSE, 30), looks(RTMPOSE, 30), strict=True))
    assert (before == PHOTO).all()


def test_every_call_takes_the_same_draws() -> None:
    one, other = np.random.default_rng(5), np.random.default_rng(5)
    RTMPOSE.apply(one, PHOTO)
    PhotometricAugmentation().apply(other, PHOTO)
    assert one.random() == other.random()


def test_the_rectangle_is_black_and_of_the_right_size() -> None:
    sizes = []
    for look in looks(PhotometricAugmentation(coarse_dropout_probability=1.0, coarse_dropout_size=(0.25, 0.5))):
        black = (look == 0).all(axis=2)
        rows, columns = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
        hole = black[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert hole.all()
        assert (look[~black] == PHOTO[~black]).all()
        sizes.append(hole.shape)
    heights, widths = np.array(sizes).T
    assert (heights.min(), heights.max()) == (16, 31)
    assert (widths.min(), widths.max()) == (12, 23)


def test_the_rectangle_reaches_every_border() -> None:
    seen = np.any(
        [(look == 0).all(axis=2) for look in looks(PhotometricAugmentation(coarse_dropout_probability=1.0))], axis=0
    )
    assert seen.any(axis=0).all()
    assert seen.any(axis=1).all()


def test_how_often() -> None:
    changed = [
        bool((look != PHOTO).any()) for look in looks(PhotometricAugmentation(coarse_dropout_probability=0.3), 2000)
    ]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.04)
    blurred = [bool((look != PHOTO).any()) for look in looks(PhotometricAugmentation(blur_probability=0.1), 2000)]
    assert np.mean(blurred) == pytest.approx(1 - 0.9**2, abs=0.035)
    coloured = [bool((look != PHOTO).any()) for look in looks(PhotometricAugmentation(value=30), 1000)]
    assert np.mean(coloured) == pytest.approx(0.5, abs=0.06)


def test_brightness_stays_within_its_bounds_and_moves_all_pixels_alike() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    values = looks(PhotometricAugmentation(value=30), 500, grey)
    means = np.array([look.mean() for look in values])
    assert all(look.std() == 0 for look in values)
    assert means.min() < 75
    assert means.max() > 125
    assert (np.abs(means - 100) <= 30).all()
    dark = looks(PhotometricAugmentation(value=30), 200, np.full((8, 8, 3), 5, np.uint8))
    assert min(look.min() for look in dark) == 0  # cut, not wrapped round to white
    assert max(look.max() for look in dark) <= 35


def test_hue_goes_round() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    looked = looks(PhotometricAugmentation(hue=10), 300, red)
    assert any(look[0, 0, 2] > 0 for look in looked)  # towards magenta, below 0 degrees
    assert any(look[0, 0, 1] > 0 for look in looked)  # towards yellow
    assert all(look[0, 0, 0] == 255 for look in looked)
