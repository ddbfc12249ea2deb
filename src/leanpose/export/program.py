"""The network with what surrounds it, as one program that `torch.export` can follow."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from leanpose.codecs.traceable import decode_traceable
from leanpose.errors import LeanposeError
from leanpose.inference.backends.graph import DECODED, INPUT, named_outputs
from leanpose.models.base import PoseModel

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class CropProgram(nn.Module):
    """From a batch of crops to named tensors, with or without normalisation and decoding.

    Args:
        model: in eval mode, its weights in `dtype`.
        normalise: take uint8 RGB (B, H, W, 3), else normalised float32 (B, 3, H, W).
        decode: give keypoints in crop pixels and scores, else the network's prediction in float32.
        dtype: in which the network computes; normalisation and decoding stay in float32.
    """

    def __init__(self, model: PoseModel, *, normalise: bool, decode: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.normalise, self.decode, self.dtype = model, normalise, decode, dtype

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs in the order of `outputs`."""
        if self.normalise:
            images = self.model.normalise(images)
        prediction = self.model(images.to(self.dtype)).prediction
        if not self.decode:
            return tuple(part.float() for part in named_outputs(prediction).values())
        return decode_traceable(self.model.codec, prediction)

    def example(self, batch: int = 2) -> Tensor:
        """An input of the right shape and type."""
        height, width = self.model.input_size
        if self.normalise:
            return torch.zeros((batch, height, width, 3), dtype=torch.uint8)
        return torch.zeros((batch, 3, height, width))

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs.

        Raises:
            LeanposeError: the model cannot compute in this precision throughout.
        """
        try:
            with torch.no_grad():
                prediction = self.model(torch.zeros((1, 3, *self.model.input_size), dtype=self.dtype)).prediction
        except RuntimeError as error:
            if self.dtype == torch.float32:
                raise
            raise LeanposeError(
                f"'{self.model.name}' computes a part in single precision, such as its coordinates, and cannot be written "
                "in half; use fp32, or the format openvino, whose run-time decides layer by layer."
            ) from error
        return DECODED if self.decode else tuple(named_outputs(prediction))


def trace(program: CropProgram) -> ExportedProgram:
    """The program as a graph of torch's operations, for any batch size.

    Raises:
        LeanposeError: the model does something that such a graph cannot hold.
    """
    batch = Dim("batch", min=1, max=4096)
    with quiet(), torch.no_grad(), _exact_products():
        try:
            return torch.export.export(program, (program.example(),), dynamic_shapes={INPUT: {0: batch}})
        except LeanposeError:
            raise
        except Exception as error:  # torch raises whatever the failing operation raised
            reason = str(error).strip().splitlines()[0][:200]
            what = "decoding of this model" if program.decode else f"model '{program.model.name}'"
            hint = "; export with --decode outside" if program.decode else ""
            raise LeanposeError(f"The {what} cannot be exported: {reason}{hint}.") from error


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    """Decoders take double precision where products may be shortened; the graph shall hold single precision."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(cast("str", before))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' talk, which is for their authors."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch._dynamo")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
