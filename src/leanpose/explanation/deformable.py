"""What a decoder of deformable attention looks at, layer by layer (pictured in TFPose, 2021, Fig. 6 to 12)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from leanpose.codecs.base import Coordinates
from leanpose.models.output import PoseOutput
from leanpose.models.tfpose import TFPose


@dataclass(frozen=True)
class DecoderRecording:
    """One pass of one person's crop through D decoder layers; places are (x, y) in pixels of the crop.

    Attributes:
        output: what `forward_train` returned.
        points: the K keypoints before the first layer, and after each.
        references: what each layer reads the features around.
        samples: where each query reads them, on each level (fine to coarse); may lie outside of the crop.
        weights: of these; of one query and head they sum to 1 over levels and points.
        query_attention: how much each query (row) attends to each (column); None where queries do not.
    """

    output: PoseOutput
    points: Float[np.ndarray, "D+1 K 2"]
    references: Float[np.ndarray, "D K 2"]
    samples: Float[np.ndarray, "D K heads levels P 2"]
    weights: Float[np.ndarray, "D K heads levels P"]
    query_attention: Float[np.ndarray, "D heads K K"] | None

    @property
    def among_queries(self) -> Float[np.ndarray, "D K K"] | None:
        """The mean of the heads of `query_attention`."""
        return None if self.query_attention is None else self.query_attention.mean(axis=1)


def record_decoder(model: TFPose, images: Float[Tensor, "1 3 H W"]) -> DecoderRecording:
    """Run in eval mode and note what each layer of the decoder looks at.

    Args:
        model: is left in the mode in which it was.
        images: one normalised crop.
    """
    training = model.training
    try:
        with torch.inference_mode():
            output, looks = model.eval().forward_recorded(images)
            around = torch.cat([model.on_padded(look.reference) for look in looks])
    finally:
        model.train(training)

    def pixels(fractions: Tensor) -> np.ndarray:
        """Fractions of the padded crop's sides, from edge to edge; pixel centres are at whole numbers."""
        return fractions.double().cpu().numpy() * model.config.padded_size[::-1] - 0.5

    stages = [Coordinates(looks[0].reference), *output.aux_outputs]
    attention = [look.query_attention for look in looks if look.query_attention is not None]
    return DecoderRecording(
        output,
        points=np.stack([model.codec.decode(stage)[0][0].cpu().numpy() for stage in stages]),
        references=pixels(around),
        samples=pixels(torch.cat([look.samples.locations for look in looks])),
        weights=torch.cat([look.samples.weights for look in looks]).float().cpu().numpy(),
        query_attention=torch.cat(attention).float().cpu().numpy() if attention else None,
    )
