"""Images of poses: skeleton overlays, ControlNet's OpenPose images and contact sheets."""

from __future__ import annotations

from leanpose.drawing.openpose import controlnet_size, draw_openpose
from leanpose.drawing.skeleton import contact_sheet, draw_poses

__all__ = ["contact_sheet", "controlnet_size", "draw_openpose", "draw_poses"]
