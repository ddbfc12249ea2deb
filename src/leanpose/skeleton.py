"""Skeletons: keypoints, their left/right pairs, limbs, and OKS sigmas.

Keypoint names link data sets and models: data of one skeleton are used for a model of another by name
(`Skeleton.indices_in`), and what a data set does not label stays unlabelled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import any_damage, dump_yaml, load_yaml

SAME_POINT = {"neck": "upper_neck", "upper_neck": "neck"}
"""What MPII calls the upper neck is the neck of LSP and CrowdPose; its thorax, between the shoulders, they do not
have."""

FLIP_TEST = "The flip test mirrors crops (--no-flip-test does not)"
"""What `Skeleton.require_pairs` is told by whatever makes a flip test."""

_HEAD_TOP = {"head", "headtop", "top_head", "top_of_head", "head_top"}
_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_SEPARATORS = r"[\s\-./()\[\]{}<>:;,|#'\"]+"
_SIDE_WORDS = (
    ("left", "right"), ("lft", "rgt"), ("lt", "rt"), ("links", "rechts"), ("linke", "rechte"), ("linker", "rechter"),
    ("linkes", "rechtes"), ("gauche", "droite"), ("gauche", "droit"), ("izquierda", "derecha"), ("izquierdo", "derecho"),
    ("izq", "der"), ("sinistra", "destra"), ("sinistro", "destro"), ("sx", "dx"), ("esquerda", "direita"),
    ("esquerdo", "direito"), ("левый", "правый"), ("левая", "правая"), ("левое", "правое"),
)  # fmt: skip
_SIDE_SIGNS = (("左", "右"),)  # inside of words
_SURE_WORD = 5  # letters of a word for a side that means nothing else
_FIELDS = ("name", "keypoints", "limbs", "sigmas", "parts", "pairs")  # of a skeleton as a dictionary


def keypoint_name(text: str) -> str:
    """A keypoint's name as skeletons here spell it, with its side in front: `Left Shoulder`, `leftShoulder`,
    `LShoulder`, `l_shoulder`, `shoulder_left`, `shoulder (left)` and `shoulder.L` → `left_shoulder`."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text.strip())
    text = re.sub(_SEPARATORS, "_", text).strip("_").lower() or text
    text = re.sub(r"^(left|right)(?=[a-z]{2})", r"\1_", re.sub(r"(?<=[a-z]{3})(left|right)$", r"_\1", text))
    words = [word for word in text.split("_") if word]
    # A word for a side may stand anywhere, a letter for it only at one of the ends.
    places = [i for i, word in enumerate(words) if word in ("left", "right")]
    places = places or [i for i in (0, len(words) - 1) if len(words) > 1 and words[i] in _SIDES]
    if places and len(words) > 1:
        words.insert(0, _SIDES[words.pop(places[0])])
    text = "_".join(words) or text
    return "head_top" if text in _HEAD_TOP else text


def _right_of_sided(name: str) -> list[str]:
    """What the other side of a keypoint is called whose name says `left` in front."""
    return ["right_" + name[5:]] if name.startswith("left_") else []


def _right_of_word(name: str) -> list[str]:
    """What the other side may be called where a word or sign for the left stands anywhere, in some languages."""
    words = name.split("_")
    found = [
        "_".join([*words[:i], right, *words[i + 1 :]])
        for i, word in enumerate(words)
        for left, right in _SIDE_WORDS
        if word == left
    ]
    return found + [name.replace(left, right) for left, right in _SIDE_SIGNS if left in name]


def _right_of_letter(name: str) -> list[str]:
    """What the other side may be called where a word begins or ends with l: `lear`, `eye_l2`, `hl_paw`. Only that there
    is a keypoint of that name makes it one."""
    words = name.split("_")
    found = []
    for i, word in enumerate(words):
        changed = ["r" + word[1:]] if word.startswith("l") else []
        changed += [word[:-1] + "r"] if word.endswith("l") and len(word) > 1 else []
        found += ["_".join([*words[:i], each, *words[i + 1 :]]) for each in changed]
    return found


def _has_side(name: str) -> bool:
    """Whether a spelt name certainly says a side."""
    if name.startswith(("left_", "right_")):
        return True
    sides = {side for pair in _SIDE_WORDS for side in pair if len(side) >= _SURE_WORD} | {"left"}
    return bool(sides & set(name.split("_"))) or any(sign in name for pair in _SIDE_SIGNS for sign in pair)


@dataclass(frozen=True)
class Skeleton:
    """A named set of K keypoints.

    Attributes:
        name: what `get_skeleton` and checkpoints call it.
        keypoints: K names; `left` and `right` name the two sides of the person, not of the image.
        limbs: pairs of keypoint indices that are joined by a line in images.
        sigmas: K per-keypoint standard deviations of the labels, as a fraction of the square root of the person's
            area (COCO's OKS constants; 0.05 if unknown).
        parts: named groups of keypoint indices, such as `body` or `left_hand`.
        given_pairs: pairs of keypoint indices that change places in the mirror, where the names do not tell; an empty
            tuple where none do.
    """

    name: str
    keypoints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    parts: dict[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    given_pairs: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        paired = [index for pair in self.given_pairs or () for index in pair]
        if len(set(paired)) != len(paired):
            raise LeanposeError(f"Skeleton '{self.name}' has a keypoint in two of its `pairs`, or paired with itself.")
        if len(self.sigmas) != len(self.keypoints):
            raise LeanposeError(f"Skeleton '{self.name}' has {len(self)} keypoints but {len(self.sigmas)} sigmas.")
        if not all(0 < sigma < 100 for sigma in self.sigmas):
            raise LeanposeError(f"Skeleton '{self.name}' has a sigma that is not a number above 0 and below 100.")
        if len(set(self.keypoints)) != len(self.keypoints):
            twice = next(name for i, name in enumerate(self.keypoints) if name in self.keypoints[:i])
            raise LeanposeError(f"Skeleton '{self.name}' names the keypoint '{twice}' twice.")

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """The K names, as results are read: `poses.skeleton.keypoint_names`."""
        return self.keypoints

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(left, right) index pairs that change places in the mirror: those given, or found by name."""
        if self.given_pairs is not None:
            return self.given_pairs
        index = {keypoint_name(name): i for i, name in enumerate(self.keypoints)}
        found: dict[int, int] = {}
        for spell in (_right_of_sided, _right_of_word, _right_of_letter):  # the surest first
            for name, left in index.items():
                rights = [index[other] for other in spell(name) if other in index]
                taken = {*found, *found.values()}
                if left not in taken and rights and rights[0] not in taken:
                    found[left] = rights[0]
        return tuple(sorted(found.items()))

    @property
    def unpaired_sides(self) -> tuple[str, ...]:
        """The names with a side whose other side is missing, unless the pairs are given: a mirrored image shows what
        they do not mean."""
        if self.given_pairs is not None:
            return ()
        paired = {index for pair in self.pairs for index in pair}
        sided = (i for i, name in enumerate(self.keypoints) if _has_side(keypoint_name(name)))
        return tuple(self.keypoints[i] for i in sided if i not in paired)

    @cached_property
    def flip_indices(self) -> tuple[int, ...]:
        """`flipped[k] = original[flip_indices[k]]`: the order of the keypoints after mirroring the image."""
        order = list(range(len(self)))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return tuple(order)

    @cached_property
    def upper_body(self) -> tuple[int, ...]:
        """Keypoints above the waist: the half that the half-body augmentation may keep (hips and below are the
        other)."""
        lower = ("hip", "knee", "ankle", "toe", "heel", "foot", "pelvis")
        return tuple(i for i, name in enumerate(self.keypoints) if not any(word in name for word in lower))

    def require_pairs(self, use: str) -> None:
        """Check that every left or right keypoint has a partner on the other side.

        Args:
            use: what flips images, and how to disable it.

        Raises:
            LeanposeError: one has none.
        """
        if alone := self.unpaired_sides:
            raise LeanposeError(
                f"{use}, but the keypoints {', '.join(alone[:4])}{' …' if alone[4:] else ''} of skeleton '{self.name}' "
                "have no left/right counterpart: add `pairs: [[left, right], …]` to its YAML file, or `pairs: []` if the object has no left and right."
            )

    def indices_in(self, other: Skeleton) -> tuple[int, ...]:
        """For each of this skeleton's keypoints its index in `other`, or -1 where `other` has no such point.

        Names decide, whatever their spelling (`keypoint_name`); `SAME_POINT` says which two names mean one point.
        """
        index = {name: i for i, name in enumerate(other.keypoints)}
        own = set(self.keypoints)
        for i, name in enumerate(other.keypoints):
            if name not in own:
                index.setdefault(keypoint_name(name), i)
        for name, another in SAME_POINT.items():
            if name not in index and another in index and another not in own:
                index[name] = index[another]
        spelt = {name: keypoint_name(name) for name in self.keypoints if name not in index}
        return tuple(
            index.get(spelt.get(name, name) if spelt.get(name) not in own else name, -1) for name in self.keypoints
        )

    def to_dict(self) -> dict:
        """A plain dictionary for checkpoints and YAML; `Skeleton.from_dict` reads it back."""
        values = {
            "name": self.name,
            "keypoints": list(self.keypoints),
            "limbs": [list(limb) for limb in self.limbs],
            "sigmas": list(self.sigmas),
            "parts": {name: list(indices) for name, indices in self.parts.items()},
        }
        return values if self.given_pairs is None else values | {"pairs": [list(pair) for pair in self.given_pairs]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Skeleton:
        """Build from `to_dict`'s form. Limbs and pairs may be given by keypoint name; sigmas may be left out (0.05
        each).

        Raises:
            LeanposeError: a field is missing or does not fit.
        """
        if unknown := sorted(str(key) for key in values if key not in _FIELDS):
            raise LeanposeError(f"A skeleton has no field '{unknown[0]}'; {did_you_mean(unknown[0], _FIELDS)}")
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

            pairs = values.get("pairs")
            return cls(
                name=str(values["name"]),
                keypoints=keypoints,
                limbs=tuple((resolve(a), resolve(b)) for a, b in values.get("limbs") or ()),
                sigmas=tuple(float(s) for s in values.get("sigmas") or [0.05] * len(keypoints)),
                parts={part: tuple(map(resolve, points)) for part, points in (values.get("parts") or {}).items()},
                given_pairs=None if pairs is None else tuple((resolve(a), resolve(b)) for a, b in pairs),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise LeanposeError(f"Not a skeleton (`name`, `keypoints`): {type(error).__name__} {error}.") from error


def join_skeletons(skeletons: Sequence[Skeleton]) -> Skeleton:
    """One skeleton with the keypoints of all, each once however it is spelt, in the order of the first."""
    first = skeletons[0]
    names, known = list(first.keypoints), {keypoint_name(name) for name in first.keypoints}
    for name in (name for each in skeletons for name in each.keypoints):
        if keypoint_name(name) not in known:
            known.add(keypoint_name(name))
            names.append(name)
    if len(names) == len(first):
        return first
    places = {keypoint_name(name): i for i, name in enumerate(names)}

    def pairs_of(kind: str) -> tuple[tuple[int, int], ...]:
        pairs = ((s.keypoints[a], s.keypoints[b]) for s in skeletons for a, b in getattr(s, kind))
        return tuple(dict.fromkeys((places[keypoint_name(a)], places[keypoint_name(b)]) for a, b in pairs))

    sigmas = {
        keypoint_name(name): sigma
        for each in reversed(skeletons)
        for name, sigma in zip(each.keypoints, each.sigmas, strict=True)
    }
    given = any(each.given_pairs is not None for each in skeletons)
    return Skeleton(
        first.name,
        tuple(names),
        pairs_of("limbs"),
        tuple(sigmas[keypoint_name(name)] for name in names),
        given_pairs=pairs_of("pairs") if given else None,
    )


def skeleton_yaml(skeleton: Skeleton) -> str:
    """A skeleton as the text of a YAML file, with limbs and pairs by name; `get_skeleton` reads it back."""
    names = skeleton.keypoints
    values = skeleton.to_dict() | {"limbs": [[names[a], names[b]] for a, b in skeleton.limbs]}
    values["pairs"] = [[names[a], names[b]] for a, b in skeleton.pairs]
    return dump_yaml(values, default_flow_style=None, width=120)


def _read_skeletons() -> dict[str, Skeleton]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, and nearly everywhere there
    content = yaml.load(Path(__file__).with_name("skeletons.yaml").read_text(encoding="utf-8"), loader)
    return {name: Skeleton.from_dict({"name": name, **values}) for name, values in content.items()}


SKELETONS = _read_skeletons()
COCO17, BODY19, CROWDPOSE14, LSP14, MPII16, HALPE26, WHOLEBODY133, AP10K17, HAND21 = SKELETONS.values()

OF_DATASET = {
    "coco": COCO17, "humanart": COCO17, "crowdpose": CROWDPOSE14, "mpii": MPII16, "halpe26": HALPE26, "ap10k": AP10K17,
    "coco_wholebody": WHOLEBODY133, "ubody2d": WHOLEBODY133, "coco_wholebody_hand": HAND21,
}  # fmt: skip
"""The skeletons of the data sets that mmpose's files name."""


def get_skeleton(skeleton: str | Path | Skeleton) -> Skeleton:
    """A known skeleton by name, one of your own from a YAML file, or the skeleton itself.

    Raises:
        LeanposeError: the name is unknown, or the file is missing or is not a skeleton.
    """
    if isinstance(skeleton, Skeleton):
        return skeleton
    if str(skeleton) in SKELETONS:
        return SKELETONS[str(skeleton)]
    path = Path(skeleton)
    if path.suffix not in (".yaml", ".yml"):
        raise LeanposeError(f"Unknown skeleton '{skeleton}'; {did_you_mean(str(skeleton), SKELETONS)}")
    with any_damage("skeleton file", path):
        return Skeleton.from_dict(load_yaml(path, "skeleton file"))
