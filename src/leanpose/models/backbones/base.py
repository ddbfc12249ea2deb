"""The interface of all backbones, and backbone-only files: safetensors with timm's parameter names and a small card."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor, nn
from typing_extensions import Self

from leanpose.checksums import CHECKSUM_KEY, checked_card, checksum, digest
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, open_safetensors, safetensors_bytes
from leanpose.schema import parse_card
from leanpose.version import __version__

MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's images: RGB on a 0..1 scale, as in all the papers here."""

STD = (0.229, 0.224, 0.225)
"""The standard deviation, on the same scale."""


class Backbone(nn.Module, ABC):
    """A feature extractor: images to one feature map.

    Attributes:
        variant: its name in `leanpose.models.backbones.BACKBONES`.
        stride: image pixels per feature.
        size_divisor: height and width of the image must be multiples of it; 1 if any size is allowed.
        channels: number of feature channels.
        in_timm: whether timm publishes ImageNet weights under the variant's name.
        start_instead: what to do if it does not.
    """

    stride: int
    size_divisor: int = 1
    channels: int
    in_timm: ClassVar[bool] = False
    start_instead: ClassVar[str] = "train it from scratch"

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.variant = variant

    def load_imagenet(self) -> None:
        """Load timm's ImageNet weights wherever name and shape match; the rest stays unchanged.

        Raises:
            LeanposeError: there are none, or they cannot be downloaded.
        """
        if not self.in_timm:
            raise LeanposeError(f"The backbone '{self.variant}' has no ImageNet weights; {self.start_instead}.")
        import timm  # takes seconds

        try:
            published = timm.create_model(self.variant, pretrained=True).state_dict()
        except (OSError, RuntimeError) as error:
            raise LeanposeError(f"Cannot get the ImageNet weights of {self.variant}: {error}") from error
        self.load_matching(published)

    def load_matching(self, published: Mapping[str, Tensor]) -> None:
        """Load weights wherever name and shape match, and leave the rest unchanged."""
        own = self.state_dict()
        own.update({k: v for k, v in published.items() if k in own and v.shape == own[k].shape})
        self.load_state_dict(own)

    @abstractmethod
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C Hf Wf"]:
        """The features of normalized images."""


def init_convolutions(network: nn.Module, std: float | None = None) -> None:
    """Initialise convolutions: weights normal with this sigma, or He-normal if None; biases 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            if std is None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


PyramidFeatures: TypeAlias = tuple[
    Float[Tensor, "B C1 H/4 W/4"],
    Float[Tensor, "B C2 H/8 W/8"],
    Float[Tensor, "B C3 H/16 W/16"],
    Float[Tensor, "B C4 H/32 W/32"],
]
"""Features at strides 4, 8, 16 and 32."""
PYRAMID_STRIDES = (4, 8, 16, 32)


class PyramidBackbone(Backbone):
    """A backbone with features at strides 4, 8, 16 and 32; `forward` returns those at its `stride`.

    Attributes:
        pyramid_channels: number of channels of each of the four levels.
    """

    pyramid_channels: tuple[int, int, int, int]

    @abstractmethod
    def pyramid(self, images: Float[Tensor, "B 3 H W"]) -> PyramidFeatures:
        """The four levels, finest first."""

    def set_output_stride(self, stride: Literal[4, 8, 16, 32]) -> Self:
        """Return the features at another stride from now on."""
        self.stride = stride
        self.channels = self.pyramid_channels[PYRAMID_STRIDES.index(stride)]
        return self

    def own_level(self, levels: tuple[Float[Tensor, "B _ _ _"], ...]) -> Float[Tensor, "B C Hf Wf"]:
        """The level of `pyramid` that `forward` returns, with `channels` at `stride`."""
        return levels[PYRAMID_STRIDES.index(self.stride)]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C Hf Wf"]:
        return self.own_level(self.pyramid(images))


BACKBONE_KEY = "leanpose_backbone"
"""Metadata key of the card."""


class _BackboneCard(BaseModel):
    """Required fields of a backbone's card."""

    backbone: str
    sha256: str | None = None
    training_data: list[str] = Field(default_factory=list)
    licence: str = ""


def save_backbone(
    tensors: dict[str, Tensor], path: Path, *, variant: str, training_data: list[str], licence: str, notes: str = ""
) -> None:
    """Write a backbone's weights and their origin.

    Raises:
        LeanposeError: the path has another ending or cannot be written.
    """
    if path.suffix != ".safetensors":
        raise LeanposeError(f"Cannot save a backbone as {path}: the name must end in .safetensors.")
    card = {
        "version": __version__,
        "backbone": variant,
        "training_data": training_data,
        "licence": licence,
        "notes": notes,
    }
    stored = {name: value.contiguous() for name, value in tensors.items()}
    text = json.dumps({**card, "sha256": digest(stored)}, ensure_ascii=False)
    with atomic_write(path) as temporary:
        temporary.write_bytes(safetensors_bytes(stored, {BACKBONE_KEY: text, CHECKSUM_KEY: checksum(text.encode())}))


def read_backbone(path: Path, variant: str) -> dict[str, Tensor]:
    """The weights of a backbone's file.

    Args:
        variant: timm's name of the requested network.

    Raises:
        LeanposeError: there is no such file, it is corrupt, or it is not of this backbone.
    """
    with open_safetensors(path) as file:
        held = _backbone_card(file, path)
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
    if "sha256" in held and digest(tensors) != held["sha256"]:
        raise LeanposeError(f"{path} is corrupt: its weights do not match their checksum (SHA-256).")
    if held.get("backbone") != variant:
        raise LeanposeError(f"{path} contains a {held.get('backbone')}, not the model's {variant}.")
    return tensors


def describe_backbone(path: Path) -> dict[str, Any]:
    """The card of a backbone file: network, training data and licence of the weights.

    Raises:
        LeanposeError: there is no such file, it is corrupt, or it is not a backbone file.
    """
    with open_safetensors(path) as file:
        return _backbone_card(file, path)


def _backbone_card(file: Any, path: Path) -> dict[str, Any]:
    metadata = file.metadata() or {}
    if BACKBONE_KEY not in metadata:
        raise LeanposeError(f"{path} is not a backbone file; `leanpose convert --backbone` writes one.")
    return parse_card(_BackboneCard, checked_card(metadata, BACKBONE_KEY, path), path)
