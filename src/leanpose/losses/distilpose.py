"""DistilPose: a heatmap teacher teaches a regression student (Ye et al., CVPR 2023, §3.2–3.5)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from leanpose.errors import LeanposeError
from leanpose.losses.base import Criterion, Distillation, supervised_loss
from leanpose.models.output import Coordinates, Heatmaps, PoseOutput


class DistilPoseLoss(Distillation):
    """`L = L_reg + α1 MSE(KT, KT_teacher) + α2 MSE(VT, VT_teacher) + α3 L_SH + α4 L_CS` (DistilPose, eq. 8).

    Args:
        objective: compares the student's coordinates with the ground truth (L_reg).
        keypoint_token_weight: α1, of the token-distilling encoder's keypoint tokens.
        visual_token_weight: α2, of its visual tokens.
        simulated_heatmap_weight: α3: the Gaussian of the predicted point and deviations meets the teacher's heatmap.
        confidence_weight: α4: the predicted score meets the teacher's heatmap at the predicted point.
    """

    def __init__(
        self,
        criterion: Criterion,
        keypoint_token_weight: float = 5e-4,
        visual_token_weight: float = 5e-4,
        simulated_heatmap_weight: float = 1.0,
        confidence_weight: float = 0.01,
    ) -> None:
        super().__init__(criterion)
        self.keypoint_token_weight = keypoint_token_weight
        self.visual_token_weight = visual_token_weight
        self.simulated_heatmap_weight = simulated_heatmap_weight
        self.confidence_weight = confidence_weight

    def losses(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        """See `Distillation.losses`.

        Raises:
            LeanposeError: the student or the teacher lacks what a loss with a weight above 0 compares.
        """
        assert teacher is not None
        predicted, heatmaps = student.prediction, teacher.prediction
        if not isinstance(predicted, Coordinates) or not isinstance(heatmaps, Heatmaps):
            raise LeanposeError("distilpose needs a student that predicts coordinates and a heatmap teacher.")
        losses = {"pose": supervised_loss(self.criterion, student, target)}
        for name, weight in (
            ("keypoint_tokens", self.keypoint_token_weight),
            ("visual_tokens", self.visual_token_weight),
        ):
            if weight:
                losses[name] = weight * _token_gap(name, student, teacher)
        maps, counts = heatmaps.heatmaps.float(), target.weights
        if self.simulated_heatmap_weight:
            if predicted.sigma is None:
                raise LeanposeError(
                    "The student predicts no deviations; set model_options.outputs=xy_sigma_score if it has that option, or "
                    "distillation.simulated_heatmap_weight=0."
                )
            simulated = simulate_heatmaps(predicted.xy, predicted.sigma, (maps.shape[2], maps.shape[3]))
            # The official code mixes the weights of different people here; each error gets its own person's.
            error = (simulated - maps).square().mean(dim=(2, 3))
            losses["simulated_heatmaps"] = self.simulated_heatmap_weight * (error * counts).mean()
        if self.confidence_weight:
            if predicted.score is None:
                raise LeanposeError(
                    "The student predicts no confidence; set model_options.outputs=xy_sigma_score if it has that option, or "
                    "distillation.confidence_weight=0."
                )
            gap = (predicted.score.float() - read_heatmaps(maps, predicted.xy)).abs()
            losses["confidence"] = self.confidence_weight * (gap * counts).mean()
        return losses


def _token_gap(name: str, student: PoseOutput, teacher: PoseOutput) -> Float[Tensor, ""]:
    mine, theirs = getattr(student, name), getattr(teacher, name)
    if mine is None or theirs is None or mine.shape != theirs.shape:
        shapes = " and ".join(
            "none" if tokens is None else "x".join(map(str, tokens.shape[1:])) for tokens in (mine, theirs)
        )
        raise LeanposeError(
            f"The {name} of student and teacher do not fit ({shapes}, number x width); "
            f"choose a teacher with the same tokens, or set distillation.{name[:-1]}_weight=0."
        )
    return mse_loss(mine.float(), theirs.float())


def simulate_heatmaps(
    xy: Float[Tensor, "B K 2"], sigma: Float[Tensor, "B K 2"], size: tuple[int, int]
) -> Float[Tensor, "B K H W"]:
    """A Gaussian of height 1 for each predicted point (DistilPose, eq. 5).

    Args:
        xy: fractions of the crop.
        sigma: deviations along x and y, in pixels of the map.
        size: height and width of the map.
    """
    height, width = size

    def line(axis: int, length: int) -> Float[Tensor, "B K length"]:
        position = torch.arange(length, device=xy.device) - xy[..., axis, None].float() * length
        return -0.5 * (position / sigma[..., axis, None].float()).square()

    return torch.exp(line(1, height)[..., :, None] + line(0, width)[..., None, :])


def read_heatmaps(maps: Float[Tensor, "B K H W"], xy: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
    """The value of each map at the pixel next to a predicted point; 0 outside of the map (DistilPose §3.4)."""
    height, width = maps.shape[2:]
    at = (xy.detach().float() * xy.new_tensor([width - 1, height - 1], dtype=torch.float32)).round().long()
    x, y = at.unbind(dim=-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1))[..., None]
    return maps.flatten(2).gather(2, index)[..., 0] * inside
