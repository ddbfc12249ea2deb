"""Places of crops follow the distributions of SDPose's recipe, their looks those of RTMPose's."""

from __future__ import annotations

import numpy as np
import pytest

from data_builders import STANDING
from leanpose.data.annotations import ImageRef, PoseAnnotation
from leanpose.data.augmentation import Augmentation, CropParams
from leanpose.geometry import bbox_to_center_scale
from leanpose.skeleton import COCO17

SIZE = (256, 192)
PHOTO = np.random.default_rng(0).integers(20, 235, (64, 48, 3)).astype(np.uint8)
RTMPOSE = Augmentation(hue=5, saturation=30, value=30, blur_probability=0.1, coarse_dropout_probability=1.0)
NOTHING = Augmentation(
    shift_probability=0, flip_probability=0, half_body_probability=0, scale=0, rotation_probability=0
)


def changed(augmentation: Augmentation, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The crop with a look that is drawn for it; one keypoint in the middle is labelled."""
    keypoints = np.array([[image.shape[1] / 2, image.shape[0] / 2]])
    return augmentation.sample_photometric(rng, image.shape[:2], keypoints, np.ones(1)).apply(image)


def sample(labelled: int = 17) -> PoseAnnotation:
    points = np.concatenate([STANDING, np.zeros((17, 1))], axis=1).astype(np.float32)
    points[:labelled, 2] = 2
    return PoseAnnotation(ImageRef("none.jpg"), np.array([0.0, 0.0, 40.0, 100.0]), points, 1, 1, 2000.0)


def draws(augmentation: Augmentation, count: int = 4000, labelled: int = 17) -> list[CropParams]:
    person = sample(labelled)
    return [augmentation.sample(np.random.default_rng(i), person, COCO17, SIZE) for i in range(count)]


@pytest.fixture(scope="module")
def region() -> tuple[np.ndarray, np.ndarray]:
    centers, scales = bbox_to_center_scale(sample().box[None], SIZE)
    return centers[0], scales[0]


def test_nothing_switched_on_is_the_plain_region(region: tuple[np.ndarray, np.ndarray]) -> None:
    placement = draws(NOTHING, 1)[0]
    np.testing.assert_allclose(placement.center, region[0])
    np.testing.assert_allclose(placement.scale, region[1])
    assert (placement.rotation, placement.flip) == (0.0, False)


def test_the_same_generator_gives_the_same_crop() -> None:
    a, b = draws(Augmentation(), 50), draws(Augmentation(), 50)
    assert all((x.center == y.center).all() and x[2:] == y[2:] for x, y in zip(a, b, strict=True))


def test_shift(region: tuple[np.ndarray, np.ndarray]) -> None:
    only = Augmentation(flip_probability=0, half_body_probability=0, scale=0, rotation_probability=0)
    moved = np.array([(p.center - region[0]) / region[1] for p in draws(only)])
    shifted = (moved != 0).any(axis=1)
    assert shifted.mean() == pytest.approx(0.3, abs=0.03)
    assert np.abs(moved).max() <= 0.16
    assert moved[shifted].std(axis=0) == pytest.approx(0.16 / np.sqrt(3), rel=0.05)  # uniform


def test_flip() -> None:
    assert np.mean([p.flip for p in draws(Augmentation())]) == pytest.approx(0.5, abs=0.03)


def test_scale(region: tuple[np.ndarray, np.ndarray]) -> None:
    only = Augmentation(shift_probability=0, half_body_probability=0)
    factors = np.array([p.scale / region[1] for p in draws(only)])
    np.testing.assert_allclose(factors[:, 0], factors[:, 1])
    assert factors.min() == pytest.approx(0.65)
    assert factors.max() == pytest.approx(1.35)
    assert np.mean(factors[:, 0] == factors.max()) == pytest.approx(0.159, abs=0.02)  # beyond one deviation


def test_rotation() -> None:
    angles = np.array([p.rotation for p in draws(Augmentation())])
    turned = angles[angles != 0]
    assert len(turned) / len(angles) == pytest.approx(0.6, abs=0.03)
    assert np.abs(turned).max() == pytest.approx(90)
    assert np.median(np.abs(turned)) == pytest.approx(0.674 * 45, rel=0.06)  # of a normal distribution


def test_half_body(region: tuple[np.ndarray, np.ndarray]) -> None:
    only = Augmentation(shift_probability=0, scale=0)
    placements = draws(only)
    halves = [p for p in placements if not np.allclose(p.center, region[0])]
    assert len(halves) / len(placements) == pytest.approx(0.3, abs=0.03)
    upper = np.array(COCO17.upper_body)
    is_upper = np.array([np.allclose(p.center, STANDING[upper].mean(axis=0)) for p in halves])
    lower = np.setdiff1d(np.arange(17), upper)
    assert all(
        np.allclose(p.center, STANDING[lower].mean(axis=0)) for p, up in zip(halves, is_upper, strict=True) if not up
    )
    assert is_upper.mean() == pytest.approx(0.6915, abs=0.04)  # mmpose's coin: a normal number below 0.5
    extent = np.ptp(STANDING[upper], axis=0)
    height = max(extent[1], extent[0] / 0.75)
    expected = 1.5 * np.array([height * 0.75, height])
    np.testing.assert_allclose(next(p for p, up in zip(halves, is_upper, strict=True) if up).scale, expected)


def test_half_body_needs_more_than_eight_keypoints(region: tuple[np.ndarray, np.ndarray]) -> None:
    only = Augmentation(shift_probability=0, half_body_probability=1.0)
    assert all(np.allclose(p.center, region[0]) for p in draws(only, 200, labelled=8))
    assert not any(np.allclose(p.center, region[0]) for p in draws(only, 200, labelled=9))


def test_half_body_of_points_on_one_spot_is_left_alone(region: tuple[np.ndarray, np.ndarray]) -> None:
    person = sample()
    person.keypoints[:, :2] = 5.0
    placement = Augmentation(half_body_probability=1.0, shift_probability=0).sample(
        np.random.default_rng(0), person, COCO17, SIZE
    )
    np.testing.assert_allclose(placement.center, region[0])


def test_truncated_draws_end_at_one_deviation_and_are_a_part_of_the_normal_distribution(
    region: tuple[np.ndarray, np.ndarray],
) -> None:
    placements = draws(Augmentation(truncnorm=True, shift=0.1, shift_probability=1.0, scale=0.4, rotation=80.0,
                                    rotation_probability=1.0, half_body_probability=0), 6000)  # fmt: skip
    center, scale = region
    angles = np.array([placement.rotation for placement in placements]) / 80
    factors = (np.array([placement.scale[0] for placement in placements]) / scale[0] - 1) / 0.4
    shifts = (np.array([placement.center[1] for placement in placements]) - center[1]) / (0.1 * scale[1])
    for values in (angles, factors, shifts):
        assert np.abs(values).max() <= 1.0
        assert np.std(values) == pytest.approx(0.5396, abs=0.015)  # of a standard normal between -1 and 1
        assert np.mean(np.abs(values) > 0.99) < 0.02  # nothing gathers at the ends


def looks(augmentation: Augmentation, count: int = 400, image: np.ndarray = PHOTO) -> list[np.ndarray]:
    return [changed(augmentation, np.random.default_rng(i), image) for i in range(count)]


def test_by_default_the_look_stays() -> None:
    assert all((look == PHOTO).all() for look in looks(Augmentation(), 20))


def test_the_same_generator_gives_the_same_look_and_the_photo_stays() -> None:
    before = PHOTO.copy()
    assert all((a == b).all() for a, b in zip(looks(RTMPOSE, 30), looks(RTMPOSE, 30), strict=True))
    assert (before == PHOTO).all()


def test_every_change_of_look_takes_the_same_draws() -> None:
    one, other = np.random.default_rng(5), np.random.default_rng(5)
    changed(RTMPOSE, one, PHOTO)
    changed(Augmentation(), other, PHOTO)
    assert one.random() == other.random()


def test_the_rectangle_is_black_and_of_the_right_size() -> None:
    sizes = []
    for look in looks(Augmentation(coarse_dropout_probability=1.0, coarse_dropout_size=(0.25, 0.5))):
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
    seen = np.any([(look == 0).all(axis=2) for look in looks(Augmentation(coarse_dropout_probability=1.0))], axis=0)
    assert seen.any(axis=0).all()
    assert seen.any(axis=1).all()


def test_how_often_looks_change() -> None:
    changed = [bool((look != PHOTO).any()) for look in looks(Augmentation(coarse_dropout_probability=0.3), 2000)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.04)
    blurred = [bool((look != PHOTO).any()) for look in looks(Augmentation(blur_probability=0.1), 2000)]
    assert np.mean(blurred) == pytest.approx(1 - 0.9**2, abs=0.035)
    coloured = [bool((look != PHOTO).any()) for look in looks(Augmentation(value=30), 1000)]
    assert np.mean(coloured) == pytest.approx(0.5, abs=0.06)


def test_brightness_stays_within_its_bounds_and_moves_all_pixels_alike() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    values = looks(Augmentation(value=30), 500, grey)
    means = np.array([look.mean() for look in values])
    assert all(look.std() == 0 for look in values)
    assert means.min() < 75
    assert means.max() > 125
    assert (np.abs(means - 100) <= 30).all()
    dark = looks(Augmentation(value=30), 200, np.full((8, 8, 3), 5, np.uint8))
    assert min(look.min() for look in dark) == 0  # cut, not wrapped round to white
    assert max(look.max() for look in dark) <= 35


def test_hue_goes_round() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    looked = looks(Augmentation(hue=10), 300, red)
    assert any(look[0, 0, 2] > 0 for look in looked)  # towards magenta, below 0 degrees
    assert any(look[0, 0, 1] > 0 for look in looked)  # towards yellow
    assert all(look[0, 0, 0] == 255 for look in looked)
