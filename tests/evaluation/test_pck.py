"""PCK and its kin: mmpose's figures, cases by hand, what must hold for any people."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanpose.errors import LeanposeError
from leanpose.evaluation import auc, box_sizes, epe, head_sizes, mpii_accuracy, nme, pck, pckh, torso_sizes
from leanpose.skeleton import COCO17, LSP14


@pytest.fixture(scope="module", params=["A", "B"])
def golden(shared: Path, request: pytest.FixtureRequest) -> tuple[dict[str, float], dict[str, np.ndarray], list[str]]:
    numbers = json.loads((shared / "golden/metrics/metrics.json").read_text())
    prefix = f"pck/{request.param}/"
    with np.load(shared / "golden/metrics/metrics.npz") as file:
        arrays = {name[len(prefix) :]: file[name] for name in file.files if name.startswith(prefix)}
    values = {name[len(prefix) :]: v for name, v in numbers["values"].items() if name.startswith(prefix)}
    return values, arrays, numbers["datasets"]["mpii"]["keypoint_names"]


def test_every_figure_equals_the_toolbox(golden: tuple[dict[str, float], dict[str, np.ndarray], list[str]]):
    values, arrays, names = golden
    people = arrays["pred"], arrays["gt"], arrays["mask"]
    ours = {
        "auc_norm30": auc(*people, 30.0),
        "epe": epe(*people),
        "nme": nme(*people, arrays["bbox_size"]),
    }
    for threshold in (0.5, 0.1, 0.2):
        heads = pckh(*people, arrays["head_size_xy"], threshold)
        np.testing.assert_allclose(heads.per_keypoint, arrays[f"pckh_thr{threshold}.per_joint"], atol=1e-6)
        ours[f"pckh_thr{threshold}.mean"] = heads.mean
        ours[f"pckh_thr{threshold}.count"] = (heads.counts > 0).sum()
        ours[f"pck_bbox_thr{threshold}.mean"] = pck(*people, arrays["bbox_size"], threshold).mean
    table = mpii_accuracy(*people, arrays["head_size_xy"], names)
    ours |= {f"MpiiPCKAccuracy.{name}": value for name, value in table.items()}
    assert set(ours) == set(values)
    for name, value in values.items():
        assert ours[name] == pytest.approx(value, rel=0, abs=1e-6), name


def people_by_hand() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labelled = np.array([[[0.0, 0], [10, 0], [20, 0]], [[0, 0], [10, 0], [20, 0]]])
    predicted = labelled + np.array([[[0.0, 1], [0, 2], [0, 3]], [[0, 2], [0, 4], [0, 100]]])
    visible = np.array([[1, 1, 0], [1, 1, 0]], bool)
    return predicted, labelled, visible


def test_pck_by_hand():
    predicted, labelled, visible = people_by_hand()
    accuracy = pck(predicted, labelled, visible, np.array([10.0, 20.0]), 0.2)
    # In sizes: 0.1, 0.2 and 0.1, 0.2; "closer than" leaves out the exact threshold. Nobody has the third.
    np.testing.assert_array_equal(accuracy.per_keypoint, [1, 0, -1])
    np.testing.assert_array_equal(accuracy.counts, [2, 2, 0])
    assert accuracy.mean == accuracy.overall == 0.5
    assert epe(predicted, labelled, visible) == (1 + 2 + 2 + 4) / 4
    assert nme(predicted, labelled, visible, 10.0) == pytest.approx(0.225)


def test_mean_weighs_keypoints_and_overall_weighs_labels():
    predicted, labelled, visible = people_by_hand()
    visible[1, 0] = False
    accuracy = pck(predicted, labelled, visible, 1.0, 1.5)
    np.testing.assert_array_equal(accuracy.per_keypoint[:2], [1, 0])
    assert accuracy.mean == 0.5
    assert accuracy.overall == pytest.approx(1 / 3)


def test_sides_of_a_box_are_compared_each_with_its_own():
    predicted, labelled, visible = people_by_hand()
    boxes = np.array([[0, 0, 1000, 10], [0, 0, 1000, 10]])
    np.testing.assert_array_equal(box_sizes(boxes), [[1000, 10], [1000, 10]])
    accuracy = pck(predicted, labelled, visible, box_sizes(boxes), 0.25)
    np.testing.assert_array_equal(accuracy.per_keypoint[:2], [1, 0.5])


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan])
def test_a_person_without_size_does_not_count(size: float):
    predicted, labelled, visible = people_by_hand()
    accuracy = pck(predicted, labelled, visible, np.array([10.0, size]), 0.15)
    np.testing.assert_array_equal(accuracy.counts, [1, 1, 0])
    np.testing.assert_array_equal(accuracy.per_keypoint, [1, 0, -1])


def test_nothing_labelled_gives_0_and_no_warning(recwarn: pytest.WarningsRecorder):
    predicted, labelled, visible = people_by_hand()
    labelled = np.full_like(labelled, np.nan)
    accuracy = pck(predicted, labelled, np.zeros_like(visible), 10.0)
    assert accuracy.mean == accuracy.overall == 0
    assert np.isnan(nme(predicted, labelled, np.zeros_like(visible), 10.0))
    empty = pck(np.zeros((0, 3, 2)), np.zeros((0, 3, 2)), np.zeros((0, 3), bool), np.zeros(0))
    assert empty.mean == 0
    assert not len(recwarn)


@pytest.mark.unshaped
def test_shapes_that_do_not_fit_are_refused():
    predicted, labelled, visible = people_by_hand()
    with pytest.raises(LeanposeError, match="one shape"):
        pck(predicted[:1], labelled, visible, 1.0)
    with pytest.raises(LeanposeError, match="PCK of 2 people"):
        pck(predicted, labelled, visible, np.ones(3))


def test_torso_and_head_sizes():
    points = np.zeros((3, 14, 2))
    visible = np.ones((3, 14), bool)
    place = {name: k for k, name in enumerate(LSP14.keypoints)}
    points[:, place["right_hip"]] = (3, 4)
    points[:, place["left_hip"]] = (0, 10)
    points[:, place["head_top"]] = (0, 7)
    visible[1, place["left_shoulder"]] = False
    visible[2, [place["left_shoulder"], place["left_hip"], place["neck"]]] = False
    np.testing.assert_array_equal(torso_sizes(points, visible, LSP14), [5, 10, np.nan])
    np.testing.assert_array_equal(head_sizes(points, visible, LSP14), [7, 7, np.nan])
    with pytest.raises(LeanposeError, match="'neck', which skeleton 'coco17' lacks"):
        head_sizes(np.zeros((1, 17, 2)), np.ones((1, 17), bool), COCO17)


def test_mpii_table_needs_its_keypoints():
    predicted, labelled, visible = people_by_hand()
    with pytest.raises(LeanposeError, match="'head_top'"):
        mpii_accuracy(predicted, labelled, visible, np.ones(2), ("a", "b", "c"))


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 10_000))
def test_figures_of_any_people(count: int, keypoints: int, seed: int):
    rng = np.random.default_rng(seed)
    labelled = rng.uniform(0, 100, (count, keypoints, 2))
    predicted = labelled + rng.normal(0, 5, labelled.shape)
    visible = rng.random((count, keypoints)) < 0.7
    sizes = rng.uniform(5, 50, count)
    shares = [pck(predicted, labelled, visible, sizes, t) for t in (0.0, 0.1, 0.5, 1e9)]
    assert shares[0].mean == 0
    assert all(a.mean <= b.mean + 1e-12 for a, b in pairwise(shares))
    assert shares[-1].overall == (1 if visible.any() else 0)
    assert 0 <= auc(predicted, labelled, visible, sizes) <= 1
    # Everything scales with the image.
    grown = pck(3 * predicted, 3 * labelled, visible, 3 * sizes, 0.25)
    np.testing.assert_allclose(grown.per_keypoint, pck(predicted, labelled, visible, sizes, 0.25).per_keypoint)
