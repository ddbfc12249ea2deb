"""The frozen teacher of a distillation: another model, which sees the student's crops and is never trained."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from leanpose.errors import LeanposeError
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

    Attributes:
        identity: of the weights and how they are used; a run that is resumed must find the same.
        problem: why outputs are not kept any more; None where all is well.
    """

    def __init__(
        self,
        model: PoseModel,
        *,
        identity: str = "",
        bf16: bool = False,
        compiled: bool = False,
        cache: TeacherCache | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.bf16 = bf16
        self.cache = cache
        self.identity = identity
        self.problem: str | None = None
        self.epoch = 0
        self._forward = torch.compile(self.model) if compiled else self.model

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def __call__(self, images: UInt8[Tensor, "B h w 3"], indices: Int[Tensor, " B"]) -> PoseOutput:
        """The output for the crops of the people with these indices, in this epoch; below 0: nobody's, never kept."""
        people = indices.tolist() if self.cache is not None else []
        if self.cache is None or min(people) < 0:
            return self.look(images)
        known = self.cache.read(self.epoch, people, images.device)
        if known is not None:
            return known
        output = self.look(images)
        try:
            self.cache.write(self.epoch, people, output)
        except LeanposeError as error:
            self.cache, self.problem = None, f"{error} The training goes on without the cache."
        return output

    def look(self, images: UInt8[Tensor, "B h w 3"]) -> PoseOutput:
        """The output for crops, computed."""
        return self._pass(self._forward, images)

    def dry_run(self) -> PoseOutput:
        """The output for one black crop, without compiling anything: shows which tensors there are."""
        device = next(self.model.parameters()).device
        return self._pass(self.model, torch.zeros(1, *self.model.input_size, 3, dtype=torch.uint8, device=device))

    @torch.no_grad()
    def _pass(self, forward: Callable[[Tensor], PoseOutput], images: UInt8[Tensor, "B h w 3"]) -> PoseOutput:
        with self.autocast(images.device):
            return forward(self.model.normalise(images))

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The precision that teacher and student compute in."""
        return torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext()
