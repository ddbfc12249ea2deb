"""JPEG crops of a pack that the training device decodes, by torchvision: NVIDIA's larger GPUs have a unit of its own
for it.

A loader process then only reads bytes and checks them. On a CPU torchvision's decoder is as fast as OpenCV's and gives
the same pixels. On a GPU it has not run yet.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from leanpose.errors import LeanposeError

WITH_DECODER = {(8, 0), (9, 0), (10, 0), (10, 3)}
"""Compute capabilities of GPUs with a JPEG unit (A100, A30, H100, H200, B200, B300). Others decode on the cores that
train."""


@dataclass(frozen=True)
class JpegRecords:
    """The JPEGs of some people of a batch.

    Attributes:
        data: one behind the other, on the CPU, where decoders read them.
        sizes: bytes of each.
        places: whose they are, as indices of the batch.
    """

    data: UInt8[Tensor, " bytes"]
    sizes: tuple[int, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, records: Mapping[int, UInt8[np.ndarray, " bytes"]]) -> JpegRecords:
        """Those of at least one person, by index."""
        data = torch.from_numpy(np.concatenate(list(records.values())))
        return cls(data, tuple(map(len, records.values())), tuple(records))

    def decode_into(self, canvas: UInt8[Tensor, "B H W 3"]) -> None:
        """Decode them on the canvas's device, each into the upper left corner of its place; RGB.

        Raises:
            LeanposeError: one cannot be decoded.
        """
        try:
            images = _decode(list(self.data.split(self.sizes)), canvas.device)
        except RuntimeError as error:
            raise LeanposeError(
                f"A packed crop cannot be decoded on {canvas.device} ({str(error).splitlines()[0][:160]}); "
                "data.decode_on_device=false decodes it in loader processes, which pass over corrupt ones."
            ) from error
        for place, image in zip(self.places, images, strict=True):
            canvas[place, : image.shape[1], : image.shape[2]] = image.permute(1, 2, 0)


def has_decoder(device: torch.device) -> bool:
    """Whether a GPU has a unit that decodes JPEG beside its computation."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) in WITH_DECODER


def why_not_decoded(device: torch.device) -> str | None:
    """Why torchvision cannot decode JPEG on a device; None where it can."""
    import cv2

    _, black = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))
    try:
        _decode([torch.from_numpy(black.reshape(-1))], device)
    except (ImportError, RuntimeError, AttributeError) as error:
        return str(error).splitlines()[0][:160]
    return None


def _decode(records: list[UInt8[Tensor, " bytes"]], device: torch.device) -> list[UInt8[Tensor, "3 h w"]]:
    from torchvision.io import ImageReadMode, decode_jpeg  # takes a moment to load

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torchcodec will take it over; of that timm needs nothing
        images = decode_jpeg(records, mode=ImageReadMode.RGB, device=device)
    assert isinstance(images, list)
    return images
