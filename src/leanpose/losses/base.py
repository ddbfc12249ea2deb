"""The one interface of all training methods: (student's output, teacher's output, target) → named losses.

A method is one file: a section of the recipe, the check of student and teacher, and the loss. `leanpose.losses.METHODS`
lists them by name. The simplest, supervised training, is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanpose.codecs import Codec
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.schema import MethodSection

SectionT = TypeVar("SectionT", bound=MethodSection)
CodecT = TypeVar("CodecT", bound=Codec)


class Criterion(Protocol):
    """The supervised loss: a codec's, or one with parameters of its own."""

    def loss(self, prediction: Any, target: Any) -> Float[Tensor, ""]:
        """The loss of a prediction against the codec's encoded target."""
        ...


class Distillation(nn.Module, ABC, Generic[SectionT]):
    """A training method: computes the named loss terms, which the training loop sums.

    An `nn.Module`, since some losses have trainable parameters that are not part of the student.

    Args:
        criterion: the supervised loss; usually the student's codec.
        section: the method's settings; None for the defaults.

    Attributes:
        progress: the fraction of the epochs done, for loss schedules.
    """

    section_type: ClassVar[type[MethodSection]] = MethodSection

    def __init__(self, criterion: Criterion, section: SectionT | None = None) -> None:
        super().__init__()
        self.criterion = criterion
        self.section: SectionT = self.section_type() if section is None else section  # pyright: ignore
        self.progress = 0.0

    @classmethod
    def build(
        cls, section: SectionT, student: PoseModel, teacher: PoseModel | None, criterion: Criterion
    ) -> Distillation[SectionT]:
        """The method for this student and teacher, as a recipe asks for it.

        Raises:
            LeanposeError: the student or the teacher lacks what the method needs.
        """
        return cls(criterion, section)

    def explain(self) -> list[str]:
        """The terms of the loss, one sentence each."""
        return [f"{self.section.method}: {(type(self.section).__doc__ or '').splitlines()[0]}"]

    def student_forward(
        self, student: PoseModel, images: Float[Tensor, "B 3 H W"], teacher: PoseOutput | None
    ) -> PoseOutput:
        """The student's forward pass over normalized crops, with all outputs that the losses compare."""
        return student.forward_train(images)

    @abstractmethod
    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms of the loss, by the name they are logged under; training minimises their sum.

        Args:
            student: from `student_forward`.
            teacher: another model's output for the same crops; None if the method needs none.
            target: the batch encoded by the codec.
        """


def supervised_loss(criterion: Criterion, student: PoseOutput, target: Any) -> Float[Tensor, ""]:
    """The supervised loss; with deep supervision, the sum over all layers (TFPose, eq. 5)."""
    return sum_of(criterion.loss(prediction, target) for prediction in student.aux_outputs or (student.prediction,))


def sum_of(terms: Iterable[Tensor]) -> Float[Tensor, ""]:
    """The sum of at least one scalar."""
    return torch.stack(list(terms)).sum()


def require_same_crops(
    student: PoseModel, teacher: PoseModel | None, *, same_keypoints: bool = True, same_size: bool = True
) -> PoseModel:
    """The teacher, after checking that it uses crops of the same size and convention as the student.

    Args:
        same_keypoints: it must also predict the same keypoints.
        same_size: otherwise, crops of the same aspect ratio are enough.

    Raises:
        LeanposeError: the first difference, and what would match.
    """
    assert teacher is not None, "a method with a TeacherSection always gets its teacher"
    if same_keypoints and teacher.skeleton.keypoints != student.skeleton.keypoints:
        raise LeanposeError(
            f"The skeletons of teacher and student differ: '{teacher.name}' predicts the {len(teacher.skeleton)} "
            f"keypoints of '{teacher.skeleton.name}', the student the {len(student.skeleton)} of "
            f"'{student.skeleton.name}'; choose a teacher of '{student.skeleton.name}', or train the student with "
            f"skeleton={teacher.skeleton.name}."
        )
    (th, tw), (sh, sw) = teacher.input_size, student.input_size
    if (th, tw) != (sh, sw) if same_size else th * sw != tw * sh:
        raise LeanposeError(
            f"The teacher's input_size does not fit: '{teacher.name}' takes crops of {th}x{tw}, the student {sh}x{sw} "
            f"(height x width); choose a teacher of {'' if same_size else 'the aspect of '}{sh}x{sw}, or train the "
            f"student with model_options.input_size=[{th},{tw}]."
        )
    if teacher.codec.warp != student.codec.warp:
        raise LeanposeError(
            f"The crop conventions of teacher and student differ: '{teacher.name}' was trained with "
            f"'{teacher.codec.warp}' crops, the student uses '{student.codec.warp}'; choose a teacher with "
            f"codec.encoding {'unbiased or msra' if student.codec.warp == 'msra' else 'udp'}."
        )
    return teacher


def common_keypoints(student: PoseModel, teacher: PoseModel) -> tuple[list[int], list[int]]:
    """The keypoints that both predict, by name: their indices in the student's order and in the teacher's.

    Raises:
        LeanposeError: there is none.
    """
    indices = student.skeleton.indices_in(teacher.skeleton)
    common = [own for own, other in enumerate(indices) if other >= 0]
    if not common:
        raise LeanposeError(
            f"Teacher and student have no keypoint in common ('{teacher.skeleton.name}' and '{student.skeleton.name}')."
        )
    return common, [indices[own] for own in common]


def require_codec(model: PoseModel, whose: str, codec: type[CodecT], method: str) -> CodecT:
    """The model's codec, after checking that it is of the kind that a method needs.

    Args:
        whose: `student` or `teacher`.

    Raises:
        LeanposeError: it is of another kind; the message names suitable models.
    """
    if not isinstance(model.codec, codec):
        raise LeanposeError(
            f"The {whose}'s codec does not fit: the {whose} of distillation.method '{method}' must predict "
            f"{codec.predicts}, which '{model.name}' does not; choose {codec.examples}."
        )
    return model.codec


class Supervised(Distillation[MethodSection]):
    """The criterion alone; with deep supervision, the sum over the layers (TFPose, eq. 5)."""

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        return {"pose": supervised_loss(self.criterion, student, target)}
