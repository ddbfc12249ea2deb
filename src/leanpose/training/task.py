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

    Not an `nn.Module`, so that its weights are not registered with the student.

    Args:
        model: taken over; its parameters are frozen.
        identity: identity of the weights, which must be the same when a run is resumed.
        bf16: use bfloat16 autocast.
        compiled: use `torch.compile`, which takes a minute at the start.
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
        """The output for one black crop, without compiling, to check which tensors it has."""
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
        """The precision of teacher and student."""
        return torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext()


class Task(nn.Module):
    """The module that the loop trains: one `forward` from a batch's `inputs` to the weighted loss terms, by name.

    Attributes:
        model: the model that is saved and evaluated.
        teacher: another model, frozen; None if there is none.
        observed: additional values of the last forward pass to log, by name.
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
    """Wraps a model for training with a single `forward`, as distributed wrappers need.

    Crops have `crop_size`, large enough for student and teacher; they are resized for the other one.

    Args:
        model: the student; its own codec encodes the targets.
        distillation: the method.
        auxiliary: auxiliary heatmap loss, with parameters of its own that are not saved.
        teacher: another model; frozen, and neither trained, saved nor synchronised between processes.
        sets: names of the data sets, if batches hold the data set of each person.
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
                    f"The method '{self.distillation.section.method}' already has a loss named 'auxiliary'; "
                    "rename it, or train without auxiliary_heatmap_weight."
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
        """The contribution of each set's people to the supervised loss, which is their sum."""
        parts = {}
        for number, name in enumerate(self.sets):
            target = self.model.codec.encode(keypoints, weights * (sets == number)[:, None])
            parts[f"{OF_SET}{name}"] = supervised_loss(self.distillation.criterion, student, target)
        return parts

    @torch.no_grad()
    def dry_run(self) -> None:
        """Compute the losses for a black crop, so that incompatibilities are detected before the first batch.

        Raises:
            LeanposeError: an output that the method needs is missing.
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
    """The student with a recipe's method; see `PoseTask`.

    Raises:
        LeanposeError: the student or the teacher is incompatible with the method.
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
