"""Conversion of the papers' own checkpoints, and of networks in ONNX files, into files of leanpose.

`convert.convert` is the way in; `weights.official` has the names of the weights, `checkpoint` reads files that may hold
code without running any of it.
"""
