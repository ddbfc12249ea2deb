"""OpenPose's layout of people: their JSON, and the conditioning images of ControlNet's OpenPose models."""

from leanpose.openpose.drawing import conditioning_image, controlnet_size, draw_openpose, paint_openpose
from leanpose.openpose.people import OPENPOSE_18, openpose_json

__all__ = [
    "OPENPOSE_18",
    "conditioning_image",
    "controlnet_size",
    "draw_openpose",
    "openpose_json",
    "paint_openpose",
]
