"""The one interface of all training methods: (student's output, teacher's output, target) → named losses.

A method is one file: a section of the recipe, the check of student and teacher, and the loss. `leanpose.losses.METHODS`
lists them by name. The simplest, plain training, is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanpose.codecs import Codec, CoordinateCodec, HeatmapCodec, SimCCCodec
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.schema import MethodSection

SectionT = TypeVar("SectionT", bound=MethodSection)
CodecT = TypeVar("CodecT", HeatmapCodec, CoordinateCodec, SimCCCodec)


class Criterion(Protocol):
    """Compares a prediction with the labels: a codec, or a loss with parameters of its own."""

    def loss(self, prediction: Any, target: Any) -> Float[Tensor, ""]:
        """The loss of a prediction against what the codec's `encode` returned."""
        ...


class Distillation(nn.Module, ABC, Generic[SectionT]):
    """What a student is trained by. The training loop adds the losses up and knows nothing else of the method.

    A module, because some losses have parameters that learn along and are no part of the student.

    Args:
        criterion: compares the student's prediction with the target; mostly the student's codec.
        section: the method's settings; None for the default ones.

    Attributes:
        progress: the fraction of the epochs that is done, for losses that change over time.
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
        """What the loss is made of: a sentence for each term."""
        return [f"{self.section.method}: {(type(self.section).__doc__ or '').splitlines()[0]}"]

    def student_forward(
        self, student: PoseModel, images: Float[Tensor, "B 3 H W"], teacher: PoseOutput | None
    ) -> PoseOutput:
        """The student's pass over normalized crops, with all that the losses compare."""
        return student.forward_train(images)

    @abstractmethod
    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms of the loss, by the name they are logged under; training minimises their sum.

        Args:
            student: from `student_forward`.
            teacher: another model's output for the same crops; None where the method needs none.
            target: what the codec's `encode` returned for the batch.
        """


def supervised_loss(criterion: Criterion, student: PoseOutput, target: Any) -> Float[Tensor, ""]:
    """The loss of the prediction against the labels; where every layer predicts, the sum over all of them (TFPose, eq. 5)."""
    return sum_of(criterion.loss(prediction, target) for prediction in student.aux_outputs or (student.prediction,))


def sum_of(terms: Iterable[Tensor]) -> Float[Tensor, ""]:
    """The sum of at least one scalar."""
    return torch.stack(list(terms)).sum()


def require_same_crops(
    student: PoseModel, teacher: PoseModel | None, *, same_keypoints: bool = True, same_size: bool = True
) -> PoseModel:
    """The teacher, once it is sure that it looks at crops of the same size and warp.

    Args:
        same_keypoints: it must find the same keypoints, too.
        same_size: otherwise crops of the same aspect will do.

    Raises:
        LeanposeError: the first thing that differs, and what would fit.
    """
    assert teacher is not None, "a method with a TeacherSection always gets its teacher"
    if same_keypoints and teacher.skeleton.keypoints != student.skeleton.keypoints:
        raise LeanposeError(
            f"The teacher's skeleton does not fit: '{teacher.name}' finds the {len(teacher.skeleton)} keypoints of "
            f"'{teacher.skeleton.name}', the student the {len(student.skeleton)} of '{student.skeleton.name}'; choose a teacher of "
            f"'{student.skeleton.name}', or train the student with skeleton={teacher.skeleton.name}."
        )
    (th, tw), (sh, sw) = teacher.input_size, student.input_size
    if (th, tw) != (sh, sw) if same_size else th * sw != tw * sh:
        raise LeanposeError(
            f"The teacher's input_size does not fit: '{teacher.name}' takes crops of {th}x{tw}, the student {sh}x{sw} "
            f"(height x width); choose a teacher of {'' if same_size else 'the aspect of '}{sh}x{sw}, or train the student with "
            f"model_options.input_size=[{th},{tw}]."
        )
    if teacher.codec.warp != student.codec.warp:
        raise LeanposeError(
            f"The teacher's codec does not fit: '{teacher.name}' was trained on crops of the '{teacher.codec.warp}' warp, the "
            f"student's are '{student.codec.warp}'; choose a teacher with codec.encoding "
            f"{'unbiased or msra' if student.codec.warp == 'msra' else 'udp'}."
        )
    return teacher


def common_keypoints(student: PoseModel, teacher: PoseModel) -> tuple[list[int], list[int]]:
    """The keypoints that both find, by name: their indices in the student's order and in the teacher's.

    Raises:
        LeanposeError: there is none.
    """
    indices = student.skeleton.indices_in(teacher.skeleton)
    common = [own for own, other in enumerate(indices) if other >= 0]
    if not common:
        raise LeanposeError(
            f"The teacher's skeleton '{teacher.skeleton.name}' has no keypoint of the student's '{student.skeleton.name}'."
        )
    return common, [indices[own] for own in common]


def require_codec(model: PoseModel, whose: str, codec: type[CodecT], method: str) -> CodecT:
    """The model's codec, once it is sure that it is of the kind that a method compares.

    Args:
        whose: `student` or `teacher`.

    Raises:
        LeanposeError: it is of another kind; the message names models that would fit.
    """
    if not isinstance(model.codec, codec):
        predicted, examples = _PREDICTIONS[codec]
        raise LeanposeError(
            f"The {whose}'s codec does not fit: '{model.name}' does not predict {predicted}, as the {whose} of "
            f"distillation.method '{method}' must; choose {examples}."
        )
    return model.codec


_PREDICTIONS: dict[type[Codec], tuple[str, str]] = {
    HeatmapCodec: ("heatmaps", "a heatmap model, such as a tokenpose or simplebaseline model"),
    CoordinateCodec: ("coordinates", "a regression model, such as distilpose_s"),
    SimCCCodec: ("SimCC bins", "a SimCC model, such as an rtmpose or simcc model"),
}
"""What models of each codec predict, and which these are."""


class Supervised(Distillation[MethodSection]):
    """The criterion alone; where every layer of a model predicts, the sum over the layers (TFPose, eq. 5)."""

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        return {"pose": supervised_loss(self.criterion, student, target)}
