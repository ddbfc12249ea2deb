"""Values by name that recipes, commands and functions share: each list is here once.

Nothing is imported but `typing`, so that commands can name them at once.
"""

from typing import Literal

Split = Literal["all", "train", "val"]
"""Split of a data set without its own: every tenth image is `val`."""

Encoding = Literal["msra", "unbiased", "udp"]
"""Encoding of heatmap targets (`leanpose.codecs.HeatmapCodec`)."""

Decoding = Literal["argmax", "quarter", "dark"]
"""Decoding of heatmaps."""

Cycle = Literal["first", "last"]
"""The cycle of a multi-cycle model that gives the prediction."""

Scoring = Literal["bbox_keypoint", "bbox_rle", "keypoint", "bbox"]
"""How a person's score is computed from the box's and the keypoints' (`PosePredictions.person_scores`)."""

Suppression = Literal["oks", "soft"]
"""How duplicates are suppressed (`leanpose.nms`)."""

BoxMetric = Literal["coco", "crowdpose"]
"""OKS metrics: COCO's ten, or CrowdPose's nine."""

OksMetric = Literal[BoxMetric, "wholebody"]
"""The same, or COCO's with AP and AR of each part (`part_metrics`)."""

Metric = Literal[OksMetric, "mpii"]
"""The same, or MPII's PCKh (`pckh`)."""

SetMetric = Literal[BoxMetric, "mpii"]
"""The metric of a format's official evaluation."""
