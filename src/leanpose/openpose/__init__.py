"""The conditioning images of ControlNet's OpenPose models; `PoseResult.to_openpose` gives the JSON next to them."""

from leanpose.inference.openpose_layout import OPENPOSE_18
from leanpose.openpose.drawing import conditioning_image, controlnet_size, draw_openpose, paint_openpose

__all__ = ["OPENPOSE_18", "conditioning_image", "controlnet_size", "draw_openpose", "paint_openpose"]
