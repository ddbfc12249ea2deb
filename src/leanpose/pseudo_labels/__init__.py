"""Pseudo-labels: faces, hands and feet of people with labelled bodies, found by small landmark models."""

from leanpose.pseudo_labels.labelling import BodyDataset, PseudoLabels, find_parts, label_wholebody
from leanpose.pseudo_labels.landmarks import OnnxLandmarkModels
from leanpose.pseudo_labels.parts import AcceptanceThresholds

__all__ = [
    "AcceptanceThresholds", "BodyDataset", "OnnxLandmarkModels", "PseudoLabels", "find_parts", "label_wholebody",
]  # fmt: skip
