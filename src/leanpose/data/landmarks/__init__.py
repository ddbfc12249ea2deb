"""Pseudo-labels: faces, hands and feet of people with labelled bodies, found by small landmark models."""

from leanpose.data.landmarks.label import BodySet, Labels, Person, find_parts, label_wholebody
from leanpose.data.landmarks.models import LandmarkModels, Landmarks, OnnxLandmarkModels
from leanpose.data.landmarks.people import Gates, Part, label_person

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
