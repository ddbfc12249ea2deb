"""The training task: a batch in, named losses out. It owns the model, the method and the teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from leanpose.errors import LeanposeError
from leanpose.losses import CRITERIA, METHODS, Distillation
from leanpose.losses.auxiliary import AuxiliaryHeatmapLoss
from leanpose.losses.base import supervised_loss
from leanpose.losses.crop_alignment import CropAlignment, resize_crops
from leanpose.models.base import ImageModel, PoseModel, PoseOutput
from leanpose.training.log import OF_SET
from leanpose.training.recipe import Recipe


class Teacher:
    """The frozen teacher of a distillation, in eval mode and without gradients; it sees the student's crops.

    It is no module, so that nobody finds its weights among the student's.

    Args:
        model: taken over; its parameters are frozen.
        identity: of the weights; a run that is resumed must find the same.
        bf16: compute in bfloat16 where torch's autocast does.
        compiled: through `torch.compile`; pays where it saves more than its minute at the start.
        flip_test: average its prediction with that for the mirrored crop.
    """

    def __init__(
        self,
        model: PoseModel,
        *,
        identity: str = "",
        bf16: bool = False,
        compiled: bool = False,
        flip_test: bool = False,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.identity, self.bf16, self.flip_test = identity, bf16, flip_test
        self._forward = torch.compile(self.model) if compiled else self.model

    def __call__(self, images: UInt8[Tensor, "B h w 3"]) -> PoseOutput:
        """The output for crops."""
        return self._pass(self._forward, images)

    def dry_run(self) -> PoseOutput:
        """The output for one black crop, without compiling anything: shows which tensors there are."""
        crop = torch.zeros(1, *self.model.input_size, 3, dtype=torch.uint8, device=self.model.device)
        return self._pass(self.model, crop)

    @torch.no_grad()
    def _pass(self, forward: Callable[[Tensor], PoseOutput], images: UInt8[Tensor, "B h w 3"]) -> PoseOutput:
        with self.autocast(images.device):
            output = forward(self.model.normalize(images))
            if not self.flip_test:
                return output
            mirrored = forward(self.model.normalize(images.flip(2))).prediction
            order = self.model.skeleton.flip_indices
            return replace(output, prediction=self.model.codec.merge_flipped(output.prediction, mirrored, order))

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The precision that teacher and student compute in."""
        return torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext()


class Task(nn.Module):
    """What the loop trains: one `forward` from a batch's `inputs` to the weighted terms of its loss, by name.

    Attributes:
        model: what is saved and measured.
        teacher: another model, frozen; None where there is none.
        observed: what the last forward pass has measured beside the losses, by name, to be logged with them.
    """

    model: ImageModel
    teacher: Teacher | None = None

    def __init__(self) -> None:
        super().__init__()
        self.observed: dict[str, Tensor] = {}

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """To be called before each epoch, counted from 0."""
        self.model.start_epoch(epoch, epochs)


class PoseTask(Task):
    """Wraps a model for training, so that one `forward` is all that a distributed wrapper has to know.

    Crops come in `crop_size`, which loses nothing for student or teacher; the other one sees them resized.

    Args:
        model: the student; its own codec encodes the targets.
        distillation: the method.
        auxiliary: auxiliary heatmaps, with parameters of their own that the model does not keep.
        teacher: another model; frozen, it is no part of what is trained, saved or shared between processes.
        sets: the names of the data sets, where batches say which one each person is of.
    """

    model: PoseModel  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        model: PoseModel,
        distillation: Distillation[Any],
        auxiliary: AuxiliaryHeatmapLoss | None = None,
        teacher: Teacher | None = None,
        sets: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.sets = tuple(sets)
        self.model = model  # pyright: ignore[reportIncompatibleVariableOverride]
        self.distillation = distillation
        self.auxiliary = auxiliary
        self.teacher = teacher
        teacher_size = model.input_size if teacher is None else teacher.model.input_size
        self.alignment = CropAlignment(model.input_size, teacher_size, model.codec.warp)

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of the crops to train on."""
        return self.alignment.crop_size

    def start_epoch(self, epoch: int, epochs: int) -> None:
        super().start_epoch(epoch, epochs)
        self.distillation.progress = epoch / epochs

    def forward(
        self,
        images: UInt8[Tensor, "B h w 3"],
        keypoints: Float[Tensor, "B K 2"],
        weights: Float[Tensor, "B K"],
        sets: Int[Tensor, " B"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms of the loss of one batch of crops (`CropBatch.inputs`), on the model's device."""
        model = self.model
        own_images, ratio = resize_crops(images, model.input_size, model.codec.warp)
        keypoints = keypoints * ratio
        target = model.codec.encode(keypoints, weights)
        teacher = None
        if self.teacher is not None:
            teacher = self.teacher(self.alignment.teacher_crops(images))
        student = self.distillation.student_forward(model, model.normalize(own_images), teacher)
        losses = self.distillation(student, teacher, target)
        if self.auxiliary is not None:
            same = self.auxiliary.codec is model.codec
            heatmaps = target if same else self.auxiliary.codec.encode(keypoints, weights)
            if "auxiliary" in losses:  # of a method of one's own: one would replace the other
                raise LeanposeError(
                    f"The method '{self.distillation.section.method}' has a loss named 'auxiliary' already; "
                    "call it otherwise, or train without auxiliary_heatmap_weight."
                )
            losses["auxiliary"] = self.auxiliary(student, heatmaps)
        if sets is not None:
            self.observed = self._losses_by_set(student, keypoints, weights, sets)
        return losses

    @torch.no_grad()
    def _losses_by_set(
        self,
        student: PoseOutput,
        keypoints: Float[Tensor, "B K 2"],
        weights: Float[Tensor, "B K"],
        sets: Int[Tensor, " B"],
    ) -> dict[str, Float[Tensor, ""]]:
        """What each set's people add to the loss of the prediction against the labels, which is their sum."""
        parts = {}
        for number, name in enumerate(self.sets):
            target = self.model.codec.encode(keypoints, weights * (sets == number)[:, None])
            parts[f"{OF_SET}{name}"] = supervised_loss(self.distillation.criterion, student, target)
        return parts

    @torch.no_grad()
    def dry_run(self) -> None:
        """Compare the outputs of student and teacher for a black crop, so that what does not fit is found before the first batch.

        Raises:
            LeanposeError: the method misses something in one of them.
        """
        assert self.teacher is not None
        model, keypoints, training = self.model, len(self.model.skeleton), self.model.training
        model.eval()
        crop = torch.zeros(1, *model.input_size, 3, dtype=torch.uint8)
        target = model.codec.encode(torch.zeros(1, keypoints, 2), torch.zeros(1, keypoints))
        teacher = self.teacher.dry_run()
        with self.teacher.autocast(crop.device):
            student = self.distillation.student_forward(model, model.normalize(crop), teacher)
            self.distillation(student, teacher, target)
        model.train(training)


def build_task(recipe: Recipe, model: PoseModel, teacher: Teacher | None = None, sets: Sequence[str] = ()) -> PoseTask:
    """The student with the method that a recipe names; see `PoseTask`.

    Raises:
        LeanposeError: the student cannot be trained so, or not by this teacher.
    """
    auxiliary = (
        AuxiliaryHeatmapLoss(model, recipe.auxiliary_heatmap_weight) if recipe.auxiliary_heatmap_weight else None
    )
    criterion, method = CRITERIA[recipe.loss](model), METHODS[recipe.distillation.method]
    distillation = method.build(recipe.distillation, model, teacher.model if teacher else None, criterion)
    task = PoseTask(model, distillation, auxiliary, teacher, sets)
    if teacher is not None:
        task.dry_run()
    return task
