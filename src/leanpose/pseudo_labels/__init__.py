"""Pseudo-labels: faces, hands and feet of people with labelled bodies, found by small landmark models."""

from leanpose.pseudo_labels.label import BodySet, Labels, Person, find_parts, label_wholebody
from leanpose.pseudo_labels.models import LandmarkModels, Landmarks, OnnxLandmarkModels
from leanpose.pseudo_labels.people import Gates, Part, label_person

__all__ = [
    "BodySet",
    "Gates",
    "Labels",
    "LandmarkModels",
    "Landmarks",
    "OnnxLandmarkModels",
    "Part",
    "Person",
    "find_parts",
    "label_person",
    "label_wholebody",
]
