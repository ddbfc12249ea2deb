"""What all backbones have in common, and files of a backbone alone: safetensors by timm's names, with a small card."""

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
"""Of ImageNet's images: RGB on a 0..1 scale, as all the papers here have them."""

STD = (0.229, 0.224, 0.225)
"""The standard deviation, on the same scale."""


class Backbone(nn.Module, ABC):
    """A feature extractor: images to one map of features.

    Attributes:
        variant: its name in `leanpose.models.backbones.BACKBONES`.
        stride: image pixels per feature.
        size_divisor: height and width of the image must be multiples of it; 1 where any size will do.
        channels: how many the features have.
        in_timm: whether timm publishes ImageNet weights under the variant's name.
        start_instead: what to do where it does not.
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
        """Take timm's ImageNet weights wherever name and shape agree; the rest stays as it is.

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
        """Take weights wherever name and shape agree, and leave the rest as it is."""
        own = self.state_dict()
        own.update({k: v for k, v in published.items() if k in own and v.shape == own[k].shape})
        self.load_state_dict(own)

    @abstractmethod
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C Hf Wf"]:
        """The features of normalized images."""


def init_convolutions(network: nn.Module, std: float | None = None) -> None:
    """Draw fresh convolutions: weights normal with this sigma, or He-normal where it is None; biases 0."""
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
    """A backbone that has features at strides 4, 8, 16 and 32; on its own it gives those at its `stride`.

    Attributes:
        pyramid_channels: how many channels each of the four levels has.
    """

    pyramid_channels: tuple[int, int, int, int]

    @abstractmethod
    def pyramid(self, images: Float[Tensor, "B 3 H W"]) -> PyramidFeatures:
        """The four levels, finest first."""

    def set_output_stride(self, stride: Literal[4, 8, 16, 32]) -> Self:
        """Give the features at another stride from now on."""
        self.stride = stride
        self.channels = self.pyramid_channels[PYRAMID_STRIDES.index(stride)]
        return self

    def own_level(self, levels: tuple[Float[Tensor, "B _ _ _"], ...]) -> Float[Tensor, "B C Hf Wf"]:
        """The one of `pyramid`'s levels that the backbone gives on its own, of `channels` at `stride`."""
        return levels[PYRAMID_STRIDES.index(self.stride)]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C Hf Wf"]:
        return self.own_level(self.pyramid(images))


BACKBONE_KEY = "leanpose_backbone"
"""Of the metadata, under which the card lies."""


class _BackboneCard(BaseModel):
    """What is relied on in a backbone's card."""

    backbone: str
    sha256: str | None = None
    training_data: list[str] = Field(default_factory=list)
    licence: str = ""


def save_backbone(
    tensors: dict[str, Tensor], path: Path, *, variant: str, training_data: list[str], licence: str, notes: str = ""
) -> None:
    """Write a backbone's weights and where they come from.

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
        variant: timm's name for the network that is wanted.

    Raises:
        LeanposeError: there is no such file, it is damaged, or it is no backbone's or another one's.
    """
    with open_safetensors(path) as file:
        held = _backbone_card(file, path)
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
    if "sha256" in held and digest(tensors) != held["sha256"]:
        raise LeanposeError(f"{path} is damaged: its weights are not those that were saved (SHA-256 differs).")
    if held.get("backbone") != variant:
        raise LeanposeError(f"{path} holds a {held.get('backbone')}, not the {variant} that the model has.")
    return tensors


def describe_backbone(path: Path) -> dict[str, Any]:
    """The card of a backbone's file: whose weights they are, on what data they were trained, under what terms.

    Raises:
        LeanposeError: there is no such file, it is damaged, or it is no backbone's.
    """
    with open_safetensors(path) as file:
        return _backbone_card(file, path)


def _backbone_card(file: Any, path: Path) -> dict[str, Any]:
    metadata = file.metadata() or {}
    if BACKBONE_KEY not in metadata:
        raise LeanposeError(f"{path} is no file of a backbone; `leanpose convert --backbone` makes one.")
    return parse_card(_BackboneCard, checked_card(metadata, BACKBONE_KEY, path), path)
