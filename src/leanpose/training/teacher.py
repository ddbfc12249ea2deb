"""The frozen teacher of a distillation: another model, which sees the student's crops and is never trained."""

from __future__ import annotations

from contextlib import nullcontext

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


def require_fit(student: PoseModel, teacher: PoseModel) -> None:
    """See that a teacher can look at a student's crops and speaks of the same keypoints.

    Raises:
        LeanposeError: the first field that differs, and what would fit.
    """
    if teacher.skeleton.keypoints != student.skeleton.keypoints:
        theirs, ours = teacher.skeleton, student.skeleton
        raise LeanposeError(
            f"The teacher's skeleton does not fit: '{teacher.name}' finds the {len(theirs)} keypoints of '{theirs.name}', "
            f"the student the {len(ours)} of '{ours.name}'; set skeleton={theirs.name}, or choose a teacher of '{ours.name}'."
        )
    if teacher.input_size != student.input_size:
        (th, tw), (sh, sw) = teacher.input_size, student.input_size
        raise LeanposeError(
            f"The teacher's input_size does not fit: '{teacher.name}' looks at crops of {th}x{tw}, the student at {sh}x{sw} "
            f"(height x width); set model_options.input_size=[{th},{tw}], or choose a teacher of {sh}x{sw}."
        )
    if teacher.codec.warp != student.codec.warp:
        raise LeanposeError(
            f"The teacher's codec does not fit: '{teacher.name}' was trained on crops of the '{teacher.codec.warp}' warp, the "
            f"student's are '{student.codec.warp}'; choose a teacher with codec.encoding "
            f"{'unbiased or classic' if student.codec.warp == 'classic' else 'udp'}."
        )
