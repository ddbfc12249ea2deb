"""Any teacher to any student: what the teacher finds becomes targets in the form that the student predicts.

Response-based distillation (Hinton et al., 2015) for poses. The teacher's keypoints and their confidence are brought into the
student's crop, matched by name, and encoded by the student's own codec, so that the student's own loss compares: heatmaps,
bins, coordinates with or without a deviation, and every layer of a decoder. Where both sides have the same form, the teacher's
distribution is taken as it is: heatmaps are resampled at the places that the student's stand for, bins at the student's bins.
A student whose coordinates have a heatmap's deviation is compared with a heatmap teacher by simulated heatmaps too
(DistilPose, CVPR 2023, eq. 5).

Keypoints that nobody has labelled are learnt from the teacher alone, weighted by its confidence.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from leanpose.codecs import Codec, HeatmapCodec, SimCCCodec
from leanpose.codecs.base import Coordinates, Heatmaps, Prediction, SimCC
from leanpose.codecs.heatmap import HeatmapTarget
from leanpose.codecs.simcc import SimCCTarget
from leanpose.errors import LeanposeError
from leanpose.losses.base import Criterion, Distillation, supervised_loss
from leanpose.losses.distilpose import simulate_heatmaps
from leanpose.losses.fit import CropFit
from leanpose.models.base import PoseModel
from leanpose.models.output import PoseOutput
from leanpose.schema import TeacherSection


class AutoSection(TeacherSection):
    """How much labels and teacher count."""

    method: Literal["auto"] = "auto"  # pyright: ignore[reportIncompatibleVariableOverride]
    label_weight: float = Field(default=1.0, ge=0)
    """Of the loss against the labels; 0 for a teacher alone."""
    teacher_weight: float = Field(default=1.0, gt=0)
    """Of the same loss against what the teacher finds."""
    simulated_heatmap_weight: float = Field(default=1.0, ge=0)
    """Of the simulated heatmaps, where the student has a deviation for them and the teacher predicts heatmaps."""
    min_confidence: float = Field(default=0.2, ge=0, le=1)
    """The teacher's keypoints below this confidence are not learnt from. Heatmaps say themselves how sure they are."""
    only_unlabelled: bool = False
    """Learn from the teacher only where there is no label."""


class AutoLoss(Distillation[AutoSection]):
    """`L = λ_labels L(student, labels) + λ_teacher L(student, teacher)`, L being the student's own loss.

    Args:
        criterion: compares the student's prediction with targets.
        section: the settings.
        student, teacher: their codecs.
        fit: how their crops lie.
        common: the keypoints that both find, in the student's order and in the teacher's.
        keypoints: how many the student finds.
        simulate: whether the student's coordinates have a deviation that a heatmap could have.
    """

    section_type = AutoSection
    student_keypoints: Int[Tensor, " C"]
    teacher_keypoints: Int[Tensor, " C"]

    def __init__(
        self,
        criterion: Criterion,
        section: AutoSection,
        student: Codec[Any, Any],
        teacher: Codec[Any, Any],
        fit: CropFit,
        common: tuple[list[int], list[int]],
        *,
        keypoints: int,
        simulate: bool,
    ) -> None:
        super().__init__(criterion, section)
        self.student_codec, self.teacher_codec, self.fit = student, teacher, fit
        self.keypoints, self.simulate = keypoints, simulate
        self.register_buffer("student_keypoints", torch.tensor(common[0]), persistent=False)
        self.register_buffer("teacher_keypoints", torch.tensor(common[1]), persistent=False)

    @classmethod
    def build(
        cls, section: AutoSection, student: PoseModel, teacher: PoseModel | None, criterion: Criterion
    ) -> AutoLoss:
        assert teacher is not None, "a method with a TeacherSection always gets its teacher"
        common = common_keypoints(student, teacher)
        fit = CropFit(student.input_size, teacher.input_size, student.codec.warp)
        simulate = (
            section.simulated_heatmap_weight > 0
            and "heatmap_sigma" in student.provides
            and isinstance(teacher.codec, HeatmapCodec)
        )
        codecs = student.codec, teacher.codec
        return cls(criterion, section, *codecs, fit, common, keypoints=len(student.skeleton), simulate=simulate)

    def explain(self) -> list[str]:
        """The terms with their weights, and why each is there: a sentence a term."""
        section, count = self.section, len(self.student_keypoints)
        terms = [f"pose: weight {section.label_weight:g}, the student's loss against the labels"] * bool(
            section.label_weight
        )
        match self.student_codec, self.teacher_codec:
            case HeatmapCodec(), HeatmapCodec():
                how = "the teacher's heatmaps, resampled to the student's, since both predict heatmaps"
            case SimCCCodec(), SimCCCodec():
                how = "the teacher's bins, resampled to the student's, since both predict bins"
            case student, teacher:
                how = (
                    f"the teacher's keypoints ({teacher.name}), encoded as the student predicts them ({student.name}) and "
                    f"weighted by their confidence, from {section.min_confidence:g} on"
                )
        where = "where there is no label" if section.only_unlabelled else "labelled or not"
        terms.append(
            f"teacher: weight {section.teacher_weight:g}, the student's loss against {how}; {count} of its "
            f"{self.keypoints} keypoints, {where}"
        )
        if self.simulate:
            terms.append(
                f"simulated_heatmaps: weight {section.simulated_heatmap_weight:g}, the Gaussian of the predicted point and "
                "deviation against the teacher's heatmap, since the student predicts such a deviation"
            )
        return terms

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        assert teacher is not None
        section, losses = self.section, {}
        if section.label_weight:
            losses["pose"] = section.label_weight * supervised_loss(self.criterion, student, target)
        wanted = self.teacher_target(teacher.prediction)
        if section.only_unlabelled:
            wanted = replace(wanted, weights=wanted.weights * (target.weights == 0))
        losses["teacher"] = section.teacher_weight * supervised_loss(self.criterion, student, wanted)
        if self.simulate:
            pred = student.prediction
            assert isinstance(pred, Coordinates)
            assert pred.sigma is not None
            assert isinstance(teacher.prediction, Heatmaps)
            maps = teacher.prediction.heatmaps.float()[:, self.teacher_keypoints]
            size = (maps.shape[2], maps.shape[3])
            # A place of these maps is a fraction of the student's crop, as `simulate_heatmaps` has it.
            less = 1 if self.student_codec.warp == "udp" else 0
            stride = maps.new_tensor([(s - less) / m for s, m in zip(self.fit.student[::-1], size[::-1], strict=True)])
            maps = self.fit.sample(maps, self.teacher_codec.stride(maps.device), size, stride)  # pyright: ignore
            own = self.student_keypoints
            error = (simulate_heatmaps(pred.xy[:, own], pred.sigma[:, own], size) - maps).square().mean()
            losses["simulated_heatmaps"] = section.simulated_heatmap_weight * error
        return losses

    @torch.no_grad()
    def teacher_target(self, prediction: Prediction) -> Any:
        """What the teacher found as a target of the student's codec; keypoints that it does not look for weigh 0."""
        student, teacher, own, other = (
            self.student_codec,
            self.teacher_codec,
            self.student_keypoints,
            self.teacher_keypoints,
        )
        points, confidence = teacher.decode(prediction)
        points, confidence = self.fit.student_points(points[:, other]), confidence[:, other].float()
        confidence = confidence * (confidence >= self.section.min_confidence)
        weights = confidence.new_zeros(len(confidence), self.keypoints)
        keypoints = points.new_zeros(len(points), self.keypoints, 2)
        keypoints[:, own], weights[:, own] = points, confidence
        target = student.encode(keypoints, weights)
        if isinstance(student, HeatmapCodec) and isinstance(prediction, Heatmaps):
            assert isinstance(teacher, HeatmapCodec)
            maps = target.heatmaps.new_zeros(target.heatmaps.shape)
            strides = teacher.stride(maps.device), student.stride(maps.device)
            found = prediction.heatmaps.float()[:, other]
            maps[:, own] = self.fit.sample(found, strides[0], student.heatmap_size, strides[1])
            weights = torch.zeros_like(weights).index_fill_(1, own, 1.0)
            return HeatmapTarget(maps, weights)
        if isinstance(student, SimCCCodec) and isinstance(prediction, SimCC):
            assert isinstance(teacher, SimCCCodec)
            return self._resampled_bins(prediction, teacher, student, target)
        return target

    def _resampled_bins(
        self, prediction: SimCC, teacher: SimCCCodec, student: SimCCCodec, target: SimCCTarget
    ) -> SimCCTarget:
        """The teacher's rows at the student's bins, as labels of the student's loss."""
        rows = []
        for axis, (row, empty) in enumerate(((prediction.x, target.x), (prediction.y, target.y))):
            bins = torch.arange(empty.shape[-1], device=row.device) / student.simcc_split_ratio
            at = (bins * float(self.fit.scale()[axis]) + self.fit.offset[axis]) * teacher.simcc_split_ratio
            found = _interpolate(row.float()[:, self.teacher_keypoints], at)
            if not student.label_softmax:
                found = (found * teacher.beta).softmax(dim=-1)
            elif not teacher.label_softmax:  # a distribution's logits, on the scale that the student's softmax takes
                found = found * (teacher.beta / student.beta)
            labels = torch.zeros_like(empty)
            labels[:, self.student_keypoints] = found
            rows.append(labels)
        return SimCCTarget(rows[0], rows[1], target.weights)


def _interpolate(rows: Float[Tensor, "B K X"], at: Float[Tensor, " N"]) -> Float[Tensor, "B K N"]:
    """The rows' values at fractional positions; the border's beyond it."""
    grid = torch.stack([at * (2 / max(rows.shape[-1] - 1, 1)) - 1, torch.zeros_like(at)], dim=-1)
    grid = grid.expand(len(rows), 1, -1, -1)
    return F.grid_sample(rows[:, :, None], grid, padding_mode="border", align_corners=True)[:, :, 0]


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
