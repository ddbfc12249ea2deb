"""Pose models: one file per paper, with parts that papers share in `backbones/`.

Import what you need from the modules, or use `leanpose.create_model` and `leanpose.list_models`.
"""

WEIGHTS = "leanpose.weights"
"""The package that loads, saves and publishes models. It depends on this one, so it is named here and imported when
needed."""
