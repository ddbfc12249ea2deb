"""A convolution with its batch norm and activation, as mmcv's `ConvModule`, whose names the weights have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn


class ConvModule(nn.Sequential):
    """A convolution without bias, `conv`, its batch norm, `bn`, and mostly an activation, `activate`.

    Args:
        activation: makes it; None leaves it out.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: Callable[[], nn.Module] | None = partial(nn.ReLU, inplace=True),
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out)
        if activation is not None:
            self.activate = activation()
