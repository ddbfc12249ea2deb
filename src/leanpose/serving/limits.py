"""A detector that refuses crowds: each person costs a pass of the network, so one image could keep a server busy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from leanpose.errors import LeanposeError
from leanpose.inference.detectors import Detections, Detector


class TooManyPeopleError(LeanposeError):
    """A detector found more people than are allowed; the message says how many."""


class LimitedDetector(Detector):
    """Another detector, with a limit.

    Args:
        detector: finds the people.
        max_people: in one image.
    """

    def __init__(self, detector: Detector, max_people: int) -> None:
        self._detector, self._max_people = detector, max_people
        self.name, self.description = detector.name, detector.description

    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Detections]:
        """Boxes and scores of the people in each image.

        Raises:
            TooManyPeopleError: there are more than allowed in one of them.
        """
        detections = self._detector(images)
        most = max((len(boxes) for boxes, _ in detections), default=0)
        if most > self._max_people:
            raise TooManyPeopleError(f"{most} people were detected, more than the {self._max_people} allowed")
        return detections

    def for_callers(self, count: int) -> LimitedDetector | None:
        """See `Detector.for_callers`."""
        detector = self._detector.for_callers(count)
        return None if detector is None else LimitedDetector(detector, self._max_people)
