"""Torch itself, operation by operation."""

from __future__ import annotations

import torch

from leanpose.codecs.base import Prediction
from leanpose.inference.backends.base import Backend, Crops, ModelSpec, Precision
from leanpose.models.base import PoseModel


class TorchBackend(Backend):
    """A `PoseModel` on its device.

    Args:
        model: in eval mode.
        device: where to run; the model is moved there.
        precision: `fp32`, or `bf16` by autocast.
    """

    name = "torch"

    def __init__(self, model: PoseModel, device: torch.device, precision: Precision = "fp32") -> None:
        self.model, self.device, self.precision = model.to(device).eval(), device, precision
        self.spec = ModelSpec.of(model)

    @torch.inference_mode()
    def predict(self, crops: Crops) -> Prediction:
        """What the network writes, on its device."""
        batch = self.model.normalise(torch.from_numpy(crops).to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.model(batch).prediction
