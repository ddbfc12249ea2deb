"""The crops of a batch, cut and changed on the training device: a few operations for all of them together.

A loader process then only reads: the coarse crops of a pack go to the device as they are, with one affine map and one
`PhotometricParams` each, drawn as ever by (seed, epoch, index). The results agree with OpenCV's to about one grey
level.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from leanpose.data.augmentation import PhotometricParams
from leanpose.data.batch import Batch, CropBatch
from leanpose.data.jpeg_records import JpegRecords
from leanpose.device import device_constant

Blurs = dict[tuple[str, int], list[int]]
"""(kind, side of the kernel) → the crops that it blurs; no tensors, so that no device has to be asked for them."""


@dataclass(frozen=True)
class SourceBatch(Batch):
    """People of whom coarse crops are there, for crops to be cut from them on the device.

    Attributes:
        sources: RGB, black beyond the coarse crops; without those in `records`.
        to_sources: crop → source, in pixels.
        keypoints, weights, matrices, sets: as in `CropBatch`.
        size: height and width of the crops.
        change: of hue, saturation and value; None where no colour changes.
        holes: top, left, bottom, right; discs: x, y, radius; see `PhotometricParams`.
        blurs: see `Blurs`.
        records: the coarse crops that are still JPEGs.
    """

    sources: UInt8[Tensor, "N H W 3"]
    to_sources: Float[Tensor, "B 2 3"]
    keypoints: Float[Tensor, "B K 2"]
    weights: Float[Tensor, "B K"]
    matrices: Float[Tensor, "B 2 3"]
    size: tuple[int, int]
    change: Int[Tensor, "B 3"] | None
    holes: Int[Tensor, "B 4"]
    discs: Float[Tensor, "B 3"]
    blurs: Blurs
    sets: Int[Tensor, " B"] | None = None
    records: JpegRecords | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.prepared().inputs

    def prepared(self) -> CropBatch:
        """The crops, on the device that the sources are on."""
        images = warp_images(self._decoded(), self.to_sources, self.size)
        if self.change is not None:
            images = shift_colours(images, self.change)
            images = drop(blur(images, self.blurs), self.holes, self.discs)
        return CropBatch(self.indices, self.broken, images, self.keypoints, self.weights, self.matrices, self.sets)

    def _decoded(self) -> UInt8[Tensor, "B H W 3"]:
        """All coarse crops, on the device."""
        if self.records is None:
            return self.sources
        count, encoded = len(self.to_sources), set(self.records.places)
        sources = self.sources.new_zeros((count, *self.sources.shape[1:]))
        if len(encoded) < count:
            others = device_constant([place for place in range(count) if place not in encoded], sources.device)
            sources.index_copy_(0, others, self.sources)
        self.records.decode_into(sources)
        return sources


def warp_images(
    sources: UInt8[Tensor, "B H W 3"], to_sources: Float[Tensor, "B 2 3"], size: tuple[int, int]
) -> UInt8[Tensor, "B h w 3"]:
    """Cut one crop from each source: linear interpolation, black outside.

    Args:
        sources: RGB.
        to_sources: crop → source, between pixel centres.
        size: height and width of the crops.
    """
    height, width = size
    y, x = torch.meshgrid(
        torch.arange(height, device=sources.device, dtype=torch.float32),
        torch.arange(width, device=sources.device, dtype=torch.float32),
        indexing="ij",
    )
    places = torch.stack((x, y, torch.ones_like(x)), dim=-1).flatten(0, 1)
    # grid_sample takes the first and last pixel centre as -1 and 1.
    limits = device_constant([max(sources.shape[2] - 1, 1), max(sources.shape[1] - 1, 1)], sources.device)
    grid = (places @ to_sources.transpose(1, 2)) * (2 / limits) - 1
    pixels = sources.permute(0, 3, 1, 2).float()
    crops = F.grid_sample(
        pixels, grid.unflatten(1, (height, width)), mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return to_bytes(crops).permute(0, 2, 3, 1)


def to_bytes(values: Float[Tensor, "*S"]) -> UInt8[Tensor, "*S"]:
    """Rounded, between 0 and 255."""
    return values.add(0.5).clamp_(0, 255).to(torch.uint8)


def stack_photometric(
    photometric: Sequence[PhotometricParams],
) -> tuple[Int[Tensor, "B 3"] | None, Int[Tensor, "B 4"], Float[Tensor, "B 3"], Blurs]:
    """The last fields of a `SourceBatch`, of one set of parameters a crop, or of none at all."""
    blurs: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for index, one in enumerate(photometric):
        for kind, side in (("mean", one.mean), ("median", one.median)):
            if side > 1:
                blurs[kind, side].append(index)
    change = torch.tensor([one.change.tolist() for one in photometric], dtype=torch.int16).view(-1, 3)
    holes = torch.tensor([one.hole for one in photometric], dtype=torch.int32).view(-1, 4)
    discs = torch.tensor([one.disc for one in photometric], dtype=torch.float32).view(-1, 3)
    return change if photometric else None, holes, discs, dict(blurs)


def blur(images: UInt8[Tensor, "B h w 3"], blurs: Blurs) -> UInt8[Tensor, "B h w 3"]:
    """Blur some of the crops: all means before all medians."""
    for (kind, side), members in sorted(blurs.items()):
        index = device_constant(members, images.device)
        pixels = images[index].permute(0, 3, 1, 2).float()
        blurred = mean_blur(pixels, side) if kind == "mean" else median_blur(pixels, side)
        images = images.index_copy(0, index, to_bytes(blurred).permute(0, 2, 3, 1))
    return images


def drop(
    images: UInt8[Tensor, "B h w 3"], holes: Int[Tensor, "B 4"], discs: Float[Tensor, "B 3"]
) -> UInt8[Tensor, "B h w 3"]:
    """Black out a rectangle and a disc in each crop."""
    y = torch.arange(images.shape[1], device=images.device)[None, :, None]
    x = torch.arange(images.shape[2], device=images.device)[None, None, :]
    top, left, bottom, right = (value[:, None, None] for value in holes.unbind(1))
    in_hole = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    centre_x, centre_y, radius = (value[:, None, None] for value in discs.unbind(1))
    in_disc = ((x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2) & (radius > 0)
    return images.masked_fill((in_hole | in_disc)[..., None], 0)


def shift_colours(images: UInt8[Tensor, "B h w 3"], change: Int[Tensor, "B 3"]) -> UInt8[Tensor, "B h w 3"]:
    """Add to OpenCV's 8-bit hue (0 to 179, which goes round), saturation and value (which are cut)."""
    red, green, blue = images.float().unbind(-1)
    value = images.amax(-1).float()
    spread = value - images.amin(-1).float()
    safe = spread.clamp(min=1)
    saturation = (255 * spread / value.clamp(min=1)).round()
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = torch.where(spread > 0, (hue * 30).round() % 180, 0)
    add = change[:, None, None].to(hue.dtype)
    hue = (hue + add[..., 0]) % 180
    saturation = (saturation + add[..., 1]).clamp(0, 255) / 255
    value = (value + add[..., 2]).clamp(0, 255)
    # Each channel of the hue's pure colour: 1 within 60° of its own hue, 0 beyond 120°, a ramp between.
    channels = [
        value * (1 - saturation * (1 - (((hue / 30 + offset) % 6 - 3).abs() - 1).clamp(0, 1))) for offset in (0, 4, 2)
    ]
    shifted = to_bytes(torch.stack(channels, dim=-1))
    return torch.where((change != 0).any(1)[:, None, None, None], shifted, images)


def mean_blur(images: Float[Tensor, "B 3 h w"], side: int) -> Float[Tensor, "B 3 h w"]:
    """The mean over a square of pixels; at the edges the image is mirrored, without the edge itself."""
    padded = F.pad(images, (side // 2,) * 4, mode="reflect")
    return F.avg_pool2d(padded, side, stride=1)


def median_blur(images: Float[Tensor, "B 3 h w"], side: int) -> Float[Tensor, "B 3 h w"]:
    """The median over a square of pixels; at the edges the last pixels are repeated."""
    padded = F.pad(images, (side // 2,) * 4, mode="replicate")
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)
    return windows.flatten(4).median(dim=-1).values
