"""The augmentation's distributions are those of SDPose's recipe."""

from __future__ import annotations

import numpy as np
import pytest

from data_builders import STANDING
from leanpose.data.augment import Augmentation, CropParams
from leanpose.data.sample import ImageRef, PoseAnnotation
from leanpose.geometry import bbox_to_center_scale
from leanpose.skeleton import COCO17

SIZE = (256, 192)
NOTHING = Augmentation(
    shift_probability=0, flip_probability=-1, half_body_probability=0, scale=0, rotation_probability=-1
)


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
    only = Augmentation(flip_probability=-1, half_body_probability=0, scale=0, rotation_probability=-1)
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
    assert is_upper.mean() == pytest.approx(0.6915, abs=0.04)  # the toolbox's coin: a normal number below 0.5
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
