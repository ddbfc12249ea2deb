"""What COCO-WholeBody adds to COCO's 17 points of the body: names, limbs and OKS constants of feet, face and hands.

The order is that of the data set (Jin et al., "Whole-Body Human Pose Estimation in the Wild", ECCV 2020): 17 body, 6 feet, 68
face (the iBUG order, which starts at the person's right), 21 left hand, 21 right hand. The data set numbers the face
points only; here each carries its side, so that `Skeleton.pairs` finds what mirrors what. These are plain tuples, of
which `leanpose.skeleton` makes the skeleton.
"""

from __future__ import annotations

import itertools

_FEET = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")


def _face_names() -> tuple[str, ...]:
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


# Of a hand: wrist, then thumb, index, middle, ring and little finger, four points each from the palm outwards.
KEYPOINTS = (*_FEET, *_face_names(), *(f"{side}_hand_{i}" for side in ("left", "right") for i in range(21)))
"""The 116 names behind the body's 17."""

PARTS: dict[str, tuple[int, ...]] = {
    "body": tuple(range(17)),
    "feet": tuple(range(17, 23)),
    "face": tuple(range(23, 91)),
    "left_hand": tuple(range(91, 112)),
    "right_hand": tuple(range(112, 133)),
}
"""Which of the 133 points belong to which part, in the order of the data set."""

# The constants of COCO-WholeBody's evaluation.
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

SIGMAS = (*_FEET_SIGMAS, *_FACE_SIGMAS, *_HAND_SIGMAS, *_HAND_SIGMAS)
"""OKS constants of `KEYPOINTS`."""


def _limbs() -> tuple[tuple[int, int], ...]:
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


LIMBS = _limbs()
"""Of feet, face and hands, as indices of the 133 points."""
