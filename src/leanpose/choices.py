"""Values by name that recipes, commands and functions share: each list is here once.

Nothing is imported but `typing`, so that commands can name them at once.
"""

from typing import Literal

Split = Literal["all", "train", "val"]
"""Of a set without its own: every tenth image is `val`."""

Encoding = Literal["msra", "unbiased", "udp"]
"""How a heatmap is drawn (`leanpose.codecs.HeatmapCodec`)."""

Decoding = Literal["argmax", "quarter", "dark"]
"""How it is read."""

Cycle = Literal["first", "last"]
"""Which pass of a model with several cycles gives the prediction."""

Scoring = Literal["bbox_keypoint", "bbox_rle", "keypoint", "bbox"]
"""How one score of a person is made of the box's and the keypoints' (`PosePredictions.person_scores`)."""

Suppression = Literal["oks", "soft"]
"""How duplicates are suppressed (`leanpose.nms`)."""

BoxMetric = Literal["coco", "crowdpose"]
"""What is measured by OKS: COCO's ten figures, or CrowdPose's nine."""

OksMetric = Literal[BoxMetric, "wholebody"]
"""The same, or COCO's with AP and AR of each part (`part_metrics`)."""

Metric = Literal[OksMetric, "mpii"]
"""The same, or MPII's PCKh (`pckh`)."""

SetMetric = Literal[BoxMetric, "mpii"]
"""What a format's official evaluation measures."""
