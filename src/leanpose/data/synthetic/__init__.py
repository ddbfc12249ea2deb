"""Synthetic people: articulated figures rendered with all their labels, deterministic by (seed, index).

`render_scene` draws one scene, `write_synthetic` a data set that the COCO reader reads.
"""

from leanpose.data.synthetic.keypoints import SYNTHETIC135
from leanpose.data.synthetic.scene import Scene, render_scene
from leanpose.data.synthetic.writing import SyntheticFiles, write_synthetic

__all__ = ["SYNTHETIC135", "Scene", "SyntheticFiles", "render_scene", "write_synthetic"]
