"""Any teacher, any student: teacher predictions are converted to the student's output representation.

Response-based distillation (Hinton et al., 2015) for poses. The teacher's keypoints and their confidence are brought
into the student's crop, matched by name, and encoded by the student's own codec, so that the student's own loss
applies: to heatmaps, bins, coordinates with or without sigma, and every layer of a decoder. If both use the same
representation, the teacher's distribution is used directly: heatmaps are resampled to the student's grid, SimCC bins to
its bins. A student that predicts a heatmap sigma and a score is also compared with the teacher's heatmaps (DistilPose,
CVPR 2023, eq. 5 and 7).

Two more terms supervise the layers below the head: an auxiliary linear layer predicts the teacher's heatmaps from the
features (as TFPose supervises its encoder), and features or tokens are matched to the teacher's. A student with several
cycles (SDPose, CVPR 2024) is supervised in each of them, and the tokens of each cycle learn from those of the next.

Unlabelled keypoints are learned from the teacher alone, weighted by its confidence.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from leanpose.codecs import Codec, HeatmapCodec, SimCCCodec
from leanpose.codecs.base import Coordinates, Heatmaps, Prediction, SimCC
from leanpose.codecs.heatmap import HeatmapTarget
from leanpose.codecs.simcc import SimCCTarget
from leanpose.device import device_constant
from leanpose.errors import did_you_mean
from leanpose.losses.auxiliary import LinearHeatmapHead
from leanpose.losses.base import Criterion, Distillation, common_keypoints, sum_of, supervised_loss
from leanpose.losses.crop_alignment import CropAlignment
from leanpose.losses.distilpose import sample_heatmaps, simulate_heatmaps
from leanpose.losses.features import FEATURE_LOSSES, FeatureLoss, feature_channels, on_one_grid
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.schema import TeacherSection

POOLED_SHARE = 0.03
"""Scale of `auxiliary_heatmap_weight` for heads that pool the features: such heads cannot read positions from the
features, and their loss is about a hundredth of the auxiliary one. PCK after one epoch: 30.9 without a teacher;
distilled with scale 1: 23.0, 0.03: 35.2, 0: 31.8 (docs/results/matrix.md)."""


class AutoSection(TeacherSection):
    """Weights of the loss terms. A weight of 0 disables a term; terms that do not apply to the two models are
    omitted."""

    method: Literal["auto"] = "auto"  # pyright: ignore[reportIncompatibleVariableOverride]
    gt_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss against the labels; 0 uses the teacher alone."""
    teacher_weight: float = Field(default=1.0, ge=0)
    """Weight of the same loss against the teacher's predictions."""
    min_confidence: float = Field(default=0.2, ge=0, le=1)
    """Minimum confidence of the teacher's keypoints. Not used for heatmaps, whose height is the confidence."""
    only_unlabelled: bool = False
    """Learn from the teacher's keypoints only where there is no label."""
    simulated_heatmap_weight: float = Field(default=1.0, ge=0)
    """Weight of the simulated heatmaps, if the student predicts a heatmap sigma."""
    confidence_weight: float = Field(default=0.01, ge=0)
    """Weight of the student's score, if it predicts one, against the teacher's heatmap at the predicted point."""
    teacher_auxiliary_weight: float = Field(default=1.0, ge=0)
    """Weight of the teacher's heatmaps predicted from the student's features and visual tokens, relative to their mean
    square; times `POOLED_SHARE` if the head pools its features."""
    feature_loss: str = "none"
    """Loss between the features of both models, if both have them: a name of
    `leanpose.losses.features.FEATURE_LOSSES`."""
    feature_weight: float = Field(default=1.0, gt=0)
    """Weight of `feature_loss`."""
    token_weight: float = Field(default=0.0, ge=0)
    """Weight of the keypoint tokens against the teacher's, if both have them; each token is scaled to a standard
    deviation of 1."""
    cycle_weight: float = Field(default=0.1, ge=0)
    """Weight of the tokens of each cycle against those of the next, if the student has several, scaled in the same
    way."""

    @field_validator("feature_loss")
    @classmethod
    def _known_loss(cls, name: str) -> str:
        known = ("none", *FEATURE_LOSSES)
        if name not in known:
            raise ValueError(f"unknown feature loss; {did_you_mean(name, known).rstrip('.')}")
        return name

    @model_validator(mode="after")
    def _something_to_learn(self) -> AutoSection:
        if not (self.gt_weight or self.teacher_weight):
            raise ValueError("gt_weight and teacher_weight are both 0, so no loss reaches the head")
        return self

    def label_loss_scale(self, cycles: int) -> float:
        return self.gt_weight * cycles

    @property
    def prediction_only(self) -> bool:
        return self.feature_loss == "none" and not self.token_weight


class AutoLoss(Distillation[AutoSection]):
    """`L = λ_labels L(student, labels) + λ_teacher L(student, teacher) + …`, L being the student's own loss.

    Args:
        criterion: compares the student's prediction with targets.
        section: the settings.
        student, teacher: their codecs.
        alignment: the alignment of their crops.
        common: the keypoints that both predict, in the student's order and in the teacher's.
        keypoints: the number of the student's keypoints.
        simulate: whether the student predicts a heatmap sigma.
        score: whether it predicts a score.
        auxiliary_heads: predict the teacher's heatmaps from the student's features and from its visual tokens; None for
            what it lacks.
        features: the loss between the features of both.
        tokens: projects the student's keypoint tokens to the teacher's width.
        cycles: the number of the student's cycles.
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
        alignment: CropAlignment,
        common: tuple[list[int], list[int]],
        *,
        keypoints: int,
        simulate: bool = False,
        score: bool = False,
        auxiliary_heads: tuple[LinearHeatmapHead | None, LinearHeatmapHead | None] = (None, None),
        pooled: bool = False,
        features: FeatureLoss | None = None,
        tokens: nn.Module | None = None,
        cycles: int = 1,
    ) -> None:
        super().__init__(criterion, section)
        self.student_codec, self.teacher_codec, self.alignment = student, teacher, alignment
        self.keypoints, self.simulate, self.score, self.cycles = keypoints, simulate, score, cycles
        self.feature_head, self.token_head = auxiliary_heads
        self.auxiliary_weight = section.teacher_auxiliary_weight * (POOLED_SHARE if pooled else 1)
        self.features, self.tokens = features, tokens
        size = (max(alignment.student[0] // 4, 2), max(alignment.student[1] // 4, 2))
        self.map_codec = HeatmapCodec(alignment.student, size, encoding="udp" if student.warp == "udp" else "unbiased")
        self.register_buffer("student_keypoints", torch.tensor(common[0]), persistent=False)
        self.register_buffer("teacher_keypoints", torch.tensor(common[1]), persistent=False)

    @classmethod
    def build(
        cls, section: AutoSection, student: PoseModel, teacher: PoseModel | None, criterion: Criterion
    ) -> AutoLoss:
        """The terms that apply to both models.

        Raises:
            LeanposeError: they have no keypoint in common, or one has no features and `feature_loss` asks for them.
        """
        assert teacher is not None, "a method with a TeacherSection always gets its teacher"
        keypoints, warp = len(student.skeleton), student.codec.warp
        predicts_maps = isinstance(student.codec, HeatmapCodec)
        heads: list[LinearHeatmapHead | None] = [None, None]
        if section.teacher_auxiliary_weight:
            if "features" in student.provides and not predicts_maps:
                backbone: Any = student.backbone
                unit = math.lcm(backbone.stride, backbone.size_divisor)
                height, width = (math.ceil(side / unit) * unit for side in student.input_size)  # TFPose pads at the end
                grid = (backbone.channels, height // backbone.stride, width // backbone.stride)
                heads[0] = LinearHeatmapHead(grid, keypoints, (height, width), warp)
            if student.feature_map_shape is not None:
                heads[1] = LinearHeatmapHead(student.feature_map_shape, keypoints, student.feature_map_area, warp)
        features = tokens = None
        if section.feature_loss != "none":
            channels = (feature_channels(student), feature_channels(teacher))
            features = FEATURE_LOSSES[section.feature_loss](channels)
        if section.token_weight and "tokens" in student.provides & teacher.provides:
            assert student.token_dim is not None
            assert teacher.token_dim is not None
            tokens = nn.Linear(student.token_dim, teacher.token_dim)
        return cls(
            criterion,
            section,
            student.codec,
            teacher.codec,
            CropAlignment(student.input_size, teacher.input_size, student.codec.warp),
            common_keypoints(student, teacher),
            keypoints=keypoints,
            simulate=section.simulated_heatmap_weight > 0 and "heatmap_sigma" in student.provides,
            score=section.confidence_weight > 0 and "score" in student.provides,
            auxiliary_heads=(heads[0], heads[1]),
            pooled=student.pools_features,
            features=features,
            tokens=tokens,
            cycles=student.num_cycles,
        )

    def explain(self) -> list[str]:
        """The terms with their weights, and why each is used: one sentence per term."""
        section, count = self.section, len(self.student_keypoints)
        each = f", in each of its {self.cycles} cycles" if self.cycles > 1 else ""
        terms = []
        if section.gt_weight:
            terms.append(f"pose: weight {section.gt_weight:g}, the student's loss against the labels{each}")
        match self.student_codec, self.teacher_codec:
            case HeatmapCodec(), HeatmapCodec():
                how = "the teacher's heatmaps, resampled to the student's, since both predict heatmaps"
            case SimCCCodec(), SimCCCodec():
                how = "the teacher's bins, resampled to the student's, since both predict bins"
            case student, teacher:
                how = (
                    f"the teacher's keypoints ({teacher.name}), encoded as the student predicts them ({student.name}) "
                    f"and weighted by their confidence, from {section.min_confidence:g} on"
                )
        where = "where there is no label" if section.only_unlabelled else "labelled or not"
        if section.teacher_weight:
            terms.append(
                f"teacher: weight {section.teacher_weight:g}, the student's loss against {how}; {count} of its "
                f"{self.keypoints} keypoints, {where}{each}"
            )
        if self.simulate:
            terms.append(
                f"simulated_heatmaps: weight {section.simulated_heatmap_weight:g}, the Gaussian of the predicted point "
                "and sigma against the teacher's heatmap, since the student predicts such a sigma"
            )
        if self.score:
            terms.append(
                f"confidence: weight {section.confidence_weight:g}, the predicted score against the teacher's heatmap "
                "at the predicted point, since the student predicts a score"
            )
        places = [
            name
            for name, head in (("features", self.feature_head), ("visual tokens", self.token_head))
            if head is not None
        ]
        if places:
            maps = "heatmaps" if isinstance(self.teacher_codec, HeatmapCodec) else "keypoints, as heatmaps,"
            terms.append(
                f"teacher_auxiliary: weight {self.auxiliary_weight:g}, the teacher's {maps} predicted by one linear "
                f"layer from the student's {' and '.join(places)}, which its head's loss supervises only indirectly"
            )
        if self.features is not None:
            terms.append(
                f"features: weight {section.feature_weight:g}, {self.features.title}, since feature_loss is "
                f"{section.feature_loss}"
            )
        if self.tokens is not None:
            terms.append(
                f"keypoint_tokens: weight {section.token_weight:g}, the keypoint tokens against the teacher's, since both have them"
            )
        if self.cycles > 1 and section.cycle_weight:
            terms.append(
                f"cycles: weight {section.cycle_weight:g}, the tokens of each cycle against those of the next, since "
                f"the student has {self.cycles}"
            )
        return terms

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        assert teacher is not None
        section, losses = self.section, {}
        cycles = student.cycles or (student,)
        if section.gt_weight:
            loss = sum_of(supervised_loss(self.criterion, cycle, target) for cycle in cycles)
            losses["pose"] = section.gt_weight * loss
        if section.teacher_weight:
            wanted = self.teacher_target(teacher.prediction)
            if section.only_unlabelled:
                wanted = replace(wanted, weights=wanted.weights * (target.weights == 0))
            loss = sum_of(supervised_loss(self.criterion, cycle, wanted) for cycle in cycles)
            losses["teacher"] = section.teacher_weight * loss
        if self.simulate or self.score:
            losses |= self._simulated(student.prediction, teacher.prediction)
        if self.feature_head is not None or self.token_head is not None:
            losses["teacher_auxiliary"] = self.auxiliary_weight * self._auxiliary(student, teacher.prediction)
        if self.features is not None:
            assert student.features is not None
            assert teacher.features is not None
            pair = on_one_grid(student.features, self.alignment.region(teacher.features))
            losses["features"] = section.feature_weight * self.features(*pair)
        if self.tokens is not None:
            assert student.keypoint_tokens is not None
            assert teacher.keypoint_tokens is not None
            own = self.tokens(student.keypoint_tokens[:, self.student_keypoints])
            loss = _scaled_distance(own, teacher.keypoint_tokens[:, self.teacher_keypoints])
            losses["keypoint_tokens"] = section.token_weight * loss
        if len(cycles) > 1 and section.cycle_weight:
            losses["cycles"] = section.cycle_weight * sum_of(
                _scaled_distance(one, deeper)
                for a, b in pairwise(cycles)
                for one, deeper in ((a.keypoint_tokens, b.keypoint_tokens), (a.visual_tokens, b.visual_tokens))
                if one is not None and deeper is not None and one.shape == deeper.shape  # not where tokens were dropped
            )
        return losses

    def _simulated(self, pred: Prediction, found: Prediction) -> dict[str, Float[Tensor, ""]]:
        """DistilPose's eq. 5 and 7: the losses of the student's sigma and score."""
        assert isinstance(pred, Coordinates)
        losses, own = {}, self.student_keypoints
        maps = self._teacher_maps(found)
        if self.simulate:
            assert pred.sigma is not None
            simulated = simulate_heatmaps(pred.xy[:, own], pred.sigma[:, own], (maps.shape[2], maps.shape[3]))
            losses["simulated_heatmaps"] = self.section.simulated_heatmap_weight * (simulated - maps).square().mean()
        if self.score:
            assert pred.score is not None
            error = (pred.score[:, own].float() - sample_heatmaps(maps, pred.xy[:, own])).abs()
            losses["confidence"] = self.section.confidence_weight * error.mean()
        return losses

    @torch.no_grad()
    def _teacher_maps(self, found: Prediction) -> Float[Tensor, "B C H W"]:
        """Heatmaps of the common keypoints over the student's crop: the teacher's in its own resolution, or
        Gaussians."""
        if not isinstance(found, Heatmaps):
            target = self.teacher_target(found, self.map_codec)
            return (target.heatmaps * target.weights[..., None, None])[:, self.student_keypoints]
        assert isinstance(self.teacher_codec, HeatmapCodec)
        maps = found.heatmaps.float()[:, self.teacher_keypoints]
        size = (maps.shape[2], maps.shape[3])
        # A position in these maps is a fraction of the student's crop, as in `simulate_heatmaps`.
        less = 1 if self.student_codec.warp == "udp" else 0
        ratios = [(s - less) / m for s, m in zip(self.alignment.student[::-1], size[::-1], strict=True)]
        stride = device_constant(ratios, maps.device, maps.dtype)
        return self.alignment.sample(maps, self.teacher_codec.stride(maps.device), size, stride)

    def _auxiliary(self, student: PoseOutput, found: Prediction) -> Float[Tensor, ""]:
        """The loss of the teacher's heatmaps predicted from the student's feature maps, the mean over its layers."""
        terms = []
        for head, maps in (
            (self.feature_head, () if student.features is None else (student.features,)),
            (self.token_head, [layer for cycle in student.cycles or (student,) for layer in cycle.feature_maps]),
        ):
            if head is None:
                continue
            target = self.teacher_target(found, head.codec)
            weights = target.weights[..., None, None]
            scale = (weights * target.heatmaps.square()).mean().clamp(min=1e-8)
            errors = [(weights * (head(each) - target.heatmaps).square()).mean() / scale for each in maps]
            terms.append(sum_of(errors) / len(errors))
        return sum_of(terms)

    @torch.no_grad()
    def teacher_target(self, prediction: Prediction, codec: Codec[Any, Any] | None = None) -> Any:
        """The teacher's prediction as a target of the student's codec, or of another one for the same crops.

        Keypoints that the teacher does not predict have weight 0.
        """
        student, teacher, own, other = (
            codec or self.student_codec,
            self.teacher_codec,
            self.student_keypoints,
            self.teacher_keypoints,
        )
        points, confidence = teacher.decode(prediction)
        points, confidence = self.alignment.student_points(points[:, other]), confidence[:, other].float()
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
            maps[:, own] = self.alignment.sample(found, strides[0], student.heatmap_size, strides[1])
            weights = torch.zeros_like(weights).index_fill_(1, own, 1.0)
            return HeatmapTarget(maps, weights)
        if isinstance(student, SimCCCodec) and isinstance(prediction, SimCC):
            assert isinstance(teacher, SimCCCodec)
            return self._resampled_bins(prediction, teacher, student, target)
        return target

    def _resampled_bins(
        self, prediction: SimCC, teacher: SimCCCodec, student: SimCCCodec, target: SimCCTarget
    ) -> SimCCTarget:
        """The teacher's bins resampled to the student's, as targets of the student's loss."""
        rows = []
        for axis, (row, empty) in enumerate(((prediction.x, target.x), (prediction.y, target.y))):
            bins = torch.arange(empty.shape[-1], device=row.device) / student.simcc_split_ratio
            at = (bins * float(self.alignment.scale()[axis]) + self.alignment.offset[axis]) * teacher.simcc_split_ratio
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


def _scaled_distance(one: Tensor, other: Tensor) -> Float[Tensor, ""]:
    """The mean squared distance of tokens, each normalized to mean 0 and standard deviation 1; `other` gets no
    gradient.

    The published weights of tokens fit the scale of the published networks' tokens, which grow with depth.
    """
    width = (one.shape[-1],)
    return F.mse_loss(F.layer_norm(one.float(), width), F.layer_norm(other.detach().float(), width))
