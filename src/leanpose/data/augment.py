"""Geometric augmentation: one draw decides shift, half body, scale, rotation and flip of a person's crop.

The recipe is SDPose's (its configurations on mmpose 0.29): the same steps, in the same order, from the same
distributions. `truncnorm` makes it that of mmpose 1.x, which RTMPose and DWPose are trained with. Nothing is warped here; the
result is folded into one affine map.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, ndtri

from leanpose.data.appearance import PhotometricAugmentation
from leanpose.data.sample import PoseAnnotation
from leanpose.geometry import bbox_to_center_scale
from leanpose.skeleton import Skeleton


class CropParams(NamedTuple):
    """Which part of the image a crop shows.

    Attributes:
        center: (2,) x, y in image pixels.
        scale: (2,) width and height of the region in image pixels.
        rotation: in degrees, as `leanpose.geometry.warp_matrix` takes it.
        flip: whether the crop is mirrored.
    """

    center: Float[np.ndarray, " 2"]
    scale: Float[np.ndarray, " 2"]
    rotation: float
    flip: bool


def _truncated(ranks: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Uniform draws between 0 and 1, made draws of the normal distribution between its first deviations."""
    low, high = ndtr(-1.0), ndtr(1.0)
    return ndtri(low + (high - low) * ranks)


@dataclass(frozen=True)
class Augmentation:
    """How crops are varied in training. The defaults are SDPose's recipe.

    Attributes:
        shift, shift_probability: the centre moves by up to this fraction of the region's width and height.
        flip_probability: of a mirror image.
        half_body_probability, half_body_keypoints: of cropping to the upper or lower half, for people with more
            labelled keypoints than this number.
        half_body_padding: the half's keypoint extent is enlarged by this factor.
        scale: the region grows or shrinks by a normal factor of this deviation around 1, cut at one deviation.
        rotation, rotation_probability: normal angle of this deviation in degrees, cut at two deviations.
        truncated: shift, factor and angle are drawn from normal distributions that end at one deviation (the factor's and
            the angle's otherwise gather what lies beyond their ends there, and the shift's is uniform).
        appearance: how the crop's look changes besides.
    """

    shift: float = 0.16
    shift_probability: float = 0.3
    flip_probability: float = 0.5
    half_body_probability: float = 0.3
    half_body_keypoints: int = 8
    half_body_padding: float = 1.5
    scale: float = 0.35
    rotation: float = 45.0
    rotation_probability: float = 0.6
    truncnorm: bool = False
    appearance: PhotometricAugmentation = field(default_factory=PhotometricAugmentation)

    def sample(
        self, rng: np.random.Generator, sample: PoseAnnotation, skeleton: Skeleton, input_size: tuple[int, int]
    ) -> CropParams:
        """Draw the crop of one person.

        Args:
            rng: the only source of randomness; every call takes the same number of draws from it.
            input_size: height and width of the crop in pixels; the region has its aspect ratio.
        """
        shift_by = rng.uniform(-1.0, 1.0, 2)
        chance = rng.random(4)
        scale_normal, rotation_normal, half_normal = rng.standard_normal(3)
        if self.truncnorm:
            scale_normal, rotation_normal = _truncated(ndtr(np.array([scale_normal, rotation_normal])))
            shift_by = _truncated((shift_by + 1) / 2)

        centers, scales = bbox_to_center_scale(sample.box[None], input_size)
        center = np.asarray(centers[0], np.float64)
        scale = np.asarray(scales[0], np.float64)
        if chance[0] < self.shift_probability:
            center = center + shift_by * self.shift * scale
        labelled = sample.keypoints[:, 2] > 0
        if labelled.sum() > self.half_body_keypoints and chance[1] < self.half_body_probability:
            # The toolbox draws this coin from a normal distribution, so the upper half comes up in 69 % of cases.
            half = self._half_body(sample.keypoints, labelled, skeleton, input_size, prefer_upper=half_normal < 0.5)
            if half is not None:
                center, scale = half
        scale = scale * np.clip(1.0 + scale_normal * self.scale, 1.0 - self.scale, 1.0 + self.scale)
        rotation = 0.0
        if chance[2] <= self.rotation_probability:
            rotation = float(np.clip(rotation_normal * self.rotation, -2 * self.rotation, 2 * self.rotation))
        return CropParams(center, scale, rotation, bool(chance[3] <= self.flip_probability))

    def _half_body(
        self,
        keypoints: Float[np.ndarray, "K 3"],
        labelled: np.ndarray,
        skeleton: Skeleton,
        input_size: tuple[int, int],
        *,
        prefer_upper: bool,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Centre and scale around the labelled keypoints of one half; None where there are too few."""
        upper = np.zeros(len(skeleton), bool)
        upper[list(skeleton.upper_body)] = True
        upper_points = keypoints[labelled & upper, :2]
        lower_points = keypoints[labelled & ~upper, :2]
        take_upper = (prefer_upper and len(upper_points) > 2) or len(lower_points) <= 2
        points = upper_points if take_upper else lower_points
        if len(points) < 2:
            return None
        width, height = np.ptp(points, axis=0)
        aspect = input_size[1] / input_size[0]
        width, height = max(width, height * aspect), max(height, width / aspect)
        if width <= 0:
            return None
        return points.mean(axis=0).astype(np.float64), np.array([width, height], np.float64) * self.half_body_padding
