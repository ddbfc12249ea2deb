"""The one interface of all distillations: (student's output, teacher's output, target) → named losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel
from leanpose.models.output import PoseOutput


class Criterion(Protocol):
    """Compares a prediction with the labels: a codec, or a loss with parameters of its own."""

    def loss(self, prediction: Any, target: Any) -> Float[Tensor, ""]:
        """The loss of a prediction against what the codec's `encode` returned."""
        ...


class MultiCycleOutput(Protocol):
    """What a method compares that knows tokens alone, whatever is read from them: a `PoseOutput`, a `ClassOutput`."""

    @property
    def prediction(self) -> Any: ...
    @property
    def keypoint_tokens(self) -> Float[Tensor, "B K D"] | None: ...
    @property
    def visual_tokens(self) -> Float[Tensor, "B N D"] | None: ...
    @property
    def keep_indices(self) -> Int[Tensor, "B M"] | None: ...
    @property
    def cycles(self) -> tuple[MultiCycleOutput, ...]: ...
    @property
    def aux_outputs(self) -> tuple[Any, ...]: ...


class Distillation(ABC):
    """Says what a student learns from. The training loop adds the losses up and knows nothing else of the method.

    Args:
        objective: compares the student's prediction with the target; mostly the student's codec.
        term: what the loss against the labels is called.

    Attributes:
        reads_teacher_features: whether the student's head reads the teacher's features, in place of those of a backbone
            of its own.
        progress: the share of the epochs that are done, for losses that change on the way.
    """

    reads_teacher_features = False

    def __init__(self, criterion: Criterion, term: str = "pose") -> None:
        self.criterion = criterion
        self.term = term
        self.progress = 0.0

    @property
    def parts(self) -> nn.ModuleList:
        """What learns along with the student, and is no part of it."""
        return nn.ModuleList([self.criterion] if isinstance(self.criterion, nn.Module) else [])

    @abstractmethod
    def losses(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms of the loss, by the name they are logged under; training minimises their sum.

        Args:
            student: from the student's `forward_train`.
            teacher: another model's output for the same crops; None where the method needs none.
            target: what the codec's `encode` returned for the batch.
        """


class Supervised(Distillation):
    """Plain training: the prediction meets the labels, nothing else.

    Where every layer of a model predicts, every layer's prediction does, and the loss is their sum (TFPose, eq. 5).
    """

    def losses(self, student: MultiCycleOutput, teacher: Any, target: Any) -> dict[str, Float[Tensor, ""]]:
        return {self.term: supervised_loss(self.criterion, student, target)}


def supervised_loss(criterion: Criterion, student: MultiCycleOutput, target: Any) -> Float[Tensor, ""]:
    """The loss of the prediction, or where every layer predicts the sum over all of them."""
    return sum_of(criterion.loss(prediction, target) for prediction in student.aux_outputs or (student.prediction,))


def sum_of(terms: Iterable[Tensor]) -> Float[Tensor, ""]:
    """The sum of at least one scalar."""
    return torch.stack(list(terms)).sum()


def require_fit(student: PoseModel, teacher: PoseModel) -> None:
    """See that two models speak of the same keypoints in crops of the same size.

    Raises:
        LeanposeError: the first field that differs, and what would fit.
    """
    theirs, ours = teacher.skeleton, student.skeleton
    if theirs.keypoints != ours.keypoints:
        raise LeanposeError(
            f"The teacher's skeleton does not fit: '{teacher.name}' finds the {len(theirs)} keypoints of '{theirs.name}', the "
            f"student the {len(ours)} of '{ours.name}'; choose a teacher of '{ours.name}', or train the student with "
            f"skeleton={theirs.name}."
        )
    if teacher.input_size != student.input_size:
        (th, tw), (sh, sw) = teacher.input_size, student.input_size
        raise LeanposeError(
            f"The teacher's input_size does not fit: '{teacher.name}' looks at crops of {th}x{tw}, the student at {sh}x{sw} "
            f"(height x width); choose a teacher of {sh}x{sw}, or train the student with model_options.input_size=[{th},{tw}]."
        )
