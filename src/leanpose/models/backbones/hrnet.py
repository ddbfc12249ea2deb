"""HRNet up to its third stage: timm's network, cut where TokenPose-B and -L cut it."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn


class HRNetStage3(nn.Module):
    """The first three stages of HRNet, of which the finest branch's features are read, at stride 4.

    Args:
        variant: timm's name, such as `hrnet_w32`.
        stage1_width: inner channels of the four bottlenecks of stage 1 (64 in HRNet's paper).
    """

    stride = 4

    def __init__(self, variant: str = "hrnet_w32", stage1_width: int = 64) -> None:
        super().__init__()
        from timm.models.hrnet import HighResolutionNet, cfg_cls

        settings = copy.deepcopy(cfg_cls[variant])
        settings["stage1"]["num_channels"] = (stage1_width,)
        # Four fifths of HRNet's weights lie behind the cut: they are described only, never filled.
        device = torch.get_default_device()
        with torch.device("meta"):
            net = HighResolutionNet(settings, head="")
        self.channels: int = settings["stage3"]["num_channels"][0]
        self.conv1, self.bn1, self.conv2, self.bn2 = net.conv1, net.bn1, net.conv2, net.bn2
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = net.layer1
        self.transition1, self.stage2 = net.transition1, net.stage2
        self.transition2, self.stage3 = net.transition2, net.stage3
        last = self.stage3[-1]
        last.fuse_layers = last.fuse_layers[:1]  # nothing reads the coarser outputs
        self.to_empty(device=device)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.reset_parameters()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/4 W/4"]:
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        branches = self.stage2([transition(x) for transition in self.transition1])
        # A new coarsest branch grows out of the coarsest one there is; the others go on as they are.
        branches = [*branches, branches[-1]]
        branches = self.stage3([transition(b) for transition, b in zip(self.transition2, branches, strict=True)])
        return branches[0]
