"""Skeletons: which keypoints there are, how they mirror, which limbs join them, how exactly they can be labelled.

The keypoint names are the joint between data sets: a reader of one skeleton feeds a model of another by name
(`Skeleton.indices_in`), and what a data set does not label stays unlabelled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

from leanpose import wholebody
from leanpose.errors import LeanposeError, did_you_mean

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
            raise LeanposeError(
                f"Skeleton '{self.name}' has {len(self.keypoints)} keypoints but {len(self.sigmas)} sigmas."
            )
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
    def from_dict(cls, values: dict) -> Skeleton:
        """Build from `to_dict`'s form. Limbs may be given by keypoint name; sigmas may be left out (0.05 each).

        Raises:
            LeanposeError: a field is missing or does not fit.
        """
        unknown = set(values) - {"name", "keypoints", "limbs", "sigmas", "parts"}
        if unknown:
            name = sorted(unknown)[0]
            raise LeanposeError(
                f"A skeleton has no field '{name}'; {did_you_mean(name, ['name', 'keypoints', 'limbs', 'sigmas', 'parts'])}"
            )
        try:
            if not isinstance(values["keypoints"], list | tuple) or not values["keypoints"]:
                raise ValueError("`keypoints` must be a list of names")
            keypoints = tuple(str(name) for name in values["keypoints"])
            index = {name: i for i, name in enumerate(keypoints)}

            def resolve(point: str | int) -> int:
                if isinstance(point, str):
                    if point not in index:
                        raise LeanposeError(
                            f"Skeleton limb names the unknown keypoint '{point}'; {did_you_mean(point, index)}"
                        )
                    return index[point]
                if not 0 <= int(point) < len(keypoints):
                    raise LeanposeError(f"Skeleton limb names keypoint {point}, but there are {len(keypoints)}.")
                return int(point)

            return cls(
                name=str(values["name"]),
                keypoints=keypoints,
                limbs=tuple((resolve(a), resolve(b)) for a, b in values.get("limbs") or ()),
                sigmas=tuple(float(s) for s in values.get("sigmas") or [0.05] * len(keypoints)),
                parts={k: tuple(resolve(p) for p in v) for k, v in (values.get("parts") or {}).items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LeanposeError(
                f"Not a skeleton: {type(error).__name__} {error}; it needs `name` and `keypoints`."
            ) from error


_COCO = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
_COCO_LIMBS = (
    (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12),
    (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip
_COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
    0.089, 0.089,
)  # fmt: skip

COCO17 = Skeleton("coco17", _COCO, _COCO_LIMBS, _COCO_SIGMAS, {"body": tuple(range(17))})

BODY19 = Skeleton(
    "body19",
    (*_COCO, "neck", "head_top"),
    (*_COCO_LIMBS, (17, 18)),
    (*_COCO_SIGMAS, 0.079, 0.079),  # CrowdPose's constants for its neck and top of head
    {"body": tuple(range(19))},
)

CROWDPOSE14 = Skeleton(
    "crowdpose14",
    (
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head_top", "neck",
    ),
    ((13, 12), (13, 0), (13, 1), (0, 2), (2, 4), (1, 3), (3, 5), (0, 6), (1, 7), (6, 7), (6, 8), (8, 10), (7, 9), (9, 11)),
    (0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
    {"body": tuple(range(14))},
)  # fmt: skip

LSP14 = Skeleton(
    "lsp14",
    (
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
        "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
    ),
    ((12, 13), (12, 8), (12, 9), (8, 7), (7, 6), (9, 10), (10, 11), (8, 2), (9, 3), (2, 3), (2, 1), (1, 0), (3, 4), (4, 5)),
    (0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.062, 0.072, 0.079, 0.079, 0.072, 0.062, 0.079, 0.079),
    {"body": tuple(range(14))},
)  # fmt: skip

WHOLEBODY133 = Skeleton(
    "coco_wholebody133",
    (*_COCO, *wholebody.KEYPOINTS),
    (*_COCO_LIMBS, *wholebody.LIMBS),
    (*_COCO_SIGMAS, *wholebody.SIGMAS),
    wholebody.PARTS,
)

# The order, names, limbs and constants of MPII (Andriluka et al., CVPR 2014) as mmpose has them.
MPII16 = Skeleton(
    "mpii16",
    (
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax", "upper_neck",
        "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
    ),
    ((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (8, 12), (12, 11), (11, 10), (8, 13), (13, 14),
     (14, 15)),
    (0.089, 0.083, 0.107, 0.107, 0.083, 0.089, 0.026, 0.026, 0.026, 0.026, 0.062, 0.072, 0.179, 0.179, 0.072, 0.062),
    {"body": tuple(range(16))},
)  # fmt: skip


SKELETONS: dict[str, Skeleton] = {s.name: s for s in (COCO17, BODY19, CROWDPOSE14, LSP14, MPII16, WHOLEBODY133)}


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
    if path.suffix in (".yaml", ".yml"):
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise LeanposeError(f"Cannot read the skeleton file {path}: {' '.join(str(error).split())}.") from error
        if not isinstance(values, dict):
            raise LeanposeError(f"The skeleton file {path} holds no mapping with `name` and `keypoints`.")
        return Skeleton.from_dict(values)
    raise LeanposeError(f"Unknown skeleton '{skeleton}'; {did_you_mean(str(skeleton), SKELETONS)}")
