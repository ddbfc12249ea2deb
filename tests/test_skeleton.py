"""The names and the order of the whole-body keypoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leanpose.errors import LeanposeError
from leanpose.skeleton import BODY19, COCO17, CROWDPOSE14, LSP14, WHOLEBODY133, Skeleton, get_skeleton
from leanpose.synthetic import SYNTHETIC135


def test_it_has_a_name_and_survives_a_checkpoint() -> None:
    assert get_skeleton("coco_wholebody133") is WHOLEBODY133
    assert Skeleton.from_dict(json.loads(json.dumps(WHOLEBODY133.to_dict()))) == WHOLEBODY133
    assert sorted(i for part in WHOLEBODY133.parts.values() for i in part) == list(range(133))


def test_the_order_is_that_of_coco_wholebody() -> None:
    names = WHOLEBODY133.keypoints
    assert len(names) == 133
    assert names[:17] == COCO17.keypoints
    assert names[17:20] == ("left_big_toe", "left_small_toe", "left_heel")
    face = names[23:91]
    assert face[0] == "right_jaw_1"
    assert face[8] == "chin"
    assert face[16] == "left_jaw_1"
    assert (face[36], face[39], face[42], face[45]) == (
        "right_eyelid_1",
        "right_eyelid_4",
        "left_eyelid_4",
        "left_eyelid_1",
    )
    assert (face[48], face[51], face[54], face[57]) == ("right_lip_1", "upper_lip", "left_lip_1", "lower_lip")
    assert (names[91], names[112]) == ("left_hand_0", "right_hand_0")
    assert [len(WHOLEBODY133.parts[part]) for part in ("body", "feet", "face", "left_hand", "right_hand")] == [
        17, 6, 68, 21, 21]  # fmt: skip


def test_mirroring_exchanges_all_that_has_a_side() -> None:
    order = WHOLEBODY133.flip_indices
    assert [order[i] for i in order] == list(range(133))
    face = [order[23 + i] - 23 for i in range(68)]
    assert face[:17] == list(range(16, -1, -1))
    assert face[17:27] == list(range(26, 16, -1))
    assert face[27:36] == [27, 28, 29, 30, 35, 34, 33, 32, 31]
    assert face[36:48] == [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    assert face[48:60] == [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55]
    assert face[60:] == [64, 63, 62, 61, 60, 67, 66, 65]
    assert [order[91 + i] for i in range(21)] == list(range(112, 133))


@pytest.mark.parametrize("skeleton", [COCO17, BODY19, CROWDPOSE14, LSP14, WHOLEBODY133])
def test_every_skeleton_is_served_by_name(skeleton) -> None:
    assert min(skeleton.indices_in(SYNTHETIC135)) >= 0


def test_sigmas_are_those_of_the_official_evaluation(shared: Path) -> None:
    golden = json.loads((shared / "golden" / "metrics" / "ap_coco_wholebody_A.json").read_text())
    assert list(WHOLEBODY133.sigmas) == pytest.approx(golden["sigmas"], abs=1e-6)


@pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan"), 1e3])
def test_a_sigma_that_measures_nothing_is_refused(sigma: float) -> None:
    with pytest.raises(LeanposeError, match="Skeleton 'flat' has a sigma that is not a number above 0"):
        Skeleton("flat", ("a", "b"), (), (0.05, sigma))


@pytest.mark.parametrize(
    "names",
    [
        ("ear (left)", "ear (right)"), ("ear[L]", "ear[R]"), ("ear:left", "ear:right"), ("Left ear", "Right ear"),
        ("lear", "rear"), ("earl", "earr"), ("eye_l2", "eye_r2"), ("hl_paw", "hr_paw"), ("lf_paw", "rf_paw"),
        ("left", "right"), ("L", "R"), ("lt_ear", "rt_ear"), ("linkes_Ohr", "rechtes_Ohr"), ("œil gauche", "œil droit"),
        ("oreja_izquierda", "oreja_derecha"), ("orecchio_sinistro", "orecchio_destro"), ("左耳", "右耳"),
        ("левый_глаз", "правый_глаз"),
    ],
)  # fmt: skip
def test_sides_in_any_spelling_are_pairs(names: tuple[str, str]) -> None:
    for each in (names, names[::-1]):
        skeleton = Skeleton.from_dict({"name": "thing", "keypoints": ["nose", *each, "tail", "leg", "heel"]})
        assert {frozenset(pair) for pair in skeleton.pairs} == {frozenset({1, 2})}
        assert skeleton.unpaired_sides == ()


@pytest.mark.parametrize("name", ["left", "linkes_Ohr", "œil gauche", "右耳", "ear (right)"])
def test_a_side_in_any_language_needs_its_partner(name: str) -> None:
    skeleton = Skeleton.from_dict({"name": "thing", "keypoints": ["nose", name, "tail"]})
    assert skeleton.pairs == ()
    assert skeleton.unpaired_sides == (name,)


def test_four_corners_are_two_pairs() -> None:
    for names in (("tl", "tr", "bl", "br"), ("ul", "ur", "ll", "lr"), ("front_l", "front_r", "back_l", "back_r")):
        assert Skeleton.from_dict({"name": "card", "keypoints": names}).pairs == ((0, 1), (2, 3))
