"""DistilPose: a heatmap teacher and a coordinate-regression student (Ye et al., CVPR 2023, §3.2–3.5)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss

from leanpose.codecs import CoordinateCodec, Coordinates, HeatmapCodec, Heatmaps
from leanpose.device import device_constant
from leanpose.errors import LeanposeError
from leanpose.losses.base import Criterion, Distillation, require_codec, require_same_crops, supervised_loss
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.schema import TeacherSection


class DistilPoseSection(TeacherSection):
    """The weights of DistilPose's eq. 8."""

    method: Literal["distilpose"] = "distilpose"  # pyright: ignore[reportIncompatibleVariableOverride]
    keypoint_token_weight: float = Field(default=5e-4, ge=0)
    """α1, weight of the token-distilling encoder's keypoint tokens."""
    visual_token_weight: float = Field(default=5e-4, ge=0)
    """α2, weight of its visual tokens."""
    simulated_heatmap_weight: float = Field(default=1.0, ge=0)
    """α3: the Gaussian of the predicted point and sigma against the teacher's heatmap."""
    confidence_weight: float = Field(default=0.01, ge=0)
    """α4: the predicted score against the teacher's heatmap at the predicted point."""

    @property
    def prediction_only(self) -> bool:
        return not (self.keypoint_token_weight or self.visual_token_weight)


class DistilPoseLoss(Distillation[DistilPoseSection]):
    """`L = L_reg + α1 MSE(KT, KT_teacher) + α2 MSE(VT, VT_teacher) + α3 L_SH + α4 L_CS` (DistilPose, eq. 8)."""

    section_type = DistilPoseSection

    @classmethod
    def build(
        cls, section: DistilPoseSection, student: PoseModel, teacher: PoseModel | None, criterion: Criterion
    ) -> DistilPoseLoss:
        teacher = require_same_crops(student, teacher)
        require_codec(teacher, "teacher", HeatmapCodec, section.method)
        require_codec(student, "student", CoordinateCodec, section.method)
        if student.num_cycles > 1:
            raise LeanposeError(
                f"distilpose needs a student with one cycle; '{student.name}' has {student.num_cycles}: set "
                "model_options.cycles=1."
            )
        for weight, needed, what in (
            ("simulated_heatmap_weight", "heatmap_sigma", "heatmap sigma"),
            ("confidence_weight", "score", "score"),
        ):
            if getattr(section, weight) and needed not in student.provides:
                raise LeanposeError(
                    f"'{student.name}' predicts no {what}: set distillation.{weight}=0, or "
                    "model_options.outputs=xy_sigma_score if the model has that option."
                )
        return cls(criterion, section)

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        """See `Distillation.forward`.

        Raises:
            LeanposeError: the tokens of student and teacher do not fit.
        """
        assert teacher is not None
        section, pred, teacher_pred = self.section, student.prediction, teacher.prediction
        assert isinstance(pred, Coordinates)
        assert isinstance(teacher_pred, Heatmaps)
        losses = {"pose": supervised_loss(self.criterion, student, target)}
        if section.keypoint_token_weight:
            distance = _token_distance("keypoint_tokens", student.keypoint_tokens, teacher.keypoint_tokens)
            losses["keypoint_tokens"] = section.keypoint_token_weight * distance
        if section.visual_token_weight:
            distance = _token_distance("visual_tokens", student.visual_tokens, teacher.visual_tokens)
            losses["visual_tokens"] = section.visual_token_weight * distance
        heatmaps, weights = teacher_pred.heatmaps.float(), target.weights
        if section.simulated_heatmap_weight:
            assert pred.sigma is not None, "checked by build()"
            simulated = simulate_heatmaps(pred.xy, pred.sigma, (heatmaps.shape[2], heatmaps.shape[3]))
            # The official code mixes the weights of different people here; here each error gets its own person's.
            error = (simulated - heatmaps).square().mean(dim=(2, 3))
            losses["simulated_heatmaps"] = section.simulated_heatmap_weight * (error * weights).mean()
        if section.confidence_weight:
            assert pred.score is not None, "checked by build()"
            error = (pred.score.float() - sample_heatmaps(heatmaps, pred.xy)).abs()
            losses["confidence"] = section.confidence_weight * (error * weights).mean()
        return losses


def _token_distance(name: str, student: Tensor | None, teacher: Tensor | None) -> Float[Tensor, ""]:
    if student is None or teacher is None or student.shape != teacher.shape:
        shapes = " and ".join(
            "none" if tokens is None else "x".join(map(str, tokens.shape[1:])) for tokens in (student, teacher)
        )
        raise LeanposeError(
            f"The {name} of student and teacher do not fit ({shapes}, number x dimension); "
            f"choose a teacher with the same tokens, or set distillation.{name[:-1]}_weight=0."
        )
    return mse_loss(student.float(), teacher.float())


def simulate_heatmaps(
    xy: Float[Tensor, "B K 2"], sigma: Float[Tensor, "B K 2"], size: tuple[int, int]
) -> Float[Tensor, "B K H W"]:
    """A Gaussian of height 1 for each predicted point (DistilPose, eq. 5).

    Args:
        xy: fractions of the crop.
        sigma: along x and y, in pixels of the heatmap.
        size: height and width of the heatmap.
    """
    height, width = size

    def exponent(axis: int, length: int) -> Float[Tensor, "B K length"]:
        position = torch.arange(length, device=xy.device) - xy[..., axis, None].float() * length
        return -0.5 * (position / sigma[..., axis, None].float()).square()

    return torch.exp(exponent(1, height)[..., :, None] + exponent(0, width)[..., None, :])


def sample_heatmaps(heatmaps: Float[Tensor, "B K H W"], xy: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
    """The value of each heatmap at the pixel next to a predicted point; 0 outside the map (DistilPose §3.4)."""
    height, width = heatmaps.shape[2:]
    at = (xy.detach().float() * device_constant([width - 1, height - 1], xy.device, torch.float32)).round().long()
    x, y = at.unbind(dim=-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1))[..., None]
    return heatmaps.flatten(2).gather(2, index)[..., 0] * inside
