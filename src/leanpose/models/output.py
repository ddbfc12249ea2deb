"""What every pose model returns, and what losses can find in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from leanpose.codecs.base import Prediction

Provision = Literal["tokens", "cycles", "features", "layers", "heatmap_sigma", "rle_sigma", "score"]
"""What a model's `forward_train` offers to losses, beside the prediction:

* `tokens`: keypoint tokens and visual tokens.
* `cycles`: the output of every pass through the same layers (SDPose).
* `features`: the backbone's.
* `layers`: the prediction of every layer, in `aux_outputs`.
* `heatmap_sigma`, `rle_sigma`: a deviation beside the coordinates, of the simulated heatmap in pixels of the teacher's
  heatmap (DistilPose), or of RLE's distribution as a fraction of the crop.
* `score`: a learnt confidence beside the coordinates.
"""


@dataclass(frozen=True)
class PoseOutput:
    """The result of one pass.

    Attributes:
        prediction: the keypoints, to be decoded by the model's codec.
        keypoint_tokens: (B, K, D) after the last layer; None where the model has no tokens.
        visual_tokens: (B, N, D) after the last layer, of all patches row by row, or of those in `keep_indices` alone; None where the
            model has no tokens.
        features: (B, C, H, W) of the backbone, where a method compares them.
        keep_indices: (B, M) the patches that `visual_tokens` stand for, ascending, where the model has dropped the others (PPT);
            None where it has all.
        feature_maps: only from `forward_train`: what each layer knows of each place, as (B, D, rows, columns) maps in the layers'
            order, for auxiliary heatmaps; empty where the model has no such layers.
        cycles: only from `forward_train`: the output of every cycle, the first first; `prediction` and the tokens
            of this object are then those of the first cycle.
        aux_outputs: only from `forward_train`, of models that write keypoints down again and again (TFPose): the prediction of
            every layer, the last one last; empty for the others.
    """

    prediction: Prediction
    keypoint_tokens: Float[Tensor, "B K D"] | None = None
    visual_tokens: Float[Tensor, "B N D"] | None = None
    features: Float[Tensor, "B C Hf Wf"] | None = None
    keep_indices: Int[Tensor, "B M"] | None = None
    feature_maps: tuple[Float[Tensor, "B D rows columns"], ...] = ()
    cycles: tuple[PoseOutput, ...] = ()
    aux_outputs: tuple[Prediction, ...] = ()
