"""The one interface of all run-times: crops in, a prediction or keypoints out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.skeleton import Skeleton

if TYPE_CHECKING:
    from leanpose.codecs.base import Codec, Prediction
    from leanpose.models.base import PoseModel

Crops = UInt8[np.ndarray, "B H W 3"]
KeypointArrays = tuple[Float[np.ndarray, "B K 2"], Float[np.ndarray, "B K"]]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class ModelSpec:
    """What must be known of a model to feed it and to read it, without its code.

    Attributes:
        name: the variant, such as `rtmpose_s`.
        skeleton: the keypoints that it finds.
        codec: how its prediction is read.
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


class Backend(ABC):
    """Runs one model.

    Attributes:
        name: of the run-time.
        precision: in which it computes.
        spec: of the model.
        keypoints_alone: it decodes itself, so that there is no prediction to average in a flip test.
    """

    name: str
    precision: Precision
    spec: ModelSpec
    keypoints_alone: bool = False

    @abstractmethod
    def predict(self, crops: Crops) -> Prediction:
        """What the network writes for RGB crops of its size."""

    def predict_keypoints(self, crops: Crops, *, flip_test: bool = False) -> KeypointArrays:
        """Keypoints in crop pixels, and scores in 0..1.

        Args:
            crops: RGB, of the model's size.
            flip_test: average the prediction with that for the mirrored crops.
        """
        import torch

        with torch.inference_mode():
            prediction = self.predict(crops)
            codec = self.spec.codec
            if flip_test:
                mirrored = self.predict(np.ascontiguousarray(crops[:, :, ::-1]))
                prediction = codec.merge_flipped(prediction, mirrored, self.spec.skeleton.flip_indices)
            points, scores = codec.decode(prediction)
            return points.float().cpu().numpy(), scores.float().cpu().numpy()

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


def thread_count() -> int:
    """How many threads a run-time shall use: as many as torch does, so that one setting holds for all."""
    import torch

    return torch.get_num_threads()
