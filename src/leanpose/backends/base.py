"""The one predictor of inference and evaluation: crops in, a prediction or keypoints out, whichever backend computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8

from leanpose.codecs.base import Codec, Prediction
from leanpose.geometry import bbox_to_center_scale, warp_image, warp_matrix
from leanpose.models.base import PoseModel
from leanpose.skeleton import Skeleton

Crops = UInt8[np.ndarray, "B H W 3"]
KeypointArrays = tuple[Float[np.ndarray, "B K 2"], Float[np.ndarray, "B K"]]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class ModelSpec:
    """What must be known of a model to feed it and to decode its prediction, without its code.

    Attributes:
        name: the variant, such as `rtmpose_s`.
        skeleton: the keypoints that it finds.
        codec: decodes its prediction.
        input_size: height and width of its crops, in pixels.
        mean, std: what to subtract from and divide by, per RGB channel on a 0..1 scale.
    """

    name: str
    skeleton: Skeleton
    codec: Codec
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, model: PoseModel) -> ModelSpec:
        """That of a model in memory."""
        return cls(model.name, model.skeleton, model.codec, model.input_size, model.mean, model.std)

    def crop(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], boxes: Float[np.ndarray, "B 4"]
    ) -> tuple[Crops, Float[np.ndarray, "B 2 3"]]:
        """The crop of one box (xyxy, in pixels) in each of these images, and the affine maps image → crop."""
        size, warp = self.input_size, self.codec.warp
        centers, scales = bbox_to_center_scale(boxes, size, self.codec.padding)
        matrices = np.stack([warp_matrix(c, s, size, warp=warp) for c, s in zip(centers, scales, strict=True)])
        crops = [warp_image(image, matrix, size) for image, matrix in zip(images, matrices, strict=True)]
        return np.stack(crops), matrices


class Backend(ABC):
    """Runs one model.

    Attributes:
        name: of the library that computes.
        precision: in which it computes.
        spec: of the model.
        includes_decoding: it gives keypoints alone, so that there is no prediction to average in a flip test.
    """

    name: str
    precision: Precision
    spec: ModelSpec
    includes_decoding: bool = False

    @abstractmethod
    def predict(self, crops: Crops) -> Prediction:
        """The network's prediction for RGB crops of its size."""

    @torch.inference_mode()
    def predict_keypoints(self, crops: Crops, *, flip_test: bool = False) -> KeypointArrays:
        """Keypoints in crop pixels, and scores in 0..1.

        Args:
            crops: RGB, of the model's size.
            flip_test: average the prediction with that for the mirrored crops.
        """
        prediction = self.predict(crops)
        codec = self.spec.codec
        if flip_test:
            flipped = self.predict(np.ascontiguousarray(crops[:, :, ::-1]))
            prediction = codec.merge_flipped(prediction, flipped, self.spec.skeleton.flip_indices)
        points, scores = codec.decode(prediction)
        return points.float().cpu().numpy(), scores.float().cpu().numpy()

    def for_callers(self, count: int) -> Backend | None:
        """The same model, opened again for this many threads that call it at once; each call computes on its caller's thread.

        None where that gains nothing, since the calls share their threads anyway. Without it a backend may be called from
        many threads too: each call then has all of its threads.
        """
        del count
        return None

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


def first_line(error: Exception) -> str:
    """The first line of a backend's message, not too long."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
