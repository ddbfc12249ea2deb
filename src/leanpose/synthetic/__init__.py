"""Synthetic people: articulated figures rendered with all their labels, deterministic by (seed, index).

`render_scene` draws one scene, `write_synthetic` a data set that the COCO reader reads.
"""

from leanpose.synthetic.dataset import SyntheticFiles, write_synthetic
from leanpose.synthetic.people import SYNTHETIC135
from leanpose.synthetic.scene import Scene, render_scene

__all__ = ["SYNTHETIC135", "Scene", "SyntheticFiles", "render_scene", "write_synthetic"]
