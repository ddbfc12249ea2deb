"""Pose models: one file per paper, with parts that papers share in `backbones/`.

Import what you need from the modules, or use `leanpose.create_model` and `leanpose.list_models`.
"""
