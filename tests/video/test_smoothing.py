"""The One-Euro filter: equal to the paper's formulas, calm at rest, quick in motion, blind to sizes and gaps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanpose.errors import LeanposeError
from leanpose.inference.results import PoseResult
from leanpose.skeleton import Skeleton
from leanpose.video.smoothing import OneEuro, PoseSmoother

SKELETON = Skeleton("two", ("a", "b"), (), (0.05, 0.05))


def pose(
    points: np.ndarray, *, scores: float | np.ndarray = 1.0, ids: list[int] | None = None, size: float = 100.0
) -> PoseResult:
    """People with these points (P, 2, 2) in boxes of `size` × `size` pixels."""
    people = len(points)
    return PoseResult(
        np.asarray(points, np.float64), np.broadcast_to(np.asarray(scores, float), (people, 2)).copy(),
        np.tile([0.0, 0.0, size, size], (people, 1)), np.ones(people), SKELETON,
        np.array(ids if ids is not None else range(1, people + 1), int),
    )  # fmt: skip


def run(path: np.ndarray, times: np.ndarray, settings: OneEuro, *, size: float = 100.0) -> np.ndarray:
    """One person's first point filtered along a path (T, 2)."""
    smoother = PoseSmoother(settings)
    steps = zip(path, times, strict=True)
    return np.array([smoother(pose(np.array([[at, at]]), size=size), float(t)).keypoints[0, 0] for at, t in steps])


def reference(values: np.ndarray, times: np.ndarray, settings: OneEuro, size: float) -> list[float]:
    """The paper's algorithm for one number, step by step; speeds count in sizes of the person."""

    def alpha(cutoff: float, step: float) -> float:
        return 1 / (1 + 1 / (2 * math.pi * cutoff) / step)

    x_hat, dx_hat, out = float(values[0]), 0.0, [float(values[0])]
    for i in range(1, len(values)):
        step = float(times[i] - times[i - 1])
        dx = (float(values[i]) - x_hat) / step
        a = alpha(settings.derivative_cutoff, step)
        dx_hat = a * dx + (1 - a) * dx_hat
        a = alpha(settings.min_cutoff + settings.beta * abs(dx_hat) / size, step)
        x_hat = a * float(values[i]) + (1 - a) * x_hat
        out.append(x_hat)
    return out


@given(
    st.lists(st.tuples(st.floats(-500, 500), st.floats(0.001, 2.0)), min_size=2, max_size=20),
    st.floats(0.1, 10),
    st.floats(0, 50),
    st.floats(0.1, 10),
)
@settings(max_examples=60)
def test_the_papers_formulas(steps: list, min_cutoff: float, beta: float, derivative_cutoff: float):
    values, times = np.array([v for v, _ in steps]), np.cumsum([s for _, s in steps])
    chosen = OneEuro(min_cutoff, beta, derivative_cutoff)
    path = np.column_stack([values, np.full(len(values), 7.0)])  # along x only, so that the speed is that of x
    filtered = run(path, times, chosen, size=80.0)
    assert filtered[:, 0] == pytest.approx(reference(values, times, chosen, 80.0), abs=1e-6)
    assert filtered[:, 1] == pytest.approx(7.0)


def test_a_constant_stays_constant():
    times = np.cumsum(np.random.default_rng(0).uniform(0.001, 0.3, 40))
    assert run(np.tile([12.5, -3.0], (40, 1)), times, OneEuro()) == pytest.approx(np.tile([12.5, -3.0], (40, 1)))


def test_at_rest_the_jitter_goes_and_in_motion_the_lag_is_small():
    rng = np.random.default_rng(1)
    times = np.arange(300) / 30
    noise = rng.normal(0, 1.5, (300, 2))  # 1.5 % of the person's size
    still = run(50 + noise, times, OneEuro())
    assert np.diff(still[30:], axis=0).std() < 0.4 * np.diff(noise[30:], axis=0).std()
    assert np.abs(still[30:].mean(axis=0) - 50).max() < 0.5
    walking = 100.0 * times[:, None] * np.array([1.0, 0.0])  # its own size a second
    lag = (walking - run(walking, times, OneEuro()))[30:, 0]
    assert (lag > 0).all()
    assert lag.max() < 0.02 * 100  # less than a frame's way, 3.3 pixels


def test_a_higher_beta_lags_less_and_a_lower_cutoff_jitters_less():
    times = np.arange(200) / 30
    wave = 50 + np.column_stack([25 * np.sin(2 * np.pi * times), 0 * times])
    lags = [np.abs(run(wave, times, OneEuro(beta=beta)) - wave).mean() for beta in (0, 3, 12, 50)]
    assert lags == sorted(lags, reverse=True)
    noise = np.random.default_rng(2).normal(0, 1, (200, 2))
    jitters = [np.diff(run(noise, times, OneEuro(cutoff, beta=0)), axis=0).std() for cutoff in (0.3, 1, 3, 10)]
    assert jitters == sorted(jitters)


@pytest.mark.parametrize("factor", [0.1, 6.0])
def test_a_larger_image_gives_the_same_in_larger(factor: float):
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.uniform(0.02, 0.05, 60))
    path = np.cumsum(rng.normal(0, 4, (60, 2)), axis=0)
    small, large = run(path, times, OneEuro()), run(path * factor, times, OneEuro(), size=100 * factor)
    assert large == pytest.approx(small * factor)


def test_the_direction_does_not_matter():
    rng = np.random.default_rng(4)
    times, path = np.arange(50) / 25, np.cumsum(rng.normal(0, 5, (50, 2)), axis=0)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert run(path @ turn.T, times, OneEuro()) == pytest.approx(run(path, times, OneEuro()) @ turn.T)


def test_half_the_frame_rate_comes_close_to_the_same_path():
    times = np.arange(240) / 60
    path = 50 + np.column_stack([20 * np.sin(3 * times), 15 * np.cos(2 * times)])
    fine, coarse = run(path, times, OneEuro()), run(path[::2], times[::2], OneEuro())
    assert np.abs(fine[::2] - coarse)[20:].max() < 1.0
    gaps = np.r_[0:40, 55:90, 130:240]  # frames that were dropped
    assert np.abs(run(path[gaps], times[gaps], OneEuro()) - path[gaps])[20:].max() < 4.0


def test_points_of_low_score_leave_the_filter_as_it_was():
    smoother, plain = PoseSmoother(), PoseSmoother()
    for t in range(30):
        at = np.array([[[10.0 + t, 20], [50, 60 - t]]])
        wild = np.array([[[900.0, -700], [50, 60 - t]]])
        hidden = t in (10, 11, 20)
        scores = np.array([[0.1 if hidden else 0.9, 0.9]])
        found = smoother(pose(wild if hidden else at, scores=scores), t / 30)
        if hidden:
            assert (found.keypoints[0, 0] == [900, -700]).all()  # passes as it is
        expected = plain(pose(at), t / 30)
        assert found.keypoints[0, 1] == pytest.approx(expected.keypoints[0, 1])
        if not hidden:
            assert np.abs(found.keypoints[0, 0] - expected.keypoints[0, 0]).max() < 0.6


def test_points_that_are_not_finite_do_no_harm():
    smoother = PoseSmoother()
    for t in range(6):
        found = smoother(pose(np.array([[[np.nan if t in (0, 3) else 5.0, 5], [1, 1]]])), t / 30)
        assert np.isfinite(found.keypoints[0, 0, 0]) == (t not in (0, 3))


def test_people_are_filtered_by_id_whatever_their_order():
    rng = np.random.default_rng(5)
    together, alone = PoseSmoother(), {person: PoseSmoother() for person in (1, 2, 3)}
    for t in range(20):
        ids = [int(person) for person in rng.permutation([1, 2, 3])]
        points = np.array([[[person * 100 + t * person, 0], [0, rng.normal()]] for person in ids])
        found = together(pose(points, ids=ids), t / 30)
        for row, person in enumerate(ids):
            own = alone[person](pose(points[row : row + 1], ids=[person]), t / 30)
            assert (found.keypoints[row] == own.keypoints[0]).all()


def test_who_was_away_starts_afresh():
    smoother = PoseSmoother()
    for t in range(10):
        smoother(pose(np.array([[[10.0, 10], [20, 20]]])), t / 30)
    assert len(smoother(pose(np.zeros((0, 2, 2))), 10 / 30)) == 0
    back = pose(np.array([[[300.0, 10], [20, 20]]]))
    assert (smoother(back, 11 / 30).keypoints == back.keypoints).all()


def test_a_time_that_stands_still_changes_nothing():
    smoother = PoseSmoother()
    smoother(pose(np.array([[[10.0, 10], [20, 20]]])), 1.0)
    again = smoother(pose(np.array([[[90.0, 10], [20, 20]]])), 1.0)
    assert again.keypoints[0, 0].tolist() == [10, 10]


def test_everything_else_stays_and_nothing_is_overwritten():
    smoother = PoseSmoother()
    given_poses = [pose(np.full((2, 2, 2), value)) for value in (3.0, 9.0)]
    found = [smoother(poses, t) for t, poses in enumerate(given_poses)]
    for before, after, value in zip(given_poses, found, (3.0, 9.0), strict=True):
        assert (before.keypoints == value).all()
        assert after.track_ids is before.track_ids
        assert (after.keypoint_scores == before.keypoint_scores).all()
    assert PoseSmoother()(pose(np.zeros((1, 2, 2))), 0.0).keypoints.dtype == np.float64


def test_poses_without_ids_cannot_be_smoothed():
    with pytest.raises(LeanposeError, match="no ids"):
        PoseSmoother()(PoseResult.empty(SKELETON), 0.0)


@pytest.mark.parametrize(
    "wrong",
    [{"min_cutoff": 0}, {"min_cutoff": float("nan")}, {"derivative_cutoff": -1}, {"beta": -0.1}, {"min_score": 2}],
)
def test_settings_out_of_range(wrong: dict):
    with pytest.raises(LeanposeError, match=next(iter(wrong))):
        OneEuro(**wrong)
