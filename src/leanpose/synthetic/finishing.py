"""Finishing: cloth patterns and folds on the painted people, then what a camera and a file do to a picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from leanpose.synthetic.background import octaves
from leanpose.synthetic.camera import Camera
from leanpose.synthetic.painting import Light, Painting
from leanpose.synthetic.people import People
from leanpose.synthetic.wardrobe import HAIR, MATERIALS, SHIRT, SKIN, SKIRT, SOCKS, TILES, TROUSERS

_FOLDS = np.full(MATERIALS, 0.03)
_FOLDS[[SHIRT, TROUSERS, SKIRT]] = 0.085
_FOLDS[[HAIR]] = 0.14
_FOLDS[[SKIN, SOCKS]] = 0.035
_CLOTHS = ((SHIRT, 2), (TROUSERS, 0), (SKIRT, 0))  # material, joint whose axes the pattern follows


# Tables of noise serve all pictures: drawing a normal number for each pixel would cost more than the whole painting.
_LEVELS = np.array([1.0, 1.2, 1.6, 2.2, 3.2, 4.6, 7.0], np.float32)
_NOISE = np.rint(
    _LEVELS[:, None] * np.random.Generator(np.random.PCG64(11)).standard_normal(1 << 18, np.float32)
).astype(np.int8)


def compose(
    rng: np.random.Generator,
    painting: Painting,
    ground: UInt8[np.ndarray, "H W 3"],
    kept: Float[np.ndarray, "H W"],
    people: People,
    camera: Camera,
    light: Light,
) -> UInt8[np.ndarray, "H W 3"]:
    """Patterns and folds on the cloth, light on everything, and the `ground` (darkened to `kept`) behind."""
    height, width = painting.number.shape
    alpha = cv2.extractChannel(painting.rgba, 3)
    image = cv2.cvtColor(painting.rgba, cv2.COLOR_RGBA2RGB)
    owned = painting.owner >= 0
    outfits = people.outfits
    patterned = np.argwhere(outfits.pattern > 0).tolist()
    if patterned:
        cloth = (
            np.where(owned, painting.owner * MATERIALS + painting.material, -1).astype(np.int16).take(painting.number)
        )
        for person, which in patterned:
            material, joint = _CLOTHS[which]
            mask = (cloth == person * MATERIALS + material).view(np.uint8)
            box = cv2.boundingRect(mask)
            if box[2] * box[3] >= 60:
                tile = TILES[outfits.pattern[person, which]]
                matrix = _tile_matrix(people, camera, person, joint, 0.08 + 0.22 * outfits.prints[person, 5])
                _print(image, mask, box, tile, matrix, outfits.pattern_rgb[person, which] * light.colour)
    folds = np.where(owned, _FOLDS[painting.material], 0.05).astype(np.float32)
    folds[0] = 0.0
    shade = painting.shade * (1 + folds.take(painting.number) * octaves(rng, (height, width), 12))
    lit = cv2.multiply(image, _three(shade * np.float32(127)), scale=1 / 127)
    behind = _three(kept * (255 - alpha))
    return cv2.add(lit, cv2.multiply(ground, behind, scale=1 / 255))


def _three(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Values of 0 to 255 in three equal channels, as OpenCV's fast arithmetic wants them."""
    return cv2.merge([cv2.convertScaleAbs(values)] * 3)


def _tile_matrix(people: People, camera: Camera, person: int, joint: int, metres: float) -> Float[np.ndarray, "2 3"]:
    """Tile pixels to picture pixels: the tile is `metres` wide and lies along the axes of a joint as the camera sees them."""
    frame, origin = people.figures.frames[person, joint], people.figures.joints[person, joint]
    points = camera.image(camera.see(np.stack([origin, origin + 0.1 * frame[:, 0], origin + 0.1 * frame[:, 1]])))
    axes = (points[1:] - points[0]).T * (metres / 0.1 / 64)
    if abs(axes[0, 0] * axes[1, 1] - axes[0, 1] * axes[1, 0]) < 1e-3:  # seen edge on
        axes = np.eye(2) * max(np.abs(axes).max(), 0.05)
    return np.column_stack([axes, points[0]])


def _print(
    image: np.ndarray, mask: np.ndarray, box: Sequence[int], tile: np.ndarray, matrix: np.ndarray, rgb: np.ndarray
) -> None:
    """Blend a second colour into the pixels of `mask` where the tile says so."""
    x, y, w, h = box
    matrix = matrix - np.array([[0, 0, x], [0, 0, y]])
    drawn = cv2.warpAffine(tile, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    amount = cv2.merge([cv2.multiply(drawn, mask[y : y + h, x : x + w])] * 3)
    region = image[y : y + h, x : x + w]
    second = np.empty_like(region)
    second[:] = np.minimum(rgb, 255)
    less = cv2.multiply(region, 255 - amount, scale=1 / 255)
    region[:] = cv2.add(less, cv2.multiply(second, amount, scale=1 / 255))


def develop(rng: np.random.Generator, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Blur, coarse sampling, colour cast, contrast, sensor noise and JPEG, each now and then."""
    height, width = image.shape[:2]
    u = rng.random(10).tolist()
    z = rng.normal(size=7)
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
    gain = np.exp(0.07 * z[:3] + 0.10 * z[3] + 0.15 * z[4])
    grey = 0.85 if u[3] < 0.08 else 0.0  # black and white, or nearly
    colour = np.eye(3) * (1 - grey) + grey / 3
    middle = 110 + 14 * z[5]
    matrix = np.column_stack([colour * gain, middle - 110 * (colour @ gain)])
    image = cv2.transform(image, matrix.astype(np.float32))
    values = height * width * 3
    grain = _NOISE[int(len(_NOISE) * u[4])]
    start = int(u[7] * (len(grain) - values)) if values < len(grain) else 0
    grain = grain[start : start + values] if values <= len(grain) else np.resize(grain, values)
    result = cv2.add(image, grain.reshape(image.shape), dtype=cv2.CV_8U)
    if u[5] < 0.35:
        _, data = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, int(25 + 65 * u[6])])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        return decoded
    return result
