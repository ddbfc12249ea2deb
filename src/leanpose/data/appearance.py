"""What changes a crop's look and not its geometry: colours, blur, and a rectangle that hides a part.

The recipe is RTMPose's (Jiang et al., 2023; the toolbox's configurations): YOLOX's colour change, two blurs, and one dropped
rectangle. All draws come from one generator, so a crop is a function of (seed, epoch, person).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

BLURS = (3, 5, 7)  # sides of the kernels


@dataclass(frozen=True)
class PhotometricAugmentation:
    """How a crop's look is varied; by default not at all. RTMPose's values are those in brackets.

    Attributes:
        hue, saturation, value: largest change, up or down, of OpenCV's 8-bit HSV [5, 30, 30]; each of the three happens in
            half of the crops.
        blur_probability: of a mean, and again of a median over 3×3, 5×5 or 7×7 pixels [0.1].
        dropout_probability: of a black rectangle [1].
        dropout_size: its sides' least and largest share of the crop's [0.2, 0.4].
    """

    hue: float = 0.0
    saturation: float = 0.0
    value: float = 0.0
    blur_probability: float = 0.0
    coarse_dropout_probability: float = 0.0
    coarse_dropout_size: tuple[float, float] = (0.2, 0.4)

    def apply(self, rng: np.random.Generator, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The crop with another look; the array that is given stays as it is.

        Args:
            rng: the only source of randomness; every call takes the same number of draws from it.
            image: RGB.
        """
        import cv2

        amounts, happens = rng.uniform(-1.0, 1.0, 3), rng.random(3) < 0.5
        chance, kernels = rng.random(3), rng.integers(len(BLURS), size=2)
        sides, corner = rng.uniform(*self.coarse_dropout_size, 2), rng.random(2)

        change = (amounts * happens * (self.hue, self.saturation, self.value)).astype(np.int16)
        if change.any():
            image = _shift_colours(image, change)
        if chance[0] < self.blur_probability:
            image = cv2.blur(image, (BLURS[kernels[0]],) * 2).astype(np.uint8)
        if chance[1] < self.blur_probability:
            image = cv2.medianBlur(image, BLURS[kernels[1]]).astype(np.uint8)
        if chance[2] < self.coarse_dropout_probability:
            size = np.array(image.shape[:2])
            hole = np.maximum((sides * size).astype(int), 1)
            top, left = (corner * (size - hole + 1)).astype(int)
            image = image.copy()
            image[top : top + hole[0], left : left + hole[1]] = 0
        return image


def _shift_colours(image: UInt8[np.ndarray, "h w 3"], change: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Add to hue (which goes round), saturation and value (which are cut)."""
    import cv2

    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int16) + change
    hsv[..., 0] %= 180
    np.clip(hsv[..., 1:], 0, 255, out=hsv[..., 1:])
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.uint8)
