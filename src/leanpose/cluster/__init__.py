"""Labels images on many machines (Ray Data), in parts of which none is lost or made twice."""

from leanpose.cluster.label import ClusterLabels, label_on_cluster
from leanpose.cluster.ray_cluster import ClusterOptions

__all__ = ["ClusterLabels", "ClusterOptions", "label_on_cluster"]
