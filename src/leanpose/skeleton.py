"""Skeletons: which keypoints there are, how they mirror, which limbs join them, how exactly they can be labelled.

The keypoint names are the joint between data sets: a reader of one skeleton feeds a model of another by name
(`Skeleton.indices_in`), and what a data set does not label stays unlabelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import load_yaml

SAME_POINT = {"neck": "upper_neck", "upper_neck": "neck"}
"""What MPII calls the upper neck is the neck of LSP and CrowdPose; its thorax, between the shoulders, they do not have."""


@dataclass(frozen=True)
class Skeleton:
    """A named set of K keypoints.

    Attributes:
        name: what `get_skeleton` and checkpoints call it.
        keypoints: K names; `left_` and `right_` name the two sides of the person, not of the picture.
        limbs: pairs of keypoint indices that are joined by a line in pictures.
        sigmas: K per-keypoint standard deviations of the labels, as a fraction of the square root of the person's
            area (COCO's OKS constants; 0.05 where nobody has measured them).
        parts: named groups of keypoint indices, such as `body` or `left_hand`.
    """

    name: str
    keypoints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    parts: dict[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if len(self.sigmas) != len(self.keypoints):
            raise LeanposeError(f"Skeleton '{self.name}' has {len(self)} keypoints but {len(self.sigmas)} sigmas.")
        if len(set(self.keypoints)) != len(self.keypoints):
            raise LeanposeError(f"Skeleton '{self.name}' names a keypoint twice.")

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """The K names, as results are read: `poses.skeleton.keypoint_names`."""
        return self.keypoints

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(left, right) index pairs, found by name: `left_x` mirrors `right_x`."""
        index = {name: i for i, name in enumerate(self.keypoints)}
        return tuple(
            (i, index["right_" + name[5:]])
            for name, i in index.items()
            if name.startswith("left_") and "right_" + name[5:] in index
        )

    @cached_property
    def flip_indices(self) -> tuple[int, ...]:
        """`flipped[k] = original[flip_indices[k]]`: the order of the keypoints after mirroring the image."""
        order = list(range(len(self)))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return tuple(order)

    @cached_property
    def upper_body(self) -> tuple[int, ...]:
        """Keypoints above the waist: the half that the half-body augmentation may keep (hips and below are the other)."""
        lower = ("hip", "knee", "ankle", "toe", "heel", "foot", "pelvis")
        return tuple(i for i, name in enumerate(self.keypoints) if not any(word in name for word in lower))

    def indices_in(self, other: Skeleton) -> tuple[int, ...]:
        """For each of this skeleton's keypoints its index in `other`, or -1 where `other` has no such point.

        Names decide; `SAME_POINT` says which two names mean one point.
        """
        index = {name: i for i, name in enumerate(other.keypoints)}
        for name, another in SAME_POINT.items():
            if name not in index and another in index and another not in self.keypoints:
                index[name] = index[another]
        return tuple(index.get(name, -1) for name in self.keypoints)

    def to_dict(self) -> dict:
        """A plain dictionary for checkpoints and YAML; `Skeleton.from_dict` reads it back."""
        return {
            "name": self.name,
            "keypoints": list(self.keypoints),
            "limbs": [list(limb) for limb in self.limbs],
            "sigmas": list(self.sigmas),
            "parts": {name: list(indices) for name, indices in self.parts.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Skeleton:
        """Build from `to_dict`'s form. Limbs may be given by keypoint name; sigmas may be left out (0.05 each).

        Raises:
            LeanposeError: a field is missing or does not fit.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise LeanposeError(f"A skeleton has no field '{unknown[0]}'; {did_you_mean(unknown[0], known)}")
        try:
            if not isinstance(values["keypoints"], list | tuple) or not values["keypoints"]:
                raise ValueError("`keypoints` must be a list of names")
            keypoints = tuple(str(name) for name in values["keypoints"])
            places = {point: i for i, name in enumerate(keypoints) for point in (name, i)}

            def resolve(point: str | int) -> int:
                if point not in places:
                    near = did_you_mean(str(point), keypoints)
                    raise LeanposeError(f"The skeleton '{values['name']}' has no keypoint '{point}'; {near}")
                return places[point]

            return cls(
                name=str(values["name"]),
                keypoints=keypoints,
                limbs=tuple((resolve(a), resolve(b)) for a, b in values.get("limbs") or ()),
                sigmas=tuple(float(s) for s in values.get("sigmas") or [0.05] * len(keypoints)),
                parts={part: tuple(map(resolve, points)) for part, points in (values.get("parts") or {}).items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LeanposeError(f"Not a skeleton (`name`, `keypoints`): {type(error).__name__} {error}.") from error


def _read_skeletons() -> dict[str, Skeleton]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, and nearly everywhere there
    content = yaml.load(Path(__file__).with_name("skeletons.yaml").read_text(encoding="utf-8"), loader)
    return {name: Skeleton.from_dict({"name": name, **values}) for name, values in content.items()}


SKELETONS = _read_skeletons()
COCO17, BODY19, CROWDPOSE14, LSP14, MPII16, WHOLEBODY133 = SKELETONS.values()


def get_skeleton(skeleton: str | Path | Skeleton) -> Skeleton:
    """A known skeleton by name, one of your own from a YAML file, or the skeleton itself.

    Raises:
        LeanposeError: the name is unknown, or the file is missing or is no skeleton.
    """
    if isinstance(skeleton, Skeleton):
        return skeleton
    if str(skeleton) in SKELETONS:
        return SKELETONS[str(skeleton)]
    path = Path(skeleton)
    if path.suffix not in (".yaml", ".yml"):
        raise LeanposeError(f"Unknown skeleton '{skeleton}'; {did_you_mean(str(skeleton), SKELETONS)}")
    return Skeleton.from_dict(load_yaml(path, "skeleton file"))
