"""The interface of all backends: crops in, a prediction or keypoints out.

The torch backend is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from leanpose.choices import Cycle
from leanpose.codecs.base import Codec, Prediction, PredictionT
from leanpose.geometry import bbox_to_center_scale, warp_image, warp_matrix
from leanpose.models.base import PoseModel
from leanpose.skeleton import Skeleton

Crops = UInt8[np.ndarray, "B H W 3"]
KeypointArrays = tuple[Float[np.ndarray, "B K 2"], Float[np.ndarray, "B K"]]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class ModelSpec:
    """What is needed to run a model and decode its prediction, without its code.

    Attributes:
        name: the variant, such as `rtmpose_s`.
        skeleton: the keypoints that it predicts.
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
        name: name of the library.
        precision: precision of the computation.
        spec: the model.
        includes_decoding: whether it only outputs keypoints, so that there is no prediction to average in a flip test.
        device: the device to which it copies crops.
        one_pass: whether the flip test runs as one batch, which is faster on GPUs. On CPUs twice as many crops exceed
            the caches (`benchmarks/flip_test.py`).
    """

    name: str
    precision: Precision
    spec: ModelSpec
    includes_decoding: bool = False
    device: torch.device = torch.device("cpu")
    one_pass: bool = False

    @abstractmethod
    def predict(self, crops: Crops) -> Prediction:
        """The network's prediction for RGB crops of its size."""

    def predict_both_ways(self, crops: Crops) -> tuple[Prediction, Prediction]:
        """The predictions for crops and for the mirrored ones."""
        mirrored = crops[:, :, ::-1]
        if self.one_pass:
            return halves(self.predict(np.concatenate([crops, mirrored])))
        return self.predict(crops), self.predict(np.ascontiguousarray(mirrored))

    @torch.inference_mode()
    def predict_keypoints(self, crops: Crops, *, flip_test: bool = False) -> KeypointArrays:
        """Keypoints in crop pixels, and scores in 0..1.

        Args:
            crops: RGB, of the model's size.
            flip_test: average the prediction with that for the mirrored crops.
        """
        codec = self.spec.codec
        if flip_test:
            prediction = codec.merge_flipped(*self.predict_both_ways(crops), self.spec.skeleton.flip_indices)
        else:
            prediction = self.predict(crops)
        points, scores = codec.decode(prediction)
        # One copy for both: each waits for the device, which has nothing to do meanwhile.
        found = torch.cat([points.float(), scores.float()[..., None]], dim=-1).cpu().numpy()
        return found[..., :2], found[..., 2]

    def for_callers(self, count: int) -> Backend | None:
        """The same model, opened again for this many concurrent threads; each call computes on its caller's thread.

        None if there is no benefit, since the calls share their threads anyway. A backend can also be called from many
        threads without it: each call then uses all of its threads.
        """
        del count
        return None

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


class TorchBackend(Backend):
    """A `PoseModel` on its device.

    Args:
        model: in eval mode.
        device: where to run; the model is moved there.
        precision: `fp32`, or `bf16` by autocast.
        cycle: the cycle whose prediction is used; `last` runs all cycles of a multi-cycle model.
    """

    name = "torch"

    def __init__(
        self,
        model: PoseModel,
        device: torch.device,
        precision: Precision = "fp32",
        *,
        cycle: Cycle = "first",
    ) -> None:
        self.model, self.device, self.precision, self.cycle = model.to(device).eval(), device, precision, cycle
        self.spec, self.one_pass = ModelSpec.of(model), device.type != "cpu"

    @torch.inference_mode()
    def predict(self, crops: Crops) -> Prediction:
        """The network's prediction, on its device."""
        return self._pass(self._moved(crops))

    @torch.inference_mode()
    def predict_both_ways(self, crops: Crops) -> tuple[Prediction, Prediction]:
        """See `Backend.predict_both_ways`; in one pass crops are mirrored on the device."""
        if not self.one_pass:
            return super().predict_both_ways(crops)
        moved = self._moved(crops)
        return halves(self._pass(torch.cat([moved, moved.flip(2)])))

    def _moved(self, crops: Crops) -> UInt8[Tensor, "B H W 3"]:
        """Crops on the device; page-locked ones (a loader's) are copied while it still computes."""
        return torch.from_numpy(crops).to(self.device, non_blocking=self.device.type == "cuda")

    def _pass(self, crops: UInt8[Tensor, "B H W 3"]) -> Prediction:
        images = self.model.normalize(crops)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            if self.cycle == "first":
                return self.model(images).prediction
            output = self.model.forward_train(images)
            return (output.cycles or (output,))[-1].prediction


def halves(prediction: PredictionT) -> tuple[PredictionT, PredictionT]:
    """The predictions for the first and for the second half of a batch."""
    values = {name: value for name, value in vars(prediction).items() if value is not None}
    count = len(next(iter(values.values()))) // 2
    first, second = (
        {name: value[part] for name, value in values.items()} for part in (slice(count), slice(count, None))
    )
    return replace(prediction, **first), replace(prediction, **second)


def first_line(error: Exception) -> str:
    """The first line of a backend's message, not too long."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
