"""Pseudo-labels: faces, hands and feet of people with labelled bodies, found by small landmark models."""

from leanpose.pseudo_labels.labelling import BodyDataset, LabelledPerson, PseudoLabels, find_parts, label_wholebody
from leanpose.pseudo_labels.landmarks import LandmarkModels, Landmarks, OnnxLandmarkModels
from leanpose.pseudo_labels.parts import AcceptanceThresholds, Part, label_person

__all__ = [
    "AcceptanceThresholds",
    "BodyDataset",
    "LabelledPerson",
    "LandmarkModels",
    "Landmarks",
    "OnnxLandmarkModels",
    "Part",
    "PseudoLabels",
    "find_parts",
    "label_person",
    "label_wholebody",
]
