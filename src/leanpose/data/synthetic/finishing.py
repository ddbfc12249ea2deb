"""Finishing: cloth patterns and folds on the painted people, then what a camera and a file do to a picture."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from leanpose.data.synthetic.background import noise
from leanpose.data.synthetic.camera import Camera
from leanpose.data.synthetic.painting import Light, Painting
from leanpose.data.synthetic.people import People
from leanpose.data.synthetic.wardrobe import HAIR, MATERIALS, SHIRT, SKIN, SKIRT, SOCKS, TILES, TROUSERS

_FOLDS = np.full(MATERIALS, 0.03)
_FOLDS[[SHIRT, TROUSERS, SKIRT]] = 0.13
_FOLDS[[HAIR]] = 0.20
_FOLDS[[SKIN, SOCKS]] = 0.035
_CLOTHS = ((SHIRT, 2), (TROUSERS, 0), (SKIRT, 0))  # material, joint whose axes the pattern follows


def dress(
    rng: np.random.Generator, image: np.ndarray, painting: Painting, people: People, camera: Camera, light: Light
) -> np.ndarray:
    """Patterns on cloth, folds and strands on everything: (H, W, 3) float32 in and out."""
    height, width = painting.number.shape
    owned = painting.owner >= 0
    folds = np.where(owned, _FOLDS[painting.material], 0.05).astype(np.float32)
    folds[0] = 0.0
    cloth = np.where(owned, painting.owner * MATERIALS + painting.material, -1)
    cloth_map = cloth.astype(np.int16).take(painting.number)
    outfits = people.outfits
    for person, which in np.argwhere(outfits.pattern > 0).tolist():
        material, joint = _CLOTHS[which]
        mask = cloth_map == person * MATERIALS + material
        x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
        if w * h < 60:
            continue
        # The tile lies on the trunk: its axes are those of the joint as the camera sees them.
        frame, origin = people.figures.frames[person, joint], people.figures.joints[person, joint]
        points = camera.image(camera.see(np.stack([origin, origin + 0.1 * frame[:, 0], origin + 0.1 * frame[:, 1]])))
        tile_cm = 0.08 + 0.22 * outfits.prints[person, 5]
        axes = (points[1:] - points[0]).T * (tile_cm / 0.1 / 64)
        if abs(np.linalg.det(axes)) < 1e-3:
            axes = np.eye(2) * np.abs(axes).max()
        matrix = np.column_stack([axes, points[0] - (x, y)])
        tile = TILES[outfits.pattern[person, which]]
        drawn = cv2.warpAffine(tile, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        region = image[y : y + h, x : x + w]
        part = mask[y : y + h, x : x + w]
        amount = (drawn * part).astype(np.float32)[..., None] * (1 / 255)
        second = painting.shade[y : y + h, x : x + w, None] * (outfits.pattern_rgb[person, which] * light.colour).astype(
            np.float32
        )
        region += amount * (second - region)
    texture = noise(rng, (height, width), 14)[..., 0] + 0.7 * noise(rng, (height, width), 40)[..., 0]
    return image * (1 + folds.take(painting.number) * texture)[..., None]


def develop(rng: np.random.Generator, image: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    """Blur, coarse sampling, colour cast, contrast, sensor noise and JPEG, each now and then."""
    height, width = image.shape[:2]
    u = rng.random(10)
    if u[0] < 0.35:  # small in the original picture and enlarged
        factor = 0.35 + 0.55 * u[1]
        small = cv2.resize(
            image, (max(8, int(width * factor)), max(8, int(height * factor))), interpolation=cv2.INTER_AREA
        )
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    elif u[0] < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), 0.35 + 0.9 * u[1])
    elif u[0] < 0.76:  # motion
        length = 3 + int(6 * u[1])
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(u[2] * (length - 1))), (length - 1, int((1 - u[2]) * (length - 1))), 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    gain = np.exp(0.10 * rng.normal(size=3) + 0.13 * rng.normal()).astype(np.float32)
    contrast = np.float32(np.exp(0.22 * rng.normal()))
    image = (image - 110) * (gain * contrast) + np.float32(110 + 16 * rng.normal())
    if u[3] < 0.10:  # black and white, or nearly
        image = image.mean(axis=2, keepdims=True) * np.float32(0.85) + image * np.float32(0.15)
    level = 1 + 9 * u[4] ** 3
    # One table of noise serves all: drawing a normal number for each pixel would cost more than the whole painting.
    start = rng.integers(0, len(_NOISE) - height * width * 3) if height * width * 3 < len(_NOISE) else 0
    grain = np.resize(_NOISE[start : start + height * width * 3], image.shape)
    result = np.clip(image + np.float32(level) * grain, 0, 255).astype(np.uint8)
    if u[5] < 0.35:
        quality = int(25 + 65 * u[6])
        done, data = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if done:
            result = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return result


_NOISE = np.random.Generator(np.random.PCG64(11)).standard_normal(1 << 20, np.float32)
