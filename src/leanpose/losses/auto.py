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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from leanpose.codecs import Codec, Coordinates, HeatmapCodec, Heatmaps, Prediction
from leanpose.codecs.heatmap import resample_heatmaps
from leanpose.device import device_constant
from leanpose.errors import did_you_mean
from leanpose.losses.auxiliary import LinearHeatmapHead
from leanpose.losses.base import Criterion, Distillation, common_keypoints, sum_of, supervised_loss
from leanpose.losses.crop_alignment import CropAlignment
from leanpose.losses.distilpose import sample_heatmaps, simulate_heatmaps
from leanpose.losses.features import FEATURE_LOSSES, feature_channels, on_one_grid
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


class TeacherTargets(nn.Module):
    """The teacher's predictions as targets of the student.

    Args:
        student, teacher: their codecs.
        alignment: the alignment of their crops.
        common: the keypoints that both predict, in the student's order and in the teacher's.
        keypoints: the number of the student's keypoints.
        min_confidence: minimum confidence of the teacher's keypoints.
    """

    own: Int[Tensor, " C"]
    teachers: Int[Tensor, " C"]

    def __init__(
        self,
        student: Codec[Any, Any],
        teacher: Codec[Any, Any],
        alignment: CropAlignment,
        common: tuple[list[int], list[int]],
        *,
        keypoints: int,
        min_confidence: float,
    ) -> None:
        super().__init__()
        self.student, self.teacher, self.alignment = student, teacher, alignment
        self.keypoints, self.min_confidence = keypoints, min_confidence
        self.register_buffer("own", torch.tensor(common[0]), persistent=False)
        self.register_buffer("teachers", torch.tensor(common[1]), persistent=False)
        size = (max(alignment.student[0] // 4, 2), max(alignment.student[1] // 4, 2))
        self.map_codec = HeatmapCodec.for_crops(alignment.student, size, student.warp)

    def resampled_by(self, codec: Codec[Any, Any]) -> bool:
        """Whether a codec can use the teacher's whole distributions instead of its decoded keypoints."""
        return codec.resamples and type(codec) is type(self.teacher)

    @property
    def how(self) -> str:
        """What the student's loss compares, in words."""
        if self.resampled_by(self.student):
            what = self.student.predicts
            return f"the teacher's {what}, resampled to the student's, since both predict {what}"
        return (
            f"the teacher's keypoints ({self.teacher.name}), encoded as the student predicts them ({self.student.name}) "
            f"and weighted by their confidence, from {self.min_confidence:g} on"
        )

    def placed(self, values: Float[Tensor, "B teachers *sizes"]) -> Float[Tensor, "B K *sizes"]:
        """The teacher's values for each of the student's keypoints; 0 for those that it does not predict."""
        placed = values.new_zeros(len(values), self.keypoints, *values.shape[2:])
        placed[:, self.own] = values[:, self.teachers]
        return placed

    @torch.no_grad()
    def forward(self, prediction: Prediction, codec: Codec[Any, Any] | None = None) -> Any:
        """The teacher's prediction as a target of the student's codec, or of another one for the same crops.

        Keypoints that the teacher does not predict have weight 0.
        """
        codec = codec or self.student
        points, confidence = self.teacher.decode(prediction)
        confidence = confidence.float() * (confidence >= self.min_confidence)
        target = codec.encode(self.placed(self.alignment.student_points(points)), self.placed(confidence))
        if not self.resampled_by(codec):
            return target
        placed = {name: self.placed(value) for name, value in vars(prediction).items() if value is not None}
        resampled = codec.resample(replace(prediction, **placed), self.teacher, self.alignment.placement(points.device))
        known = torch.zeros_like(target.weights).index_fill(1, self.own, 1.0)
        return replace(resampled, weights=known if codec.height_is_confidence else target.weights)

    @torch.no_grad()
    def heatmaps(self, prediction: Prediction) -> Float[Tensor, "B C H W"]:
        """Heatmaps of the common keypoints over the student's crop: the teacher's in its own resolution, or
        Gaussians."""
        if not isinstance(prediction, Heatmaps):
            target = self(prediction, self.map_codec)
            return (target.heatmaps * target.weights[..., None, None])[:, self.own]
        assert isinstance(self.teacher, HeatmapCodec)
        maps = prediction.heatmaps.float()[:, self.teachers]
        size = (maps.shape[2], maps.shape[3])
        (scale, offset), stride = self.alignment.placement(maps.device), self.teacher.stride(maps.device)
        # A position in these maps is a fraction of the student's crop, as in `simulate_heatmaps`.
        less = 1 if self.student.warp == "udp" else 0
        ratios = [(s - less) / m for s, m in zip(self.alignment.student[::-1], size[::-1], strict=True)]
        own_stride = device_constant(ratios, maps.device, maps.dtype)
        return resample_heatmaps(maps, size, own_stride * scale / stride, offset / stride)


@dataclass(frozen=True)
class Term:
    """A term of the loss.

    Attributes:
        weight: its weight.
        why: what it compares and why it is used, for people.
        loss: computes it, without the weight, from the student's and the teacher's output and the target.
    """

    weight: float
    why: str
    loss: Callable[[PoseOutput, PoseOutput, Any], Float[Tensor, ""]]


class AutoLoss(Distillation[AutoSection]):
    """`L = λ_labels L(student, labels) + λ_teacher L(student, teacher) + …`, L being the student's own loss.

    Args:
        criterion: compares the student's prediction with targets.
        section: the settings.
        student, teacher: what they provide decides on the terms.

    Attributes:
        terms: the terms by name.
        feature_head, token_head: predict the teacher's heatmaps from the student's features and from its visual tokens;
            None for what it lacks.
        features: the loss between the features of both.
        tokens: projects the student's keypoint tokens to the teacher's width.

    Raises:
        LeanposeError: they have no keypoint in common, or one has no features and `feature_loss` asks for them.
    """

    section_type = AutoSection

    def __init__(self, criterion: Criterion, section: AutoSection, student: PoseModel, teacher: PoseModel) -> None:
        super().__init__(criterion, section)
        keypoints, warp = len(student.skeleton), student.codec.warp
        self.alignment = CropAlignment(student.input_size, teacher.input_size, warp)
        self.targets = TeacherTargets(
            student.codec,
            teacher.codec,
            self.alignment,
            common_keypoints(student, teacher),
            keypoints=keypoints,
            min_confidence=section.min_confidence,
        )
        self.feature_head = self.token_head = self.features = self.tokens = None
        if section.teacher_auxiliary_weight:
            if "features" in student.provides and not isinstance(student.codec, HeatmapCodec):
                backbone: Any = student.backbone
                unit = math.lcm(backbone.stride, backbone.size_divisor)
                height, width = (math.ceil(side / unit) * unit for side in student.input_size)  # TFPose pads at the end
                grid = (backbone.channels, height // backbone.stride, width // backbone.stride)
                self.feature_head = LinearHeatmapHead(grid, keypoints, (height, width), warp)
            if student.feature_map_shape is not None:
                area = student.feature_map_area
                self.token_head = LinearHeatmapHead(student.feature_map_shape, keypoints, area, warp)
        if section.feature_loss != "none":
            channels = (feature_channels(student), feature_channels(teacher))
            self.features = FEATURE_LOSSES[section.feature_loss](channels)
        if section.token_weight and "tokens" in student.provides & teacher.provides:
            assert student.token_dim is not None
            assert teacher.token_dim is not None
            self.tokens = nn.Linear(student.token_dim, teacher.token_dim)
        self.terms = dict(self._chosen_terms(student))

    @classmethod
    def build(
        cls, section: AutoSection, student: PoseModel, teacher: PoseModel | None, criterion: Criterion
    ) -> AutoLoss:
        assert teacher is not None, "a method with a TeacherSection always gets its teacher"
        return cls(criterion, section, student, teacher)

    def _chosen_terms(self, student: PoseModel) -> Iterator[tuple[str, Term]]:
        """The terms that apply, by name."""
        section, provides, cycles, targets = self.section, student.provides, student.num_cycles, self.targets
        each = f", in each of its {cycles} cycles" if cycles > 1 else ""
        if section.gt_weight:
            yield "pose", Term(section.gt_weight, f"the student's loss against the labels{each}", self._label_loss)
        if section.teacher_weight:
            why = (
                f"the student's loss against {targets.how}; {len(targets.own)} of its {targets.keypoints} keypoints, "
                f"{'where there is no label' if section.only_unlabelled else 'labelled or not'}{each}"
            )
            yield "teacher", Term(section.teacher_weight, why, self._teacher_loss)
        if section.simulated_heatmap_weight and "heatmap_sigma" in provides:
            why = (
                "the Gaussian of the predicted point and sigma against the teacher's heatmap, since the student predicts "
                "such a sigma"
            )
            yield "simulated_heatmaps", Term(section.simulated_heatmap_weight, why, self._simulated_heatmap_loss)
        if section.confidence_weight and "score" in provides:
            why = (
                "the predicted score against the teacher's heatmap at the predicted point, since the student predicts a "
                "score"
            )
            yield "confidence", Term(section.confidence_weight, why, self._confidence_loss)
        heads = {"features": self.feature_head, "visual tokens": self.token_head}
        if places := [name for name, head in heads.items() if head is not None]:
            maps = "heatmaps" if isinstance(targets.teacher, HeatmapCodec) else "keypoints, as heatmaps,"
            why = (
                f"the teacher's {maps} predicted by one linear layer from the student's {' and '.join(places)}, which its "
                "head's loss supervises only indirectly"
            )
            weight = section.teacher_auxiliary_weight * (POOLED_SHARE if student.pools_features else 1)
            yield "teacher_auxiliary", Term(weight, why, self._auxiliary_loss)
        if self.features is not None:
            why = f"{self.features.title}, since feature_loss is {section.feature_loss}"
            yield "features", Term(section.feature_weight, why, self._feature_loss)
        if self.tokens is not None:
            why = "the keypoint tokens against the teacher's, since both have them"
            yield "keypoint_tokens", Term(section.token_weight, why, self._token_loss)
        if cycles > 1 and section.cycle_weight:
            why = f"the tokens of each cycle against those of the next, since the student has {cycles}"
            yield "cycles", Term(section.cycle_weight, why, self._cycle_loss)

    def explain(self) -> list[str]:
        """The terms with their weights, and why each is used: one sentence per term."""
        return [f"{name}: weight {term.weight:g}, {term.why}" for name, term in self.terms.items()]

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        assert teacher is not None
        return {name: term.weight * term.loss(student, teacher, target) for name, term in self.terms.items()}

    def _label_loss(self, student: PoseOutput, teacher: PoseOutput, target: Any) -> Float[Tensor, ""]:
        return sum_of(supervised_loss(self.criterion, cycle, target) for cycle in student.cycles or (student,))

    def _teacher_loss(self, student: PoseOutput, teacher: PoseOutput, target: Any) -> Float[Tensor, ""]:
        wanted = self.targets(teacher.prediction)
        if self.section.only_unlabelled:
            wanted = replace(wanted, weights=wanted.weights * (target.weights == 0))
        return self._label_loss(student, teacher, wanted)

    def _simulated_heatmap_loss(self, student: PoseOutput, teacher: PoseOutput, target: Any) -> Float[Tensor, ""]:
        """DistilPose's eq. 5."""
        pred, own, maps = student.prediction, self.targets.own, self.targets.heatmaps(teacher.prediction)
        assert isinstance(pred, Coordinates)
        assert pred.sigma is not None
        simulated = simulate_heatmaps(pred.xy[:, own], pred.sigma[:, own], (maps.shape[2], maps.shape[3]))
        return (simulated - maps).square().mean()

    def _confidence_loss(self, student: PoseOutput, teacher: PoseOutput, target: Any) -> Float[Tensor, ""]:
        """DistilPose's eq. 7."""
        pred, own, maps = student.prediction, self.targets.own, self.targets.heatmaps(teacher.prediction)
        assert isinstance(pred, Coordinates)
        assert pred.score is not None
        return (pred.score[:, own].float() - sample_heatmaps(maps, pred.xy[:, own])).abs().mean()

    def _feature_loss(self, student: PoseOutput, teacher: PoseOutput, target: Any) -> Float[Tensor, ""]:
        assert self.features is not None
        assert student.features is not None
        assert teacher.features is not None
        return self.features(*on_one_grid(student.features, self.alignment.region(teacher.features)))

    def _token_loss(self, student: PoseOutput, teacher: PoseOutput, target: Any) -> Float[Tensor, ""]:
        assert self.tokens is not None
        assert student.keypoint_tokens is not None
        assert teacher.keypoint_tokens is not None
        own = self.tokens(student.keypoint_tokens[:, self.targets.own])
        return _scaled_distance(own, teacher.keypoint_tokens[:, self.targets.teachers])

    def _cycle_loss(self, student: PoseOutput, teacher: PoseOutput, target: Any) -> Float[Tensor, ""]:
        return sum_of(
            _scaled_distance(one, deeper)
            for a, b in pairwise(student.cycles)
            for one, deeper in ((a.keypoint_tokens, b.keypoint_tokens), (a.visual_tokens, b.visual_tokens))
            if one is not None and deeper is not None and one.shape == deeper.shape  # not where tokens were dropped
        )

    def _auxiliary_loss(self, student: PoseOutput, teacher: PoseOutput, target: Any) -> Float[Tensor, ""]:
        """The loss of the teacher's heatmaps predicted from the student's feature maps, the mean over its layers."""
        terms = []
        for head, maps in (
            (self.feature_head, () if student.features is None else (student.features,)),
            (self.token_head, [layer for cycle in student.cycles or (student,) for layer in cycle.feature_maps]),
        ):
            if head is None:
                continue
            wanted = self.targets(teacher.prediction, head.codec)
            weights = wanted.weights[..., None, None]
            scale = (weights * wanted.heatmaps.square()).mean().clamp(min=1e-8)
            errors = [(weights * (head(each) - wanted.heatmaps).square()).mean() / scale for each in maps]
            terms.append(sum_of(errors) / len(errors))
        return sum_of(terms)


def _scaled_distance(one: Tensor, other: Tensor) -> Float[Tensor, ""]:
    """The mean squared distance of tokens, each normalized to mean 0 and standard deviation 1; `other` gets no
    gradient.

    The published weights of tokens fit the scale of the published networks' tokens, which grow with depth.
    """
    width = (one.shape[-1],)
    return F.mse_loss(F.layer_norm(one.float(), width), F.layer_norm(other.detach().float(), width))
