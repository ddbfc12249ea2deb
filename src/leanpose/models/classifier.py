"""What every classifier has in common: a network from a picture to one score a class."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from leanpose.models.base import ImageModel


@dataclass(frozen=True)
class ClassOutput:
    """The result of one pass.

    Attributes:
        logits: one number a class, before the softmax.
        class_tokens: after the last layer, before the final norm: what the head reads.
        visual_tokens: of all patches, row by row, likewise.
        cycles: only from `forward_train`: the output of every cycle, the first first; the other fields are then those of
            the first cycle.
    """

    logits: Float[Tensor, "B classes"]
    class_tokens: Float[Tensor, "B 1 D"]
    visual_tokens: Float[Tensor, "B N D"]
    cycles: tuple[ClassOutput, ...] = ()

    # The names by which a distillation of tokens knows them (`leanpose.losses.base.MultiCycleOutput`).
    @property
    def prediction(self) -> Float[Tensor, "B classes"]:
        return self.logits

    @property
    def aux_outputs(self) -> tuple[Tensor, ...]:
        return ()

    @property
    def keypoint_tokens(self) -> Float[Tensor, "B 1 D"]:
        return self.class_tokens

    @property
    def keep_indices(self) -> None:
        return None


class Classifier(ImageModel):
    """A network from a batch of pictures to a `ClassOutput`.

    Attributes:
        class_names: of the classes, in the order of the logits; their numbers where nobody has named them.
    """

    task = "classification"

    def __init__(self, name: str, config: Any) -> None:
        super().__init__(name, config)
        self.class_names: tuple[str, ...] = tuple(str(i) for i in range(config.classes))

    @abstractmethod
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> ClassOutput:
        """The logits of normalised RGB pictures, by the cheapest way that the paper allows at inference."""

    @abstractmethod
    def forward_train(self, images: Float[Tensor, "B 3 H W"]) -> ClassOutput:
        """Like `forward`, with every cycle."""
