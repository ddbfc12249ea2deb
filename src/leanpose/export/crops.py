"""Pictures to check an export on: your own, or a portrait and synthetic people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leanpose.errors import LeanposeError
from leanpose.geometry import Warp, bbox_to_center_scale, warp_image, warp_matrix
from leanpose.inference.backends.base import Crops, ModelSpec

MOST_PICTURES = 200


def check_crops(spec: ModelSpec, pictures: Sequence[str] = (), *, count: int = 8) -> Crops:
    """Crops of a model's size.

    Args:
        spec: of the model.
        pictures: files, folders or patterns; each picture is taken for one person. Empty: parts of the portrait of the
            astronaut Eileen Collins that comes with scikit-image (NASA, public domain), and rendered people.
        count: how many crops, at least; for pictures: at most.

    Raises:
        LeanposeError: there are no pictures, or none can be read.
    """
    if pictures:
        return _from_pictures(spec, pictures, count)
    from skimage import data

    from leanpose.synthetic import render_scene

    portrait = np.asarray(data.astronaut())
    boxes = np.array([[60, 0, 420, 512], [140, 0, 330, 260], [0, 0, 512, 512], [100, 80, 400, 500]])
    crops = [crop_of(portrait, box, spec.input_size, spec.codec.warp) for box in boxes[: (count + 1) // 2]]
    index = 0
    while len(crops) < count:
        scene = render_scene(7, index, people=(1, 1))
        index += 1
        if len(scene.boxes):
            crops.append(crop_of(scene.image, scene.boxes[0], spec.input_size, spec.codec.warp))
    return np.stack(crops)


def crop_of(image: np.ndarray, box: np.ndarray, size: tuple[int, int], warp: Warp) -> np.ndarray:
    """One person's crop, cut as `PoseEstimator` cuts it."""
    centers, scales = bbox_to_center_scale(box[None], size)
    return warp_image(image, warp_matrix(centers[0], scales[0], size, warp=warp), size)


def _from_pictures(spec: ModelSpec, pictures: Sequence[str], count: int) -> Crops:
    from leanpose.data.images import BrokenImageError, read_image
    from leanpose.inference.pictures import find_inputs

    found = find_inputs(pictures).pictures
    if not found:
        raise LeanposeError("To check the export on your own pictures, give pictures, not videos.")
    crops, reason = [], ""
    for picture in found[:: max(1, len(found) // count)][: min(count, MOST_PICTURES)]:
        try:
            image = read_image(picture.path)
        except BrokenImageError as error:
            reason = str(error)
            continue
        whole = np.array([0, 0, image.shape[1], image.shape[0]], np.float64)
        crops.append(crop_of(image, whole, spec.input_size, spec.codec.warp))
    if not crops:
        raise LeanposeError(f"None of the pictures can be read: {reason}")
    return np.stack(crops)
