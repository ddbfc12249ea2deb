"""The person of an image to explain, and its crop as the model's input and in display resolution."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from leanpose.backends.base import ModelSpec
from leanpose.errors import LeanposeError
from leanpose.geometry import box_area, pixel_ratio
from leanpose.inference.detectors import Detector
from leanpose.models.base import PoseModel

SHOWN_HEIGHT = 384  # pixels of the crop that is drawn upon, at least


@dataclass(frozen=True)
class PersonView:
    """One person's crop.

    Attributes:
        images: one normalized crop, the model's input.
        shown: the same region at display resolution, an integer multiple of the model's input size.
        step: pixels of `shown` per pixel of the model's crop, (x, y).
    """

    images: Float[Tensor, "1 3 H W"]
    shown: UInt8[np.ndarray, "h w 3"]
    step: tuple[float, float]

    def to_shown(self, points: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "... 2"]:
        """Points (x, y) from pixels of the model's crop to pixels of `shown`."""
        return points * np.array(self.step)


def choose_box(
    image: UInt8[np.ndarray, "H W 3"], detector: Detector, person: int = 0
) -> tuple[Float[np.ndarray, " 4"], int]:
    """One person's box (xyxy) and the number of people.

    Args:
        person: index by size, 0 for the largest.

    Raises:
        LeanposeError: there are fewer people.
    """
    boxes = detector([image])[0][0]
    if not 0 <= person < len(boxes):
        raise LeanposeError(
            f"There is no person {person} (0 is the largest): the detector detects {len(boxes)}; "
            "give a box with --box X1 Y1 X2 Y2."
        )
    return boxes[np.argsort(-box_area(boxes), kind="stable")[person]], len(boxes)


def check_box(image: UInt8[np.ndarray, "H W 3"], box: tuple[float, ...]) -> Float[np.ndarray, " 4"]:
    """A user's box as an array.

    Raises:
        LeanposeError: it is not a box, or lies outside the image.
    """
    (x1, y1, x2, y2), (height, width) = box, image.shape[:2]
    if not (np.isfinite(box).all() and max(x1, 0) < min(x2, width) and max(y1, 0) < min(y2, height)):
        shown = " ".join(f"{value:g}" for value in box)
        raise LeanposeError(
            f"The box {shown} is not x1 y1 x2 y2 in pixels of the image, which is {width} wide and {height} high."
        )
    return np.array(box, dtype=np.float64)


def look_at(image: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, " 4"], model: PoseModel) -> PersonView:
    """Crop a person as `PoseEstimator` does."""
    spec, (height, width) = ModelSpec.of(model), model.input_size
    times = -(-SHOWN_HEIGHT // height)
    size = height * times, width * times
    crops, shown = (replace(spec, input_size=each).crop([image], box[None])[0] for each in (model.input_size, size))
    with torch.inference_mode():
        images = model.normalize(torch.from_numpy(crops).to(model.device))
    return PersonView(images, shown[0], pixel_ratio(size, model.input_size, model.codec.warp))
