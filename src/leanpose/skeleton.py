"""Skeletons: which keypoints there are, how they mirror, which limbs join them, how exactly they can be labelled.

The keypoint names are the joint between data sets: a reader of one skeleton feeds a model of another by name
(`Skeleton.indices_in`), and what a data set does not label stays unlabelled.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

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

# COCO-WholeBody (Jin et al., "Whole-Body Human Pose Estimation in the Wild", ECCV 2020), in the order of the data set, with the
# constants of its evaluation. It numbers the face's points only; here each names its side, for `Skeleton.pairs`.
_FEET = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")


def _face_names() -> tuple[str, ...]:
    """In iBUG's order, which starts at the person's right."""
    jaw = [f"right_jaw_{i}" for i in range(1, 9)] + ["chin"] + [f"left_jaw_{i}" for i in range(8, 0, -1)]
    brows = [f"right_brow_{i}" for i in range(1, 6)] + [f"left_brow_{i}" for i in range(5, 0, -1)]
    bridge = [f"nose_bridge_{i}" for i in range(1, 5)]
    nostrils = ["right_nostril_1", "right_nostril_2", "nose_base", "left_nostril_2", "left_nostril_1"]
    # Counted from the outer corner over the upper lid; the data set counts the left eye from its inner corner.
    eyes = [f"right_eyelid_{i}" for i in range(1, 7)] + [f"left_eyelid_{i}" for i in (4, 3, 2, 1, 6, 5)]
    outer = ["right_lip_1", "right_lip_2", "right_lip_3", "upper_lip", "left_lip_3", "left_lip_2", "left_lip_1"]
    outer += ["left_lip_5", "left_lip_4", "lower_lip", "right_lip_4", "right_lip_5"]
    inner = ["right_mouth_1", "right_mouth_2", "upper_mouth", "left_mouth_2", "left_mouth_1"]
    inner += ["left_mouth_3", "lower_mouth", "right_mouth_3"]
    return (*jaw, *brows, *bridge, *nostrils, *eyes, *outer, *inner)


_FEET_SIGMAS = (0.068, 0.066, 0.066, 0.092, 0.094, 0.094)
_FACE_SIGMAS = (
    0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037, 0.038, 0.043, 0.041, 0.045,
    0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015, 0.009, 0.007, 0.007, 0.007, 0.012, 0.009, 0.008,
    0.016, 0.010, 0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034, 0.008, 0.008, 0.009,
    0.008, 0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008, 0.008, 0.008, 0.010, 0.008,
)  # fmt: skip
_HAND_SIGMAS = (
    0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026, 0.017, 0.021, 0.021, 0.032,
    0.020, 0.019, 0.022, 0.031,
)  # fmt: skip


def _wholebody_limbs() -> tuple[tuple[int, int], ...]:
    """Of feet, face and hands, as indices of the 133 points."""
    limbs = [(15, 17), (15, 18), (15, 19), (16, 20), (16, 21), (16, 22)]
    for start, count, closed in ((0, 17, False), (17, 5, False), (22, 5, False), (27, 4, False), (31, 5, False),
                                 (36, 6, True), (42, 6, True), (48, 12, True), (60, 8, True)):  # fmt: skip
        points = [23 + start + i for i in range(count)]
        limbs += list(itertools.pairwise(points)) + ([(points[-1], points[0])] if closed else [])
    for wrist, body_wrist in ((91, 9), (112, 10)):
        limbs.append((body_wrist, wrist))
        for finger in range(5):
            first = wrist + 1 + 4 * finger
            limbs += [(wrist, first), (first, first + 1), (first + 1, first + 2), (first + 2, first + 3)]
    return tuple(limbs)


WHOLEBODY133 = Skeleton(
    "coco_wholebody133",
    # Of a hand: wrist, then thumb, index, middle, ring and little finger, four points each from the palm outwards.
    (*_COCO, *_FEET, *_face_names(), *(f"{side}_hand_{i}" for side in ("left", "right") for i in range(21))),
    (*_COCO_LIMBS, *_wholebody_limbs()),
    (*_COCO_SIGMAS, *_FEET_SIGMAS, *_FACE_SIGMAS, *_HAND_SIGMAS, *_HAND_SIGMAS),
    {
        "body": tuple(range(17)),
        "feet": tuple(range(17, 23)),
        "face": tuple(range(23, 91)),
        "left_hand": tuple(range(91, 112)),
        "right_hand": tuple(range(112, 133)),
    },
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
