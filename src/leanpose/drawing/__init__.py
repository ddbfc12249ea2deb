"""Images of poses: skeleton overlays and contact sheets."""

from __future__ import annotations

from leanpose.drawing.skeleton import contact_sheet, draw_person, draw_poses

__all__ = ["contact_sheet", "draw_person", "draw_poses"]
