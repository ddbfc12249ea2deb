"""The frozen teacher of a distillation: another model, which sees the student's crops and is never trained."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from leanpose.models.base import PoseModel
from leanpose.models.output import PoseOutput
from leanpose.training.teacher_cache import TeacherCache


class Teacher:
    """Shows what a model makes of crops: in eval mode, without gradients, each crop looked at once where there is a cache.

    It is no module, so that nobody finds its weights among the student's.

    Args:
        model: taken over; its parameters are frozen.
        bf16: compute in bfloat16 where torch's autocast does.
        compiled: through `torch.compile`; pays where it saves more than its minute at the start.
        cache: where outputs are kept by epoch and person.
    """

    def __init__(
        self, model: PoseModel, *, bf16: bool = False, compiled: bool = False, cache: TeacherCache | None = None
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.bf16 = bf16
        self.cache = cache
        self.epoch = 0
        self._forward = torch.compile(self.model) if compiled else self.model

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def __call__(self, images: UInt8[Tensor, "B h w 3"], indices: Int[Tensor, " B"]) -> PoseOutput:
        """The output for the crops of the people with these indices, in this epoch."""
        if self.cache is None:
            return self.look(images)
        people = indices.tolist()
        known = self.cache.read(self.epoch, people, images.device)
        if known is not None:
            return known
        output = self.look(images)
        self.cache.write(self.epoch, people, output)
        return output

    @torch.no_grad()
    def look(self, images: UInt8[Tensor, "B h w 3"]) -> PoseOutput:
        """The output for crops, computed."""
        casting = torch.autocast(images.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with casting:
            return self._forward(self.model.normalise(images))
