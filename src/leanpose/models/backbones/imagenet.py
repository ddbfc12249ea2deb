"""What backbones have from ImageNet: how their images are normalised, and published weights for those that are timm's."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from leanpose.errors import LeanposeError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB on a 0..1 scale, as all the papers here have them."""


def load_imagenet(backbone: nn.Module, variant: str) -> None:
    """Take timm's weights of a network wherever name and shape agree, and leave the rest as it is.

    Raises:
        LeanposeError: they cannot be downloaded.
    """
    import timm

    try:
        published = timm.create_model(variant, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise LeanposeError(f"Cannot get the ImageNet weights of {variant}: {error}") from error
    load_matching(backbone, published)


def load_matching(backbone: nn.Module, published: Mapping[str, Tensor]) -> None:
    """Take weights wherever name and shape agree, and leave the rest as it is."""
    own = backbone.state_dict()
    own.update({k: v for k, v in published.items() if k in own and v.shape == own[k].shape})
    backbone.load_state_dict(own)
