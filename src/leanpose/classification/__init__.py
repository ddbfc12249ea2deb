"""Classifiers in the place of pose models: DeiT with SDPose's cycles (SDPose, §4.5, Table 9)."""
