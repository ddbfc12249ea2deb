"""The One-Euro filter for poses: little jitter at rest, little lag in motion (Casiez et al., CHI 2012).

A first-order low-pass filter whose cut-off frequency grows with the speed of what it filters: fc = min_cutoff +
beta · |speed|. Here the speed is the length of a keypoint's velocity, in sizes of the person a second, so that one
setting holds for any resolution and any distance from the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from leanpose.errors import LeanposeError
from leanpose.geometry import box_area
from leanpose.inference.results import PoseResult

Memory = tuple[Float[np.ndarray, "K 2"], Float[np.ndarray, "K 2"], Float[np.ndarray, " K"]]
"""State of a person's points: where they were, their velocity in pixels per second, and when each was updated last."""


@dataclass(frozen=True)
class OneEuro:
    """Settings of the One-Euro filter.

    Attributes:
        min_cutoff: hertz; the cut-off of a point at rest. Lower means less jitter, and more lag at the start of a
            motion.
        beta: how many hertz the cut-off grows by for a speed of one person's size (the square root of the box's area)
            a second. Higher means less lag in motion.
        derivative_cutoff: hertz; the cut-off of the speed itself (the paper's dcutoff).
        min_score: keypoints below this score pass as they are and leave the filter as it was.

    Raises:
        LeanposeError: a setting is out of its range.
    """

    min_cutoff: float = 1.0
    beta: float = 12.0
    derivative_cutoff: float = 1.0
    min_score: float = 0.3

    def __post_init__(self) -> None:
        for name in ("min_cutoff", "derivative_cutoff"):
            if not 0 < getattr(self, name) < math.inf:
                raise LeanposeError(f"OneEuro's {name} is a frequency above 0 hertz, not {getattr(self, name)}.")
        if not 0 <= self.beta < math.inf:
            raise LeanposeError(f"OneEuro's beta is 0 or more, not {self.beta}.")
        if not 0 <= self.min_score <= 1:
            raise LeanposeError(f"OneEuro's min_score lies between 0 and 1, not at {self.min_score}.")


def smoothing_factor(
    cutoff: Float[np.ndarray, "*N"] | float, step: Float[np.ndarray, "*N"] | float
) -> Float[np.ndarray, "*N"]:
    """The weight of a new value in a low-pass filter of this cut-off (hertz) after this time (seconds): eq. 2 and 3."""
    turn = 2 * math.pi * np.asarray(cutoff, np.float64) * step
    return turn / (turn + 1)


class PoseSmoother:
    """Smooths the keypoints of tracked people, each point of each person by itself; call it frame by frame.

    A person who is not in a frame is forgotten: if they come back, smoothing starts again.

    Args:
        settings: of the filter.
    """

    def __init__(self, settings: OneEuro | None = None) -> None:
        self.settings = settings or OneEuro()
        self._memory: dict[int, Memory] = {}

    def __call__(self, poses: PoseResult, seconds: float) -> PoseResult:
        """The same people with smoothed keypoints.

        Args:
            poses: of one frame, with `track_ids`.
            seconds: the frame's time; the steps may be uneven, but time must go on.

        Raises:
            LeanposeError: the poses have no ids.
        """
        if poses.track_ids is None:
            raise LeanposeError("Only tracked poses can be smoothed: these have no ids.")
        if not len(poses):
            self._memory = {}
            return poses
        measured = poses.keypoints.astype(np.float64)
        sizes = np.sqrt(np.maximum(box_area(poses.boxes), 1.0))[:, None]
        points = poses.keypoints.shape[1]
        blank = np.zeros((points, 2)), np.zeros((points, 2)), np.full(points, -np.inf)
        memory = [self._memory.get(person, blank) for person in poses.track_ids.tolist()]
        last, last_velocity, updated = (np.stack(values) for values in zip(*memory, strict=True))
        known = np.isfinite(updated)
        certain = (poses.keypoint_scores >= self.settings.min_score) & np.isfinite(measured).all(axis=2)
        fresh = certain & ~known
        step = np.where(known, seconds - updated, 0.0)
        going = certain & known & (step > 0)

        safe = np.where(going, step, 1.0)
        velocity = np.where(going[..., None], (measured - last) / safe[..., None], 0.0)
        weight = smoothing_factor(self.settings.derivative_cutoff, safe)[..., None]
        velocity = weight * velocity + (1 - weight) * last_velocity
        speed = np.linalg.norm(velocity, axis=2) / sizes
        weight = smoothing_factor(self.settings.min_cutoff + self.settings.beta * speed, safe)[..., None]
        filtered = weight * measured + (1 - weight) * last

        last_velocity = np.where(going[..., None], velocity, last_velocity)
        last = np.where(going[..., None], filtered, np.where(fresh[..., None], measured, last))
        updated = np.where(going | fresh, seconds, updated)
        self._memory = dict(zip(poses.track_ids.tolist(), zip(last, last_velocity, updated, strict=True), strict=True))
        smoothed = np.where(certain[..., None], last, measured)
        return replace(poses, keypoints=smoothed.astype(poses.keypoints.dtype))
