"""The tracker: who is who, when the detector looks, and that reading ahead changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from crowd import SIZE, CrowdEstimator, Walker, number, video
from leanpose.errors import LeanposeError
from leanpose.inference.detectors import Detector, WholeImage
from leanpose.inference.estimator import PoseEstimator
from leanpose.inference.results import PoseResult
from leanpose.skeleton import COCO17
from leanpose.video.tracking import PoseTracker
from leanpose.video.tracks import TrackTable
from spots import SpotFinder, paint_spots


def crossing() -> list[Walker]:
    """Two people who walk through each other's place in frame 30, the second behind the first."""
    return [
        Walker(lambda t: (100 + 10 * t, 300), depth=0),
        Walker(lambda t: (700 - 10 * t, 290), tall=185, depth=1),
    ]


def follow(estimator: Any, frames: int = 60, **settings: Any) -> list[PoseResult]:
    return list(PoseTracker(estimator, **{"smooth": False, **settings}).stream(video(frames)))


def names(walkers: list[Walker], tracked: list[PoseResult]) -> dict[int, list[tuple[int, int]]]:
    """For each walker the frames and the ids under which they were seen."""
    seen: dict[int, list[tuple[int, int]]] = {index: [] for index in range(len(walkers))}
    for t, poses in enumerate(tracked):
        assert poses.track_ids is not None
        for points, person in zip(poses.keypoints, poses.track_ids, strict=True):
            apart = [np.abs(points - walker.keypoints(t)).mean() for walker in walkers]
            assert min(apart) < 5, f"a ghost in frame {t}"
            seen[int(np.argmin(apart))].append((t, int(person)))
    return seen


@pytest.mark.parametrize("detect_every", [1, 5, 10])
@pytest.mark.parametrize("in_flight", [1, 8])
def test_ids_stay_through_a_crossing(detect_every: int, in_flight: int):
    estimator = CrowdEstimator(crossing())
    tracked = follow(estimator, detect_every=detect_every, in_flight=in_flight)
    seen = names(crossing(), tracked)
    assert {person for _, person in seen[0]} == {1}
    assert {person for _, person in seen[1]} == {2}
    assert len(seen[0]) == 60
    assert len(seen[1]) >= 60 - 3 - detect_every  # hidden for three frames, and found again at the next detection


@pytest.mark.parametrize("detect_every", [1, 5, 60])
@pytest.mark.parametrize("factor", [0.5, 3])
def test_ids_stay_when_the_size_of_the_frames_changes(detect_every: int, factor: float):
    walkers = [Walker(lambda t: (100 + 6 * t, 300)), Walker(lambda t: (900 - 4 * t, 310), tall=150)]

    def frames() -> Iterator[tuple[np.ndarray, float]]:
        for t, (image, seconds) in enumerate(video(40)):
            if t >= 23:
                larger = np.zeros((round(SIZE[0] * factor), round(SIZE[1] * factor), 3), np.uint8)
                larger[:16, :16] = image[0, 0]  # the frame's number
                image = larger
            yield image, seconds

    tracker: Any = PoseTracker(CrowdEstimator(walkers), smooth=False, detect_every=detect_every)  # pyright: ignore
    for t, poses in enumerate(tracker.stream(frames())):
        assert poses.track_ids.tolist() == [1, 2]
        scale = factor if t >= 23 else 1
        for points, walker in zip(poses.keypoints, walkers, strict=True):
            expected = (walker.keypoints(t) + 0.5) * scale - 0.5  # in pixels of the frame itself
            assert np.abs(points - expected).mean() < 2 * scale


@pytest.mark.parametrize("detect_every", [1, 4])
def test_who_is_hidden_for_a_while_keeps_the_id_and_who_stays_away_does_not(detect_every: int):
    walkers = [
        Walker(lambda t: (100 + 6 * t, 300), frames=lambda t: not 20 <= t < 32),
        Walker(lambda t: (900 + 2 * t, 300)),
    ]
    for max_age, same in ((30, True), (5, False)):
        seen = names(walkers, follow(CrowdEstimator(walkers), detect_every=detect_every, max_age=max_age))
        assert {person for t, person in seen[0] if t < 20} == {1}
        assert {person for t, person in seen[0] if t >= 32} == ({1} if same else {3})
        assert {person for _, person in seen[1]} == {2}
        assert not [t for t, _ in seen[0] if 20 <= t < 32]


@pytest.mark.parametrize("in_flight", [1, 3, 8])
def test_the_detector_looks_at_every_nth_frame_only(in_flight: int):
    estimator = CrowdEstimator([Walker(lambda t: (200 + 4 * t, 300)), Walker(lambda t: (600, 300 - 3 * t))])
    tracked = follow(estimator, 41, detect_every=8, in_flight=in_flight)
    assert estimator.detected == [0, 8, 16, 24, 32, 40]
    assert estimator.looked == list(range(41))
    assert estimator.passes == [2] * 41  # both in one pass, nobody twice
    assert all(poses.track_ids is not None and poses.track_ids.tolist() == [1, 2] for poses in tracked)


def test_a_new_person_is_seen_at_the_next_detection():
    walkers = [Walker(lambda t: (200, 300)), Walker(lambda t: (600, 300), frames=lambda t: t >= 12)]
    seen = names(walkers, follow(CrowdEstimator(walkers), 30, detect_every=5))
    assert [t for t, _ in seen[1]] == list(range(15, 30))


def test_a_lost_person_is_looked_for_at_once_and_only_once():
    walkers = [Walker(lambda t: (200, 300)), Walker(lambda t: (600, 300), frames=lambda t: t < 12)]
    estimator = CrowdEstimator(walkers)
    seen = names(walkers, follow(estimator, 30, detect_every=5))
    assert sorted(estimator.detected) == [0, 5, 10, 12, 15, 20, 25]
    assert len(seen[0]) == 30
    assert [t for t, _ in seen[1]] == list(range(12))


def test_a_cut_to_another_scene_is_noticed_in_its_first_frame():
    walkers = [
        Walker(lambda t: (200, 300), frames=lambda t: t < 13),
        Walker(lambda t: (700, 330), tall=260, frames=lambda t: t >= 13),
    ]
    estimator = CrowdEstimator(walkers)
    seen = names(walkers, follow(estimator, 30, detect_every=10))
    assert [t for t, _ in seen[1]] == list(range(13, 30))
    assert {person for _, person in seen[1]} == {2}
    assert sorted(estimator.detected) == [0, 10, 13, 20]


def test_without_anybody_every_frame_is_searched():
    walkers = [Walker(lambda t: (200, 300), frames=lambda t: t >= 7)]
    estimator = CrowdEstimator(walkers)
    tracked = follow(estimator, 20, detect_every=5)
    assert sorted(estimator.detected) == [0, 1, 2, 3, 4, 5, 6, 7, 10, 15]
    assert [len(poses) for poses in tracked] == [0] * 7 + [1] * 13
    assert all(poses.track_ids is not None and poses.track_ids.shape == (len(poses),) for poses in tracked)


def test_fast_people_are_found_in_the_box_although_nothing_is_alike():
    # By a sixth of the height from frame to frame, to and fro, so that the speed foretells the wrong way.
    walkers = [Walker(lambda t: (316 if t % 2 == 0 else 284, 300))]
    estimator = CrowdEstimator(walkers)
    seen = names(walkers, follow(estimator, 20, detect_every=20))
    assert seen[0] == [(t, 1) for t in range(20)]
    assert estimator.detected == [0]


class Doubling(CrowdEstimator):
    """Its detector finds everybody twice."""

    def detect(self, images):
        return [(np.concatenate([boxes, boxes + 8]), np.tile(scores, 2)) for boxes, scores in super().detect(images)]


@pytest.mark.parametrize("detect_every", [1, 5])
def test_duplicates_become_one_person(detect_every: int):
    walkers = [Walker(lambda t: (200 + 3 * t, 300)), Walker(lambda t: (500, 300))]
    tracked = follow(Doubling(walkers), 12, detect_every=detect_every)
    assert all(poses.track_ids is not None and poses.track_ids.tolist() == [1, 2] for poses in tracked)


class Haunted(CrowdEstimator):
    """The detector takes a coat for a person, in the first frame only; the pose model always does."""

    def detect(self, images):
        people = [self.walkers if number(image) == 0 else self.walkers[:1] for image in images]
        return [(np.stack([walker.box(0) for walker in some]), np.full(len(some), 0.8)) for some in people]


class Portrait(CrowdEstimator):
    """Everything that is found lies in the middle of the box, so that another box gives another pose."""

    def detect(self, images: Any) -> Any:
        return WholeImage()(images)

    def _look(self, image: np.ndarray, boxes: np.ndarray) -> PoseResult:
        middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        spread = np.random.default_rng(1).uniform(-0.2, 0.2, (17, 2))
        points = middle[:, None] + spread * sides[:, None]
        shape = len(boxes), 17
        return PoseResult(points, np.full(shape, 0.9), boxes, np.ones(len(boxes)), self.skeleton)


@pytest.mark.parametrize("detect_every", [1, 5])
def test_the_whole_image_is_one_person_whatever_is_found_in_it(detect_every: int):
    tracked = follow(Portrait([], detector=WholeImage()), frames=30, detect_every=detect_every)
    assert [poses.track_ids.tolist() for poses in tracked if poses.track_ids is not None] == [[1]] * 30


def test_what_the_detector_does_not_confirm_is_dropped():
    person, coat = Walker(lambda t: (200, 300)), Walker(lambda t: (900, 300))
    tracked = follow(Haunted([person, coat]), 30, detect_every=5)
    people = [poses.track_ids.tolist() for poses in tracked if poses.track_ids is not None]
    assert people[:15] == [[1, 2]] * 15
    assert people[15:] == [[1]] * 15


class Doubtful(CrowdEstimator):
    """The detector is sure of the first person in the first frame only, and never of the second."""

    def detect(self, images):
        sure = [0.8 if number(image) == 0 else 0.35 for image in images]
        return [
            (boxes, np.array([score, 0.35][: len(boxes)]))
            for (boxes, _), score in zip(super().detect(images), sure, strict=True)
        ]


@pytest.mark.parametrize("detect_every", [1, 4])
def test_doubtful_detections_continue_tracks_but_begin_none(detect_every: int):
    walkers = [Walker(lambda t: (200 + 4 * t, 300)), Walker(lambda t: (700, 300))]
    for start_score, expected in ((0.4, [1]), (0.3, [1, 2])):
        tracked = follow(Doubtful(walkers), 13, detect_every=detect_every, start_score=start_score)
        assert all(poses.track_ids is not None and poses.track_ids.tolist() == expected for poses in tracked)
        assert tracked[12].box_scores[0] == pytest.approx(0.35)


class Trembling(CrowdEstimator):
    """Its poses are so poor that those of two frames are hardly alike."""

    def _look(self, image, boxes):
        poses = super()._look(image, boxes)
        wild = np.random.default_rng(number(image)).uniform(-45, 45, poses.keypoints.shape)
        return replace(poses, keypoints=poses.keypoints + wild)


def test_poor_poses_are_told_apart_by_their_boxes():
    walkers = [Walker(lambda t: (200 + 2 * t, 300)), Walker(lambda t: (500, 300))]
    tracked = follow(Trembling(walkers), 20, detect_every=1)
    assert all(poses.track_ids is not None and poses.track_ids.tolist() == [1, 2] for poses in tracked)


def test_scores_boxes_and_order_belong_together():
    walkers = [Walker(lambda t: (600, 300)), Walker(lambda t: (200, 300)), Walker(lambda t: (400, 300), tall=120)]
    for poses in follow(CrowdEstimator(walkers), 12, detect_every=4):
        assert poses.track_ids is not None
        assert poses.track_ids.tolist() == [1, 2, 3]
        assert poses.box_scores == pytest.approx([0.8] * 3)  # of the last detection
        for box, points in zip(poses.boxes, poses.keypoints, strict=True):
            assert (points >= box[:2] - 1).all()
            assert (points <= box[2:] + 1).all()


@pytest.mark.parametrize("detect_every", [1, 3])
def test_reading_ahead_changes_nothing(detect_every: int):
    walkers = [*crossing(), Walker(lambda t: (300, 700), frames=lambda t: t % 20 > 6)]
    apart, ahead = (
        follow(CrowdEstimator(walkers), detect_every=detect_every, in_flight=count, smooth=True) for count in (1, 7)
    )
    for one, other in zip(apart, ahead, strict=True):
        assert one.track_ids is not None
        assert other.track_ids is not None
        assert one.track_ids.tolist() == other.track_ids.tolist()
        assert (one.keypoints == other.keypoints).all()


def test_with_detections_everywhere_frames_share_batches():
    estimator = CrowdEstimator([Walker(lambda t: (200, 300)), Walker(lambda t: (500, 300))])
    follow(estimator, 16, detect_every=1, in_flight=8)
    assert estimator.passes == [8] * 4  # two people in each of four frames; the detector has the next four meanwhile


def test_frames_are_read_only_as_far_ahead_as_allowed():
    read = []

    def frames() -> Iterator[tuple[np.ndarray, float]]:
        for image, seconds in video(50):
            read.append(number(image))
            yield image, seconds

    walkers = [Walker(lambda t: (200, 300))]
    stream = PoseTracker(CrowdEstimator(walkers), detect_every=5, in_flight=6).stream(frames())  # type: ignore[arg-type]
    assert read == []
    for t in range(20):
        next(stream)
        assert len(read) <= t + 6
    stream.close()
    assert len(read) < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("detector")]


class Beside(CrowdEstimator):
    """Looks at the poses of frame 3 only once the detector has been at frame 5."""

    reached = threading.Event()

    def detect(self, images):
        if 5 in map(number, images):
            self.reached.set()
        return super().detect(images)

    def _look(self, image, boxes):
        if number(image) == 3:
            assert self.reached.wait(10)
        return super()._look(image, boxes)


def test_the_detector_works_beside_the_pose_model():
    estimator = Beside([Walker(lambda t: (200, 300))])
    assert len(follow(estimator, 8, detect_every=5, in_flight=4)) == 8


def test_frames_before_a_broken_one_are_not_lost():
    def broken() -> Iterator[tuple[np.ndarray, float]]:
        yield from video(9)
        raise LeanposeError("The video ends in the middle of a frame.")

    for detect_every in (1, 5):
        estimator: Any = CrowdEstimator([Walker(lambda t: (200, 300))])
        stream = PoseTracker(estimator, detect_every=detect_every).stream(broken())
        assert [len(next(stream)) for _ in range(9)] == [1] * 9
        with pytest.raises(LeanposeError, match="middle of a frame"):
            next(stream)


def test_an_error_of_the_detector_arrives():
    class Failing(CrowdEstimator):
        def detect(self, images):
            raise LeanposeError("The detector is out of order.")

    for detect_every in (1, 5):
        with pytest.raises(LeanposeError, match="out of order"):
            follow(Failing([]), 5, detect_every=detect_every)


def test_no_frames_and_nobody():
    for detect_every in (1, 3):
        assert follow(CrowdEstimator([]), 0, detect_every=detect_every) == []
        for poses in follow(CrowdEstimator([]), 4, detect_every=detect_every, smooth=True):
            assert len(poses) == 0
            assert poses.track_ids is not None
            assert poses.track_ids.shape == (0,)


def test_each_stream_is_a_video_of_its_own():
    tracker = PoseTracker(CrowdEstimator([Walker(lambda t: (200, 300))]))  # type: ignore[arg-type]
    for _ in range(2):
        assert [poses.track_ids.tolist() for poses in tracker.stream(video(3)) if poses.track_ids is not None] == [
            [1]
        ] * 3


def test_times_that_stand_still_or_jump():
    walkers = [Walker(lambda t: (200, 300))]
    times = [0, 0.1, 0.1, 0.05, 0.3, 5.0, 5.01, 5.02, 5.02]
    frames = [(image, seconds) for (image, _), seconds in zip(video(len(times)), times, strict=True)]
    tracker = PoseTracker(CrowdEstimator(walkers))  # type: ignore[arg-type]
    for poses in tracker.stream(frames):
        assert poses.track_ids is not None
        assert poses.track_ids.tolist() == [1]
        assert np.isfinite(poses.keypoints).all()
    with pytest.raises(LeanposeError, match="frame 0 is nan"):
        next(tracker.stream([(frames[0][0], float("nan"))]))


@pytest.mark.unshaped
def test_a_frame_without_a_time():
    image = np.zeros((120, 160, 3), np.uint8)
    with pytest.raises(LeanposeError, match="Frame 0 has no time: each item must be a pair"):
        next(PoseTracker(CrowdEstimator([])).stream([image]))  # type: ignore[list-item, arg-type]


@pytest.mark.parametrize("detect_every", [1, 5])
@pytest.mark.parametrize("gap", [1 / 90_000, 0.004])
def test_two_frames_at_almost_one_time_are_no_leap(detect_every: int, gap: float):
    walkers = [Walker(lambda t: (200 + 6 * t, 300)), Walker(lambda t: (600 - 3 * t, 300))]
    frames = [(image, 6 / 30 + gap if t == 7 else seconds) for t, (image, seconds) in enumerate(video(16))]
    tracker = PoseTracker(CrowdEstimator(walkers), detect_every=detect_every)  # type: ignore[arg-type]
    assert [poses.track_ids.tolist() for poses in tracker.stream(frames) if poses.track_ids is not None] == [
        [1, 2]
    ] * 16


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"detect_every": 0}, "detect_every is a number of frames"),
        ({"detect_every": 2.5}, r"not 2\.5"),
        ({"in_flight": 0}, "in_flight"),
        ({"max_age": -1}, "max_age"),
        ({"oks_threshold": 3}, "oks_threshold lies between 0 and 1"),
        ({"lost_score": -0.1}, "lost_score"),
        ({"start_score": 1.5}, "start_score"),
    ],
)
def test_settings_out_of_range(settings: dict, words: str):
    with pytest.raises(LeanposeError, match=words):
        PoseTracker(CrowdEstimator([]), **settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.unshaped
def test_an_image_that_is_no_image():
    with pytest.raises(LeanposeError, match="must be RGB"):
        list(PoseTracker(CrowdEstimator([])).stream([(np.zeros((4, 4, 2), np.uint8), 0.0)]))  # type: ignore[arg-type]


class SpotDetector(Detector):
    """Boxes around the moving spots of `spot_video`, by the frame's number."""

    name = "spots"

    def __call__(self, images):
        return [(spot_places(number(image))[1], np.array([0.7, 0.6])) for image in images]


def spot_places(t: int) -> tuple[np.ndarray, np.ndarray]:
    """Two people of three spots each, who move to the right and down: points and boxes."""
    shapes = np.array([[(0, 0), (40, 15), (20, 60)], [(10, 50), (35, 0), (5, 10)]], float)
    corner = np.array([[60 + 3 * t, 60], [260, 50 + 2 * t]], float)
    points = shapes + corner[:, None]
    return points, np.concatenate([corner - 25, corner + np.array([65, 85])], axis=1)


@pytest.mark.parametrize("detect_every", [1, 6])
def test_real_crops_of_a_skeleton_that_does_not_span_a_person(detect_every: int):
    def frames() -> Iterator[tuple[np.ndarray, float]]:
        for t in range(13):
            image = paint_spots((240, 400), spot_places(t)[0], sigma=6)
            image[0, 0] = 0, t, 0
            yield image, t / 25

    estimator = PoseEstimator(SpotFinder(), SpotDetector(), "cpu", "torch")
    tracked = list(PoseTracker(estimator, detect_every=detect_every, smooth=False).stream(frames()))
    for t, poses in enumerate(tracked):
        points, boxes = spot_places(t)
        assert poses.track_ids is not None
        assert poses.track_ids.tolist() == [1, 2]
        assert np.abs(poses.keypoints - points).max() < 0.6
        assert np.abs(poses.boxes - boxes).max() < 6  # the detected box moves along, as large as it was
        assert poses.box_scores == pytest.approx([0.7, 0.6])


def test_who_sits_behind_a_desk_keeps_the_box_that_the_detector_drew():
    upper = 7  # nose, eyes, ears, shoulders are certain, nothing below
    points = np.full((1, 17, 2), 100.0)
    points[0, :upper] = [[100, 40], [90, 35], [110, 35], [80, 40], [120, 40], [60, 80], [140, 80]]
    scores = np.where(np.arange(17) < upper, 0.9, 0.05)[None]
    drawn = np.array([[40.0, 20.0, 160.0, 220.0]])
    table = TrackTable(COCO17, max_age=30, oks_threshold=0.3, lost_score=0.3, start_score=0.4)
    bottoms = []
    for frame in range(6):
        boxes = table.boxes(frame / 30) if frame else drawn
        certainty = np.array([0.8 if frame == 0 else 0.0], np.float32)
        poses = PoseResult(
            points.astype(np.float32), scores.astype(np.float32), boxes.astype(np.float32), certainty, COCO17
        )
        table.update(poses, table.match(poses, frame / 30), frame / 30, drawn if frame == 0 else None)
        bottoms.append(table.boxes(frame / 30)[0, 3])
    keypoints_end = 80 + 0.1 * 80
    assert bottoms[0] == pytest.approx(keypoints_end + 0.7 * (220 - keypoints_end))
    assert all(later < earlier for earlier, later in pairwise(bottoms)), "and it shrinks if nothing is found there"
    assert bottoms[-1] < keypoints_end + 0.2 * (220 - keypoints_end)


def test_a_keypoint_that_flies_away_does_not_take_the_box_along():
    table = TrackTable(COCO17, max_age=30, oks_threshold=0.3, lost_score=0.3, start_score=0.4)
    rng = np.random.default_rng(0)
    points, drawn = rng.uniform(20, 180, (1, 17, 2)), np.array([[10.0, 10.0, 190.0, 190.0]])
    for frame in range(40):
        boxes = table.boxes(frame / 30) if frame else drawn
        found = points.copy()
        found[0, frame % 17] = (-1.0) ** frame * 1e9, 3e17
        certainty = np.full(1, 0.8 if frame % 5 == 0 else 0.0, np.float32)
        scores = np.full((1, 17), 0.9, np.float32)
        poses = PoseResult(found.astype(np.float32), scores, boxes.astype(np.float32), certainty, COCO17)
        table.update(poses, table.match(poses, frame / 30), frame / 30, drawn if frame % 5 == 0 else None)
        assert len(table.tracks) == 1
        box = table.boxes(frame / 30)[0]
        assert np.abs(box - drawn[0]).max() < 40, f"frame {frame}: {box}"


def test_who_is_sure_of_a_pose_anywhere_stays_near_the_image():
    """An untrained network finds somebody in any box, also outside the image, a little off its middle."""
    table = TrackTable(COCO17, max_age=30, oks_threshold=0.3, lost_score=0.3, start_score=0.4)
    whole, scores = np.array([[0.0, 0.0, 112.0, 128.0]]), np.full((1, 17), 0.9, np.float32)
    shape = np.random.default_rng(0).uniform(-0.2, 0.2, (17, 2))
    for frame in range(1000):
        detected = frame % 5 == 0
        box = whole if detected else table.boxes(frame / 25)
        low, high = box[:, :2], box[:, 2:]
        found = (low + high) / 2 + (high - low) * (shape + np.array([0.1, 0.05]))
        poses = PoseResult(
            found[None].astype(np.float32), scores, box.astype(np.float32), np.full(1, detected, np.float32), COCO17
        )
        ids = table.match(replace(poses, track_ids=np.array([1])), frame / 25)
        table.update(poses, ids, frame / 25, whole if detected else None)
        assert np.abs(table.boxes((frame + 1) / 25)).max() < 2000, f"frame {frame}"
