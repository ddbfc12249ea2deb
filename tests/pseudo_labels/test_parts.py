"""Each threshold lets through what is right and holds back what it is there for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from landmark_models import FACE, TruthModels, labelled_person
from leanpose.pseudo_labels.landmarks import Landmarks, RotatedBox
from leanpose.pseudo_labels.parts import PARTS, AcceptanceThresholds, Part, label_person, wholebody_points
from leanpose.skeleton import WHOLEBODY133

IMAGE = np.zeros((260, 240, 3), np.uint8)
BOX = np.array([60, 10, 140, 210], dtype=float)


def look(person: np.ndarray, models: TruthModels | None = None, **thresholds: float) -> dict[str, Part]:
    return label_person(IMAGE, person, BOX, models or TruthModels([person]), AcceptanceThresholds(**thresholds))


def verdicts(found: dict[str, Part]) -> list[str]:
    return [found[name].verdict for name in PARTS]


def test_what_agrees_is_accepted_where_it_was_found() -> None:
    person = labelled_person()
    found = look(person)
    assert verdicts(found) == ["accepted"] * 5
    assert np.allclose(found["face"].points[:, :2], person[0, :2] + 28 * FACE)
    assert np.allclose(found["left_hand"].points[0, :2], person[9, :2])
    assert np.allclose(found["right_hand"].points[0, :2], person[10, :2])
    assert np.allclose(found["left_foot"].points, [[*person[15, :2] + [4, 6], 1], [*person[15, :2] + [-3, 3], 1]])
    assert found["face"].error == pytest.approx(0, abs=1e-9)
    assert found["face"].size == pytest.approx(28)


@pytest.mark.parametrize(("model", "names"), [("face", ["face"]), ("hand", PARTS[1:3]), ("body", PARTS[3:])])
def test_a_low_score_is_refused(model: str, names: list[str]) -> None:
    person = labelled_person()
    models = TruthModels([person])
    models.scores[model] = 0.49
    found = look(person, models)
    assert {name for name in PARTS if found[name].verdict == "not found"} == set(names)
    assert all(len(found[name].points) == 0 for name in names)
    models.scores[model] = 0.51
    assert verdicts(look(person, models)) == ["accepted"] * 5


@pytest.mark.parametrize(
    ("model", "names", "near", "far"),
    [("face", ["face"], 3.0, 4.5), ("hand", PARTS[1:3], 5.0, 12.0), ("body", PARTS[3:], 11.0, 13.0)],
)
def test_what_lies_elsewhere_than_the_body_is_refused(model: str, names: list[str], near: float, far: float) -> None:
    person = labelled_person()
    models = TruthModels([person])
    models.moved[model] = np.array([near, 0])
    assert verdicts(look(person, models)) == ["accepted"] * 5
    models.moved[model] = np.array([far, 0])
    assert {name for name, part in look(person, models).items() if part.verdict == "disagrees"} == set(names)


def test_feet_are_moved_with_the_ankle_to_its_label() -> None:
    person = labelled_person()
    models = TruthModels([person])
    models.moved["body"] = np.array([6.0, -5.0])
    assert np.allclose(look(person, models)["right_foot"].points[0, :2], person[16, :2] + [4, 6])


@pytest.mark.parametrize(
    ("threshold", "names"), [("face_size", ["face"]), ("hand_size", PARTS[1:3]), ("person_size", PARTS[3:])]
)
def test_small_parts_are_not_looked_for(threshold: str, names: list[str]) -> None:
    person = labelled_person()
    models = TruthModels([person])
    found = look(person, models, **{threshold: 500})
    assert {name for name in PARTS if found[name].verdict == "small"} == set(names)
    assert sorted(models.calls.values())[0] == 0


@pytest.mark.parametrize(
    ("points", "flag", "name"),
    [
        ([0], 0, "face"), ([2], 0, "face"), ([7], 0, "left_hand"), ([10], 0, "right_hand"), ([9], 1, "left_hand"),
        ([13], 0, "left_foot"), ([16], 0, "right_foot"), ([15], 1, "left_foot"),
    ],
)  # fmt: skip
def test_without_its_body_points_a_part_is_not_looked_for(points: list[int], flag: int, name: str) -> None:
    person = labelled_person()
    person[points, 2] = flag
    found = look(person)
    assert {n for n in PARTS if found[n].verdict == "unlabelled"} == {name}


def test_hidden_eyes_elbows_and_knees_are_enough() -> None:
    person = labelled_person()
    person[[1, 7, 13], 2] = 1
    assert verdicts(look(person)) == ["accepted"] * 5


def test_points_outside_the_image_are_not_labelled() -> None:
    person = labelled_person(x=-15.0, size=1.0)  # the nose is 5 pixels from the edge, the jaw reaches 7 pixels
    found = label_person(
        IMAGE, person, BOX, TruthModels([person]), AcceptanceThresholds(face_size=5, hand_size=5, inside=0.8)
    )
    face = found["face"].points
    assert found["face"].verdict == "accepted"
    assert 0 < (face[:, 2] == 0).sum() <= 13
    assert (face[face[:, 2] == 0] == 0).all()
    assert (face[face[:, 2] == 1, 0] >= -0.5).all()
    assert found["right_hand"].verdict == "outside"


def test_a_foot_over_the_edge_is_refused() -> None:
    person = labelled_person()
    person[15, 1] = 255
    person[13, 1] = 215
    assert look(person)["left_foot"].verdict == "outside"


def test_one_hand_found_twice_stays_with_its_own_wrist() -> None:
    person = labelled_person()
    person[8, :2], person[10, :2] = person[7, :2] + [4, 0], person[9, :2] + [4, 0]
    models = TruthModels([person])
    left = models.hand(IMAGE, RotatedBox(person[9, 0], person[9, 1], 10))
    models.hand = lambda image, box: left  # type: ignore[method-assign]
    found = look(person, models)
    assert found["left_hand"].verdict == "accepted"
    assert found["right_hand"].verdict == "disagrees"
    assert len(found["right_hand"].points) == 0


def test_only_a_hand_that_shows_is_looked_at_again() -> None:
    person = labelled_person()
    models = TruthModels([person])
    models.scores["hand"] = 0.2
    look(person, models)
    assert models.calls["hand"] == 2
    models.scores["hand"] = 0.8
    look(person, models)
    assert models.calls["hand"] == 2 + 4


def test_a_hand_that_points_back_along_the_forearm_is_refused() -> None:
    person = labelled_person()
    models = TruthModels([person])
    forward: Callable[..., Landmarks] = models.hand

    def backward(image: np.ndarray, box: object) -> Landmarks:
        found = forward(image, box)
        return Landmarks(2 * found.points[0] - found.points, found.score)

    models.hand = backward  # type: ignore[method-assign]
    assert look(person, models)["left_hand"].verdict == "disagrees"


def test_the_look_that_agrees_with_the_leg_gives_the_foot() -> None:
    person = labelled_person()
    models = TruthModels([person])
    exact = models.body

    def blurred(image: np.ndarray, box: RotatedBox) -> Landmarks:
        found = exact(image, box)
        if models.calls["body"] == 3:
            return found
        points = found.points + np.array([8, 8])
        points[[29, 30, 31, 32]] += [20, 0]
        return Landmarks(points, found.score)

    models.body = blurred  # type: ignore[method-assign]
    assert np.allclose(look(person, models)["left_foot"].points[0, :2], person[15, :2] + [4, 6])


def test_a_foot_far_from_its_ankle_is_refused() -> None:
    person = labelled_person()
    assert look(person, foot_reach=0.03)["left_foot"].verdict == "disagrees"


def test_feet_land_on_the_data_sets_toes_and_heels() -> None:
    person = labelled_person()
    points = wholebody_points(person, look(person))
    names = WHOLEBODY133.keypoints
    for side, ankle in (("left", 15), ("right", 16)):
        assert np.allclose(points[names.index(f"{side}_big_toe")], [*person[ankle, :2] + [4, 6], 1])
        assert np.allclose(points[names.index(f"{side}_heel")], [*person[ankle, :2] + [-3, 3], 1])
        assert (points[names.index(f"{side}_small_toe")] == 0).all()
