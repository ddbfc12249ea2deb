"""Synthetic people: articulated figures rendered with all their labels, deterministic by (seed, index).

`render_scene` draws one scene, `write_synthetic` a data set that the COCO reader reads.
"""

from leanpose.synthetic.keypoints import SYNTHETIC135
from leanpose.synthetic.scene import Scene, render_scene
from leanpose.synthetic.writing import SyntheticFiles, write_synthetic

__all__ = ["SYNTHETIC135", "Scene", "SyntheticFiles", "render_scene", "write_synthetic"]
