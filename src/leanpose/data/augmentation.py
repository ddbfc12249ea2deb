"""Augmentation of crops: geometric (`Augmentation.sample`) and photometric (`Augmentation.sample_photometric`).

The geometric part is SDPose's recipe (its configurations on mmpose 0.29): shift, half body, scale, rotation and flip,
in the same order, from the same distributions. `truncnorm` makes it that of mmpose 1.x, with which RTMPose and DWPose
are trained. Nothing is warped here; the result is folded into one affine map.

The photometric part is RTMPose's recipe (Jiang et al., 2023; mmpose's configurations): YOLOX's colour jitter, two blurs
and one dropped rectangle; and PP-TinyPose's dropped disc next to a keypoint. All random numbers come from the given
generator, so a crop is a function of (seed, epoch, person).
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float, Int16, UInt8
from pydantic import AfterValidator, Field
from scipy.special import ndtr, ndtri

from leanpose.data.annotations import PoseAnnotation
from leanpose.geometry import PADDING, bbox_to_center_scale
from leanpose.schema import Section
from leanpose.skeleton import Skeleton

BLUR_SIZES = (3, 5, 7)  # sides of the kernels
JOINT_DROPOUT_OFFSET = 0.05  # standard deviation of the disc's centre from its keypoint, as a share of the crop's width
HALF_BODY_PADDING = 1.5  # the region around a half of the body is its keypoints' extent times this


class CropParams(NamedTuple):
    """The geometric parameters of a crop.

    Attributes:
        center: (2,) x, y in image pixels.
        scale: (2,) width and height of the region in image pixels.
        rotation: in degrees, as for `leanpose.geometry.warp_matrix`.
        flip: whether the crop is flipped.
    """

    center: Float[np.ndarray, " 2"]
    scale: Float[np.ndarray, " 2"]
    rotation: float
    flip: bool


class PhotometricParams(NamedTuple):
    """The photometric parameters of a crop, applied in this order.

    Attributes:
        change: (3,) added to OpenCV's 8-bit hue, saturation and value.
        mean, median: kernel size of each blur; 1 for none.
        hole: top, left, bottom and right (exclusive) of a black rectangle; equal if there is none.
        disc: x, y and radius of a black disc; radius 0 is none.
    """

    change: Int16[np.ndarray, " 3"]
    mean: int
    median: int
    hole: tuple[int, int, int, int]
    disc: tuple[float, float, float]

    def apply(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The changed crop; the array that is given (RGB) stays as it is."""
        import cv2

        if self.change.any():
            image = _shift_colours(image, self.change)
        if self.mean > 1:
            image = cv2.blur(image, (self.mean, self.mean)).astype(np.uint8)
        if self.median > 1:
            image = cv2.medianBlur(image, self.median).astype(np.uint8)
        top, left, bottom, right = self.hole
        x, y, radius = self.disc
        if bottom > top or radius > 0:
            image = image.copy()
            image[top:bottom, left:right] = 0
            if radius > 0:
                rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
                image[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = 0
        return image


def _truncnorm(ranks: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Uniform draws between 0 and 1, made draws of the normal distribution truncated at one standard deviation."""
    low, high = ndtr(-1.0), ndtr(1.0)
    return ndtri(low + (high - low) * ranks)


def _shift_colours(image: UInt8[np.ndarray, "h w 3"], change: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Add to hue (which goes round), saturation and value (which are cut)."""
    import cv2

    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int16) + change
    hsv[..., 0] %= 180
    np.clip(hsv[..., 1:], 0, 255, out=hsv[..., 1:])
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.uint8)


def in_order(bounds: tuple[float, float]) -> tuple[float, float]:
    """Check a range of a minimum and a maximum."""
    if bounds[0] > bounds[1]:
        raise ValueError("the first number must be the minimum, the second the maximum")
    return bounds


Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Fractions = Annotated[tuple[Fraction, Fraction], AfterValidator(in_order)]


class Augmentation(Section):
    """Augmentation of crops in training. The defaults are SDPose's recipe; the values in brackets are RTMPose's.

    Attributes:
        shift, shift_probability: the centre moves by up to this fraction of the region's width and height.
        flip_probability: probability of a horizontal flip.
        half_body_probability, half_body_keypoints: probability of cropping to the upper or lower half, for people with
            more labelled keypoints than this number.
        scale: the region grows or shrinks by a normally distributed factor with this standard deviation around 1,
            truncated at one standard deviation.
        rotation, rotation_probability: normally distributed angle with this standard deviation in degrees, truncated at
            two standard deviations.
        truncnorm: shift, factor and angle are drawn from normal distributions truncated at one standard deviation (the
            factor's and the angle's otherwise gather what lies beyond their ends there, and the shift's is uniform)
            [true].
        hue, saturation, value: largest change, up or down, of OpenCV's 8-bit HSV [5, 30, 30]; each of the three happens
            in half of the crops.
        blur_probability: probability of a mean blur, and independently of a median blur, over 3×3, 5×5 or 7×7 pixels
            [0.1].
        coarse_dropout_probability: probability of a black rectangle [1].
        coarse_dropout_size: minimum and maximum of its sides, as fractions of the crop's [0.2, 0.4].
        joint_dropout_probability: probability of a black disc next to a labelled keypoint [PP-TinyPose: 0.5].
        joint_dropout_radius: its minimum and maximum radius, as fractions of the crop's width [PP-TinyPose: 0.1, 0.2].
    """

    shift: float = Field(default=0.16, ge=0)
    shift_probability: Probability = 0.3
    flip_probability: Probability = 0.5
    half_body_probability: Probability = 0.3
    half_body_keypoints: int = Field(default=8, ge=1)
    scale: float = Field(default=0.35, ge=0, lt=1)
    rotation: float = Field(default=45.0, ge=0)
    rotation_probability: Probability = 0.6
    truncnorm: bool = False
    hue: float = Field(default=0.0, ge=0, le=90)
    saturation: float = Field(default=0.0, ge=0, le=255)
    value: float = Field(default=0.0, ge=0, le=255)
    blur_probability: Probability = 0.0
    coarse_dropout_probability: Probability = 0.0
    coarse_dropout_size: Fractions = (0.2, 0.4)
    joint_dropout_probability: Probability = 0.0
    joint_dropout_radius: Fractions = (0.1, 0.2)

    @property
    def has_photometric(self) -> bool:
        """Whether `sample_photometric` changes anything."""
        colours = self.hue, self.saturation, self.value
        return any((*colours, self.blur_probability, self.coarse_dropout_probability, self.joint_dropout_probability))

    def sample(
        self,
        rng: np.random.Generator,
        person: PoseAnnotation,
        skeleton: Skeleton,
        input_size: tuple[int, int],
        padding: float = PADDING,
    ) -> CropParams:
        """Sample the crop of one person.

        Args:
            rng: the only source of randomness; every call takes the same number of draws from it.
            input_size: height and width of the crop in pixels; the region has its aspect ratio.
            padding: size of the region relative to the box, before augmentation.
        """
        shift_by = rng.uniform(-1.0, 1.0, 2)
        chance = rng.random(4)
        scale_normal, rotation_normal, half_normal = rng.standard_normal(3)
        if self.truncnorm:
            scale_normal, rotation_normal = _truncnorm(ndtr(np.array([scale_normal, rotation_normal])))
            shift_by = _truncnorm((shift_by + 1) / 2)

        centers, scales = bbox_to_center_scale(person.box[None], input_size, padding)
        center, scale = centers[0], scales[0]
        if chance[0] < self.shift_probability:
            center = center + shift_by * self.shift * scale
        if (person.keypoints[:, 2] > 0).sum() > self.half_body_keypoints and chance[1] < self.half_body_probability:
            # mmpose draws this coin from a normal distribution, so the upper half comes up in 69 % of cases.
            half = self._half_body(person, skeleton, input_size[1] / input_size[0], prefer_upper=half_normal < 0.5)
            if half is not None:
                center, scale = half[0], half[1] * (padding / PADDING)
        scale = scale * np.clip(1.0 + scale_normal * self.scale, 1.0 - self.scale, 1.0 + self.scale)
        rotation = 0.0
        if chance[2] <= self.rotation_probability:
            rotation = float(np.clip(rotation_normal * self.rotation, -2 * self.rotation, 2 * self.rotation))
        return CropParams(center, scale, rotation, bool(chance[3] <= self.flip_probability))

    def _half_body(
        self, person: PoseAnnotation, skeleton: Skeleton, aspect: float, *, prefer_upper: bool
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Centre and scale around the labelled keypoints of one half; None if there are too few."""
        labelled = person.keypoints[:, 2] > 0
        upper = np.isin(np.arange(len(skeleton)), skeleton.upper_body)
        upper_points, lower_points = person.keypoints[labelled & upper, :2], person.keypoints[labelled & ~upper, :2]
        take_upper = (prefer_upper and len(upper_points) > 2) or len(lower_points) <= 2
        points = upper_points if take_upper else lower_points
        if len(points) < 2:
            return None
        width, height = np.ptp(points, axis=0)
        width, height = max(width, height * aspect), max(height, width / aspect)
        if width <= 0:
            return None
        return points.mean(axis=0).astype(np.float64), np.array([width, height], np.float64) * HALF_BODY_PADDING

    def sample_photometric(
        self,
        rng: np.random.Generator,
        size: tuple[int, int],
        keypoints: Float[np.ndarray, "K 2"],
        weights: Float[np.ndarray, " K"],
    ) -> PhotometricParams:
        """Sample the photometric parameters of one crop.

        Args:
            rng: the only source of randomness; every call takes the same number of draws from it.
            size: height and width of the crop in pixels.
            keypoints: x, y in its pixels.
            weights: above 0 where there is a label.
        """
        amounts, happens = rng.uniform(-1.0, 1.0, 3), rng.random(3) < 0.5
        chance, kernels = rng.random(3), rng.integers(len(BLUR_SIZES), size=2)
        sides, corner = rng.uniform(*self.coarse_dropout_size, 2), rng.random(2)
        beside, which, radius = rng.standard_normal(2), rng.random(2), rng.uniform(*self.joint_dropout_radius)

        change = (amounts * happens * (self.hue, self.saturation, self.value)).astype(np.int16)
        mean, median = (
            BLUR_SIZES[kernel] if drawn < self.blur_probability else 1
            for kernel, drawn in zip(kernels, chance[:2], strict=True)
        )
        hole, disc = (0, 0, 0, 0), (0.0, 0.0, 0.0)
        if chance[2] < self.coarse_dropout_probability:
            limits = np.array(size)
            extent = np.maximum((sides * limits).astype(int), 1)
            top, left = (corner * (limits - extent + 1)).astype(int)
            hole = int(top), int(left), int(top + extent[0]), int(left + extent[1])
        labelled = np.flatnonzero(weights > 0)
        if which[0] < self.joint_dropout_probability and len(labelled):
            x, y = keypoints[labelled[int(which[1] * len(labelled))]] + beside * JOINT_DROPOUT_OFFSET * size[1]
            disc = float(x), float(y), float(radius * size[1])
        return PhotometricParams(change, mean, median, hole, disc)
