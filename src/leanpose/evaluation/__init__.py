"""Metrics: OKS average precision (COCO, CrowdPose), PCK and its kin, suppression of duplicates."""

from leanpose.evaluation.average_precision import average_precision
from leanpose.evaluation.nms import box_nms, oks_matrix, oks_nms, soft_oks_nms
from leanpose.evaluation.results import PoseResults, concatenate

__all__ = ["PoseResults", "average_precision", "box_nms", "concatenate", "oks_matrix", "oks_nms", "soft_oks_nms"]
