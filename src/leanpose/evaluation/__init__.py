"""Metrics: OKS average precision (COCO, CrowdPose, parts of whole bodies), a table by keypoint, PCK and related
metrics."""

from leanpose.evaluation.ap import average_precision, wholebody_ap
from leanpose.evaluation.pck import auc, box_sizes, epe, head_sizes, mpii_accuracy, nme, pck, pckh, torso_sizes
from leanpose.evaluation.predictions import PosePredictions
from leanpose.evaluation.report import keypoint_table

__all__ = [
    "PosePredictions", "auc", "average_precision", "box_sizes", "epe", "head_sizes", "keypoint_table",
    "mpii_accuracy", "nme", "pck", "pckh", "torso_sizes", "wholebody_ap",
]  # fmt: skip
