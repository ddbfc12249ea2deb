"""OKS AP: mmpose's figures, equality with pycocotools, cases by hand, what a user can do wrong."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from golden_rules import detections
from leanpose.errors import LeanposeError
from leanpose.evaluation import PosePredictions, average_precision
from leanpose.skeleton import COCO17

COCO_METRICS = ["AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)"]
CROWDPOSE_METRICS = ["AP", "AP .5", "AP .75", "AR", "AR .5", "AR .75", "AP(E)", "AP(M)", "AP(H)"]
SUPPRESSION = {"oks_nms": "oks", "soft_oks_nms": "soft", "none": None}


@pytest.mark.parametrize("people", ["A", "B"])
@pytest.mark.parametrize("metric", ["coco", "crowdpose"])
def test_every_mode_equals_the_toolbox(shared: Path, metric, people: str):
    golden = json.loads((shared / f"golden/metrics/ap_{metric}_{people}.json").read_text())
    results = detections(golden["detections"])
    assert len(golden["results"]) == 5
    for mode, expected in golden["results"].items():
        options = json.loads(mode)
        ours = average_precision(
            golden["ground_truth"],
            results,
            golden["sigmas"],
            scoring=options["score_mode"],
            nms=SUPPRESSION[options["nms_mode"]],
            nms_threshold=options.get("nms_thr", 0.9),
            keypoint_score_threshold=options.get("keypoint_score_thr", 0.2),
            metric=metric,
        )
        assert list(ours) == list(expected)
        for name, value in expected.items():
            assert ours[name] == pytest.approx(value, rel=0, abs=1e-6), (mode, name)


def test_equal_to_pycocotools_on_real_labels(shared: Path):
    ground_truth = json.loads((shared / "data/coco_mini/annotations/person_keypoints_val.json").read_text())
    rng = np.random.default_rng(0)
    people = [person for person in ground_truth["annotations"] if rng.random() < 0.8]
    points = np.array([person["keypoints"] for person in people], float).reshape(-1, 17, 3)[..., :2]
    scale = np.sqrt([person["area"] for person in people])[:, None, None] * rng.uniform(0, 0.1, (len(people), 1, 1))
    results = detections(
        [
            {"img_id": p["image_id"], "keypoints": k, "keypoint_scores": s, "bbox_score": b, "area": p["area"]}
            for p, k, s, b in zip(
                people,
                points + rng.normal(0, 1, points.shape) * scale,
                rng.uniform(0, 1, points.shape[:2]),
                rng.uniform(0, 1, len(people)),
                strict=True,
            )
        ]
    )
    ours = average_precision(ground_truth, results, COCO17.sigmas, nms=None)
    assert ours == pytest.approx(by_pycocotools(ground_truth, results, COCO17.sigmas, "bbox_keypoint"), abs=1e-9)
    assert 0.2 < ours["AP"] < 0.9


def test_perfect_poses_on_real_crowdpose_labels(shared: Path):
    path = shared / "data/crowdpose_mini/annotations_only/crowdpose_val.json"
    ground_truth = json.loads(path.read_text())
    people = [person for person in ground_truth["annotations"] if person["num_keypoints"] > 0]
    triplets = np.array([person["keypoints"] for person in people], float).reshape(-1, 14, 3)
    results = detections(
        [
            {
                "img_id": p["image_id"],
                "keypoints": k[:, :2],
                "keypoint_scores": np.ones(14),
                "bbox_score": 1.0,
                "area": 1.0,
            }
            for p, k in zip(people, triplets, strict=True)
        ]
    )
    figures = average_precision(ground_truth, results, np.full(14, 0.08), nms=None, metric="crowdpose")
    assert figures == pytest.approx(dict.fromkeys(CROWDPOSE_METRICS, 1.0))


def random_scene(seed: int, keypoints: int = 17, images: int = 12) -> tuple[dict, PosePredictions]:
    """Labelled people, with crowds and people without keypoints, and found ones: near, far, twice, equal in score."""
    rng = np.random.default_rng(seed)
    annotations, found, owners = [], [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 6)):
            corner, size = rng.uniform(0, 300, 2), rng.uniform(15, 200, 2)
            points = corner + size * rng.uniform(0, 1, (keypoints, 2))
            visibility = rng.choice([0, 1, 2], keypoints) * (rng.random() > 0.15)
            triplets = np.concatenate([points * (visibility > 0)[:, None], visibility[:, None]], axis=1)
            area = float(size.prod() * 0.5)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "iscrowd": int(rng.random() < 0.1),
                    "num_keypoints": int((visibility > 0).sum()),
                    "area": area,
                    "bbox": [*corner.tolist(), *size.tolist()],
                    "keypoints": triplets.reshape(-1).tolist(),
                }
            )
            for _ in range(rng.integers(0, 3)):
                found.append(points + rng.normal(0, 1, points.shape) * np.sqrt(area) * rng.uniform(0, 0.2))
                owners.append(image)
        for _ in range(rng.integers(0, 25 if image == 1 else 3)):  # more than 20 in the first image
            found.append(rng.uniform(0, 400, (keypoints, 2)))
            owners.append(image)
    ground_truth = {
        "images": [{"id": image, "width": 640, "height": 480} for image in rng.permutation(images) + 1],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": [str(k) for k in range(keypoints)], "skeleton": []}],
    }
    for image in ground_truth["images"]:
        image["id"] = int(image["id"])
    order = rng.permutation(len(found))
    points = np.array(found).reshape(-1, keypoints, 2)[order]
    return ground_truth, PosePredictions(
        image_ids=np.array(owners)[order],
        keypoints=points,
        keypoint_scores=rng.uniform(0, 1, points.shape[:2]),
        boxes=np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1),
        box_scores=np.round(rng.uniform(0, 1, len(points)), 1),
        areas=np.full(len(points), 1000.0),
    )


def by_pycocotools(ground_truth: dict, results: PosePredictions, sigmas, scoring) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        labelled = COCO()
        labelled.dataset = copy.deepcopy(ground_truth)  # pyright: ignore[reportAttributeAccessIssue]
        labelled.createIndex()
        found = labelled.loadRes(results.to_coco(scoring=scoring))  # pyright: ignore[reportArgumentType]
        evaluation = COCOeval(labelled, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(COCO_METRICS, evaluation.stats.tolist(), strict=True))


@pytest.mark.parametrize("scoring", ["bbox_keypoint", "bbox"])  # `bbox`: many equal scores
@pytest.mark.parametrize("keypoints", [1, 17, 21])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools_on_random_people(seed: int, keypoints: int, scoring):
    ground_truth, results = random_scene(seed, keypoints)
    sigmas = COCO17.sigmas if keypoints == 17 else np.linspace(0.03, 0.1, keypoints)
    theirs = by_pycocotools(ground_truth, results, sigmas, scoring)
    ours = average_precision(ground_truth, results, sigmas, scoring=scoring, nms=None)
    assert list(ours) == COCO_METRICS
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


def one_person(*, area: float = 2500.0, **fields) -> tuple[dict, PosePredictions]:
    """One labelled person of two keypoints in image 1, found exactly; image 2 is empty."""
    person = {
        "id": 0,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 2,
        "area": area,
        "bbox": [0, 0, 50, 50],
        "keypoints": [10, 10, 2, 40, 40, 1],
    }
    ground_truth = {
        "images": [{"id": 2}, {"id": 1}],
        "annotations": [person | fields],
        "categories": [{"id": 1, "name": "person", "keypoints": ["a", "b"]}],
    }
    return ground_truth, PosePredictions(
        np.array([1]),
        np.array([[[10.0, 10.0], [40.0, 40.0]]]),
        np.array([[0.9, 0.8]]),
        np.array([[0.0, 0, 50, 50]]),
        np.array([1.0]),
        np.array([2500.0]),
    )


SIGMAS = (0.1, 0.1)


def moved(results: PosePredictions, pixels: float) -> PosePredictions:
    return PosePredictions(**{**vars(results), "keypoints": results.keypoints + np.array([pixels, 0.0])})


def test_a_person_found_exactly_by_hand():
    figures = average_precision(*one_person(), SIGMAS)
    # 2,500 square pixels are medium, so there is no large person to find.
    assert figures == {n: -1.0 if "(L)" in n else pytest.approx(1.0) for n in COCO_METRICS}


def test_a_person_found_roughly_by_hand():
    ground_truth, results = one_person()
    # OKS = exp(-d² / (2 · 2500 · 0.2²)) = 0.72: right at the five thresholds 0.50 … 0.70.
    roughly = moved(results, np.sqrt(-np.log(0.72) * 2 * 2500 * 0.04))
    figures = average_precision(ground_truth, roughly, SIGMAS)
    assert figures["AP"] == pytest.approx(0.5)
    assert figures["AP .5"] == pytest.approx(1)
    assert figures["AP .75"] == 0
    assert figures["AR"] == pytest.approx(0.5)


def test_a_worse_copy_is_suppressed_or_costs_nothing_behind_the_right_one():
    ground_truth, results = one_person()
    far = moved(results, 300)
    both = {name: np.concatenate([getattr(far, name), getattr(results, name)]) for name in results.arrays}
    double = replace(results, **both)
    first = replace(double, box_scores=np.array([0.9, 0.5]))
    # The wrong one comes first: precision 1/2 at every recall.
    assert average_precision(ground_truth, first, SIGMAS)["AP"] == pytest.approx(0.5)
    last = PosePredictions(**{**vars(double), "box_scores": np.array([0.5, 0.9])})
    assert average_precision(ground_truth, last, SIGMAS)["AP"] == pytest.approx(1)
    twice = results.select([0, 0, 0])
    for nms in ("oks", "soft", None):
        assert average_precision(ground_truth, twice, SIGMAS, nms=nms)["AP"] == pytest.approx(1)


def test_nobody_found_gives_0_and_nobody_labelled_gives_minus_1():
    ground_truth, results = one_person()
    nobody = PosePredictions.empty(2)
    figures = average_precision(ground_truth, nobody, SIGMAS)
    assert figures == {n: -1.0 if "(L)" in n else 0.0 for n in COCO_METRICS}
    unlabelled = {**ground_truth, "annotations": []}
    for found in (results, nobody):
        assert set(average_precision(unlabelled, found, SIGMAS).values()) == {-1.0}
        assert set(average_precision(unlabelled, found, SIGMAS, metric="crowdpose").values()) == {-1.0}
    assert average_precision({"images": [], "annotations": []}, nobody, SIGMAS)["AP"] == -1


@pytest.mark.parametrize(
    "ignored", [{"iscrowd": 1}, {"num_keypoints": 0, "keypoints": [0] * 6}, {"keypoints": None, "num_keypoints": 0}]
)
def test_crowds_and_people_without_keypoints_count_neither_way(ignored: dict):
    ground_truth, results = one_person(**ignored)
    assert average_precision(ground_truth, results, SIGMAS)["AP"] == -1
    # A second, labelled person that is found: the one over the ignored region is not a mistake.
    clear, _ = one_person()
    other = {**clear["annotations"][0], "id": 7, "image_id": 2}
    both = {**ground_truth, "annotations": [*ground_truth["annotations"], other]}
    found = results.select([0, 0])
    found.image_ids[1] = 2
    found.box_scores[1] = 0.1
    assert average_precision(both, found, SIGMAS)["AP"] == pytest.approx(1)


def test_annotations_of_other_categories_are_left_out():
    ground_truth, results = one_person()
    ground_truth["categories"].append({"id": 2, "name": "dog"})
    ground_truth["annotations"].append({"id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 9], "area": 81})
    assert average_precision(ground_truth, results, SIGMAS)["AP"] == pytest.approx(1)


def test_crowdpose_levels_and_areas():
    ground_truth, results = one_person()
    del ground_truth["annotations"][0]["area"]
    figures = average_precision(ground_truth, results, SIGMAS, metric="crowdpose")
    assert list(figures) == CROWDPOSE_METRICS
    assert figures["AP"] == pytest.approx(1)
    assert {figures[name] for name in ("AP(E)", "AP(M)", "AP(H)")} == {-1.0}  # the images do not say how crowded
    for index, name in ((0.15, "AP(E)"), (0.2, "AP(M)"), (0.8, "AP(H)")):
        ground_truth["images"][1]["crowdIndex"] = index
        figures = average_precision(ground_truth, results, SIGMAS, metric="crowdpose")
        assert [n for n in ("AP(E)", "AP(M)", "AP(H)") if figures[n] == 1] == [name]


def test_inputs_stay_as_they_were_and_nothing_is_printed(capfd: pytest.CaptureFixture[str], recwarn):
    ground_truth, results = one_person()
    before = copy.deepcopy((ground_truth, vars(results)))
    average_precision(ground_truth, results, SIGMAS)
    average_precision(ground_truth, results, SIGMAS, metric="crowdpose")
    assert ground_truth == before[0]
    for name, value in before[1].items():
        np.testing.assert_array_equal(getattr(results, name), value)
    assert capfd.readouterr() == ("", "")
    assert not len(recwarn)


def test_mistakes_get_one_sentence():
    ground_truth, results = one_person()
    elsewhere = PosePredictions(**{**vars(results), "image_ids": np.array([99])})
    with pytest.raises(LeanposeError, match=r"1 of the 1 results .* image 99"):
        average_precision(ground_truth, elsewhere, SIGMAS)
    with pytest.raises(LeanposeError, match="2 keypoints, but there are 3 sigmas"):
        average_precision(ground_truth, results, (0.1, 0.1, 0.1))
    with pytest.raises(LeanposeError, match="Annotation 0 has 6 keypoint numbers, but 3 keypoints need 9"):
        average_precision(ground_truth, PosePredictions.empty(3), (0.1, 0.1, 0.1))
    with pytest.raises(LeanposeError, match="did you mean 'soft'"):
        average_precision(ground_truth, results, SIGMAS, nms="sofd")  # type: ignore[arg-type]
    with pytest.raises(LeanposeError, match="did you mean 'crowdpose'"):
        average_precision(ground_truth, results, SIGMAS, metric="crowd_pose")  # type: ignore[arg-type]
    del ground_truth["annotations"][0]["area"]
    with pytest.raises(LeanposeError, match="KeyError 'area'"):
        average_precision(ground_truth, results, SIGMAS)
    ground_truth["annotations"][0].update(area=1.0, image_id=3)
    with pytest.raises(LeanposeError, match="belongs to image 3, which `images` does not list"):
        average_precision(ground_truth, results, SIGMAS)
