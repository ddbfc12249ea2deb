"""Data association from frame to frame: tracks of people, and poses matched to them by object keypoint similarity
(OKS).

A track predicts where its person is now from the last pose and the speed; poses and tracks are paired so that the sum
of their similarities is the largest (Hungarian method). Tracks that were just seen choose first, then the lost ones;
what neither finds nor is found by its keypoints is compared by its box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from leanpose.geometry import box_area, box_intersection, box_iou, boxes_from_keypoints
from leanpose.inference.results import PoseResult
from leanpose.nms import oks_between, oks_nms
from leanpose.skeleton import Skeleton

Boxes = Float[np.ndarray, "N 4"]
Ids = Int[np.ndarray, " P"]

CERTAIN = 0.2  # keypoints below this score are ignored in matching, as in the papers' rescoring
MARGIN = 0.1  # a person's box is wider than the keypoints, by about this share of its longer side
SHRINK = 0.3  # of the way per frame: a leg that is unseen for a moment must not be lost for good
VELOCITY_WEIGHT = 0.5  # of the newest step in a track's velocity
COVERED = 0.3  # IoU from which a detection and a track are taken for the same person
SAME_BOX = 0.5  # IoU of a track's box and a pose's from which they are the same person, whatever the keypoints say
INSIDE = 0.5  # share of a track's box inside a detection from which the detection confirms the track
DUPLICATE = 0.6  # OKS from which two poses of one frame are the same person
MAX_SPEED = 1.0  # longer sides of their box that a person moves between two frames
MAX_EXTRAPOLATION = 1.0  # seconds for which a velocity is extrapolated
DEFAULT_STEP = 1 / 30  # seconds, until a video has shown its own
STEP_WEIGHT = 0.1  # of the newest step in a video's usual one
UNCONFIRMED = 3  # detections in a row that may miss a track before it counts as no person


@dataclass
class Track:
    """One person over time.

    Attributes:
        id: theirs for good.
        keypoints: of the last pose, as found.
        scores: of the keypoints; 0 for those far outside the person box.
        box: xyxy around the person then, in pixels: where to look next, before the speed is added.
        box_score: of the last detection.
        velocity: of the whole person, in pixels per second.
        seconds: the time of the last pose.
        missed: frames since then.
        unconfirmed: detections in a row that did not see the person.
    """

    id: int
    keypoints: Float[np.ndarray, "K 2"]
    scores: Float[np.ndarray, " K"]
    box: Float[np.ndarray, " 4"]
    box_score: float
    velocity: Float[np.ndarray, " 2"]
    seconds: float
    missed: int = 0
    unconfirmed: int = 0


class TrackTable:
    """The tracks of one video: predicts positions, and assigns the poses of the next frame to tracks.

    Args:
        skeleton: of the poses. Similarity is that of its part `body` where it has one, else of all its points.
        max_age: frames for which a lost person is remembered.
        oks_threshold: lowest similarity of a pose to a track's prediction for them to be the same person.
        lost_score: poses of lower `confidence` are discarded.
        start_score: lowest box score of a pose that may begin a track.
    """

    def __init__(
        self, skeleton: Skeleton, *, max_age: int, oks_threshold: float, lost_score: float, start_score: float
    ) -> None:
        self.max_age, self.oks_threshold = max_age, oks_threshold
        self.lost_score, self.start_score = lost_score, start_score
        self.tracks: list[Track] = []
        self._next_id = 1
        self._seconds: float | None = None  # the time of the last frame
        self._usual_step = DEFAULT_STEP
        self._counted = np.array(skeleton.parts.get("body") or range(len(skeleton)), dtype=int)
        self._sigmas = np.array(skeleton.sigmas)[self._counted]
        self._spans = spans_a_person(skeleton)

    @property
    def active(self) -> list[Track]:
        """The people seen in the last frame."""
        return [track for track in self.tracks if not track.missed]

    def boxes(self, seconds: float) -> Float[np.ndarray, "T 4"]:
        """Where the active people are expected at this time, xyxy in pixels."""
        if not self.active:
            return np.zeros((0, 4))
        return np.stack([track.box + np.tile(_step(track, seconds), 2) for track in self.active])

    def distinct(self, poses: PoseResult) -> Int[np.ndarray, " M"]:
        """The confident poses without duplicates: of similar ones the most confident."""
        certainty = confidence(poses.keypoint_scores)
        rows = np.flatnonzero(certainty >= self.lost_score)
        areas = box_area(self._enclosing(poses[rows]))
        similarity = self._similarity(poses.keypoints[rows], poses.keypoint_scores[rows], areas, poses[rows], areas)
        return np.sort(rows[oks_nms(similarity, certainty[rows], DUPLICATE)])

    def match(self, poses: PoseResult, seconds: float) -> Int[np.ndarray, " P"]:
        """For each pose the id of the track that it continues, or 0.

        Args:
            poses: of one frame; where `ids` are given, each is the track in whose box the pose was found (or 0). Such
                a pose goes to that track if similarity brings neither of the two to another: a person who moves
                faster than predicted is still the one in the box.
            seconds: the frame's time.
        """
        ids = np.zeros(len(poses), np.int64)
        boxes = self._enclosing(poses)
        self._pair(self.active, poses, boxes, seconds, ids)
        if poses.track_ids is not None:
            left = {track.id for track in self.active} - set(ids.tolist())
            for row in np.flatnonzero(ids == 0):
                if int(poses.track_ids[row]) in left:
                    ids[row] = poses.track_ids[row]
                    left.remove(int(ids[row]))
        self._pair(self.active, poses, boxes, seconds, ids, by_box=True)
        lost = [track for track in self.tracks if track.missed]
        for by_box in (False, True):
            self._pair(lost, poses, boxes, seconds, ids, by_box=by_box)
        return ids

    def update(self, poses: PoseResult, ids: Ids, seconds: float, detections: Boxes | None = None) -> PoseResult:
        """Take the poses of a frame in: tracks go on, begin, get lost and are forgotten.

        Args:
            poses: distinct people, with box scores of 0 for those that were not found by the detector.
            ids: from `match`.
            seconds: the frame's time.
            detections: boxes of all people that the detector saw in this frame; None where it did not look.

        Returns:
            The poses of tracks, with their `ids`, by rising id.
        """
        self._measure_step(seconds)
        known = (ids > 0) | (poses.box_scores >= self.start_score)
        poses, ids = poses[known], ids[known]
        by_id = {track.id: track for track in self.tracks}
        boxes, scores = self._enclosing(poses), scores_in_sight(poses)
        # What the detector saw may reach beyond the keypoints, where a desk or the image's border hides some.
        boxes = np.where(poses.box_scores[:, None] > 0, _not_cut_off(boxes, poses.boxes), boxes)
        final = ids.copy()
        for row, person in enumerate(ids.tolist()):
            if person == 0:
                final[row] = self._next_id
                self._next_id += 1
                track = Track(
                    int(final[row]), poses.keypoints[row], scores[row], boxes[row], float(poses.box_scores[row]),
                    np.zeros(2), seconds,
                )  # fmt: skip
                self.tracks.append(track)
            else:
                self._continue(by_id[person], poses, row, boxes[row], scores[row], seconds)
        matched = set(final.tolist())
        for track in self.tracks:
            if track.id not in matched:
                track.missed += 1
        if detections is not None:
            self._confirm(detections)
        self.tracks = [t for t in self.tracks if t.missed <= self.max_age and t.unconfirmed < UNCONFIRMED]
        alive = {track.id: track for track in self.tracks}
        rows = np.array([row for row in np.argsort(final, kind="stable") if int(final[row]) in alive], dtype=int)
        box_scores = np.array([alive[int(person)].box_score for person in final[rows]], poses.box_scores.dtype)
        return replace(poses[rows], track_ids=final[rows], box_scores=box_scores)

    def _continue(
        self, track: Track, poses: PoseResult, row: int, box: Float[np.ndarray, " 4"], scores: Float[np.ndarray, " K"],
        seconds: float,
    ) -> None:  # fmt: skip
        keypoints = poses.keypoints[row]
        both = (track.scores >= CERTAIN) & (scores >= CERTAIN)
        moved = np.median((keypoints - track.keypoints)[both], axis=0) if both.any() else np.zeros(2)
        detected = poses.box_scores[row] > 0
        before = track.box + np.tile(moved, 2)
        if self._spans:
            box = _not_cut_off(box, before)
        elif not detected:
            box = before
        # Two frames with almost one time, as jittering clocks give them, would make a step look like a leap.
        newest = moved / max(seconds - track.seconds, self._usual_step / 2)
        track.velocity = VELOCITY_WEIGHT * newest + (1 - VELOCITY_WEIGHT) * track.velocity
        # The jump back to a detection is not a velocity: without a bound, a model that is confident anywhere would
        # oscillate.
        fastest = (box[2:] - box[:2]).max() * MAX_SPEED / self._usual_step
        track.velocity *= min(1.0, fastest / max(np.linalg.norm(track.velocity), 1e-9))
        track.box = box
        track.keypoints, track.scores, track.seconds = keypoints, scores, seconds
        track.missed = 0
        if detected:
            track.box_score, track.unconfirmed = float(poses.box_scores[row]), 0

    def _measure_step(self, seconds: float) -> None:
        """Follow the usual time between frames; a single long gap counts as twice that at most."""
        if self._seconds is not None:
            newest = min(seconds - self._seconds, 2 * self._usual_step)
            self._usual_step += STEP_WEIGHT * (newest - self._usual_step)
        self._seconds = seconds

    def _confirm(self, detections: Boxes) -> None:
        """Count the detections that missed each active track."""
        active = self.active
        if not active:
            return
        boxes = np.stack([track.box for track in active])
        inside = box_intersection(boxes, detections) / np.maximum(box_area(boxes), 1e-9)[:, None]
        for track, share in zip(active, inside.max(axis=1, initial=0.0).tolist(), strict=True):
            track.unconfirmed = 0 if share >= INSIDE else track.unconfirmed + 1

    def _pair(
        self,
        tracks: Sequence[Track],
        poses: PoseResult,
        boxes: Boxes,
        seconds: float,
        ids: Ids,
        *,
        by_box: bool = False,
    ) -> None:
        """Give the poses that are still without an id those of these tracks that are not among them, where they are
        alike, so that the similarities sum up to the most. Boxes are compared since a poor pose may look quite
        different in the next frame."""
        from scipy.optimize import linear_sum_assignment

        tracks, rows = [track for track in tracks if track.id not in set(ids.tolist())], np.flatnonzero(ids == 0)
        if not tracks or not len(rows):
            return
        steps = np.stack([_step(track, seconds) for track in tracks])
        track_boxes = np.stack([track.box for track in tracks])
        if by_box:
            similarity, threshold = box_iou(track_boxes + np.tile(steps, 2), boxes[rows]), SAME_BOX
        else:
            # The position of a lost person grows uncertain, by about their own size a second.
            growth = np.array([1 + (seconds - track.seconds if track.missed else 0.0) for track in tracks]) ** 2
            keypoints = np.stack([track.keypoints for track in tracks]) + steps[:, None]
            scores, areas = np.stack([track.scores for track in tracks]), box_area(track_boxes) * growth
            similarity = self._similarity(keypoints, scores, areas, poses[rows], box_area(boxes[rows]))
            threshold = self.oks_threshold
        similarity = np.where(similarity >= threshold, similarity, 0.0)
        for track, column in zip(*linear_sum_assignment(similarity, maximize=True), strict=True):
            if similarity[track, column] > 0:
                ids[rows[column]] = tracks[track].id

    def _similarity(
        self,
        keypoints: Float[np.ndarray, "T K 2"],
        scores: Float[np.ndarray, "T K"],
        areas: Float[np.ndarray, " T"],
        poses: PoseResult,
        pose_areas: Float[np.ndarray, " P"],
    ) -> Float[np.ndarray, "T P"]:
        counted = self._counted
        visible = scores[:, counted] >= CERTAIN, poses.keypoint_scores[:, counted] >= CERTAIN
        found = poses.keypoints[:, counted]
        return oks_between(keypoints[:, counted], areas, found, pose_areas, self._sigmas, visible=visible)

    def _enclosing(self, poses: PoseResult) -> Float[np.ndarray, "P 4"]:
        """Boxes around people as a detector would draw them: around the certain keypoints, if these span a person."""
        certain = scores_in_sight(poses) >= CERTAIN
        looked = poses.boxes.astype(np.float64)
        if not self._spans:
            return looked
        boxes = boxes_from_keypoints(np.concatenate([poses.keypoints, certain[..., None]], axis=2))
        side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0, keepdims=True)
        boxes = boxes + MARGIN * side * np.array([-1.0, -1.0, 1.0, 1.0])
        return np.where(((certain.sum(axis=1) >= 2) & (side[:, 0] > 1))[:, None], boxes, looked)


def _not_cut_off(boxes: Float[np.ndarray, "... 4"], wider: Float[np.ndarray, "... 4"]) -> Float[np.ndarray, "... 4"]:
    """The boxes, where others reach further by most of the way there."""
    outward = np.array([-1.0, -1.0, 1.0, 1.0])
    return boxes + outward * (1 - SHRINK) * np.maximum((wider - boxes) * outward, 0.0)


def scores_in_sight(poses: PoseResult) -> Float[np.ndarray, "P K"]:
    """The keypoints' scores, 0 for those far outside the person box: on a map that is nearly flat, the
    decoders' parabola may have its top anywhere, and a box around that would grow without end."""
    low, high = poses.boxes[:, None, :2].astype(np.float64), poses.boxes[:, None, 2:].astype(np.float64)
    reach = (high - low).max(axis=2, keepdims=True)
    inside = (poses.keypoints >= low - reach) & (poses.keypoints <= high + reach)
    return np.where(inside.all(axis=2), poses.keypoint_scores, 0.0)


def confidence(scores: Float[np.ndarray, "P K"]) -> Float[np.ndarray, " P"]:
    """How certain a pose is: the mean of the best third of its keypoint scores, since the rest may be out of sight."""
    best = max(1, -(-scores.shape[1] // 3))
    return np.sort(scores, axis=1)[:, -best:].mean(axis=1)


def spans_a_person(skeleton: Skeleton) -> bool:
    """Whether the keypoints reach from head to foot, so that a box around them is a box around the person."""
    names = skeleton.keypoints
    head = any(word in name for name in names for word in ("nose", "eye", "ear", "head"))
    return head and any("ankle" in name for name in names)


def _step(track: Track, seconds: float) -> Float[np.ndarray, " 2"]:
    """How far the track's person should have moved since the last pose."""
    return track.velocity * min(seconds - track.seconds, MAX_EXTRAPOLATION)
