"""Torch itself, operation by operation."""

from __future__ import annotations

from typing import Literal

import torch

from leanpose.backends.base import Backend, Crops, ModelSpec, Precision
from leanpose.codecs.base import Prediction
from leanpose.models.base import PoseModel


class TorchBackend(Backend):
    """A `PoseModel` on its device.

    Args:
        model: in eval mode.
        device: where to run; the model is moved there.
        precision: `fp32`, or `bf16` by autocast.
        cycle: whose prediction counts; `last` runs all cycles of a multi-cycle model.
    """

    name = "torch"

    def __init__(
        self,
        model: PoseModel,
        device: torch.device,
        precision: Precision = "fp32",
        *,
        cycle: Literal["first", "last"] = "first",
    ) -> None:
        self.model, self.device, self.precision, self.cycle = model.to(device).eval(), device, precision, cycle
        self.spec = ModelSpec.of(model)

    @torch.inference_mode()
    def predict(self, crops: Crops) -> Prediction:
        """The network's prediction, on its device."""
        images = self.model.normalise(torch.from_numpy(crops).to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            if self.cycle == "first":
                return self.model(images).prediction
            output = self.model.forward_train(images)
            return (output.cycles or (output,))[-1].prediction
