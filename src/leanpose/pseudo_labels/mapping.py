"""Which points of the landmark models stand for which points of COCO-WholeBody.

The models are Google's MediaPipe models (Apache-2.0): the face mesh of 468 points (Kartynnik et al., 2019), the hand of 21 (Zhang
et al., 2020), BlazePose's body of 33 and a few auxiliary points (Bazarevsky et al., 2020). The hand has COCO-WholeBody's order as it is.
"""

from __future__ import annotations

FACE_68 = (
    162, 234, 93, 132, 172, 136, 149, 176, 152, 400, 378, 365, 397, 361, 323, 454, 389,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 98, 97, 2, 326, 327,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91,  # outer lip
    78, 81, 13, 311, 308, 402, 14, 178,  # inner lip
)  # fmt: skip
"""For each of the 68 face points (iBUG's order, from the person's right) a point of the mesh."""

EYE_CORNERS = (33, 263)
"""The outer corners of the person's right and left eye in the mesh: the line between them is level in a face's crop."""

NOSE_TIP, RIGHT_EYE, LEFT_EYE = 30, slice(36, 42), slice(42, 48)
"""Among the 68 points: what can be compared with the body's nose and eyes. An eye is the mean of its lids."""

ANKLES, KNEES, TOES, HEELS = (27, 28), (25, 26), (31, 32), (29, 30)
"""Left and right in BlazePose. There is one toe point a foot, near the big toe."""

BIG_TOE, SMALL_TOE, HEEL = (0, 3), (1, 4), (2, 5)
"""Left and right among the 6 foot points of COCO-WholeBody."""
