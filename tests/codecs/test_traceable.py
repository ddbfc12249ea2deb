"""The exportable way to read a prediction gives what the codecs' own ways give."""

from __future__ import annotations

import itertools

import pytest
import torch

from leanpose.codecs import CoordinateCodec, HeatmapCodec, SimCCCodec
from leanpose.codecs.base import Coordinates, Heatmaps, SimCC
from leanpose.codecs.traceable import decode_traceable

WAYS = list(itertools.product(("msra", "unbiased", "udp"), ("argmax", "quarter", "dark"), ("mmpose1x", "mmpose029")))


@pytest.mark.parametrize(("encoding", "decoding", "toolbox"), WAYS)
def test_heatmaps(encoding: str, decoding: str, toolbox: str) -> None:
    codec = HeatmapCodec(encoding=encoding, decoding=decoding, toolbox=toolbox)  # pyright: ignore
    generator = torch.Generator().manual_seed(0)
    # Also beside the crop, where nothing or only a Gaussian's foot is in the map.
    points = torch.rand((8, 17, 2), generator=generator) * torch.tensor([252.0, 316.0]) - 30
    maps = codec.encode(points, torch.ones(8, 17)).heatmaps
    maps = maps + 0.01 * torch.randn(maps.shape, generator=generator)
    maps[0, 0] = 0
    maps[0, 1] = -1
    maps[0, 2, 5, 5] = float("nan")
    maps[0, 3, 5, 5] = float("inf")
    wanted, scores = codec.decode(Heatmaps(maps))
    found, found_scores = decode_traceable(codec, Heatmaps(maps))
    assert torch.equal(found_scores, scores)
    # Where there is nothing but noise, DARK's parabola may be all but flat.
    firm = scores > 0.1
    assert firm.sum() > 60
    assert (found - wanted)[firm].abs().max() < 1e-3
    assert torch.allclose(found[0, :4], wanted[0, :4])
    assert found.isfinite().all()


def test_other_codecs_are_asked_themselves() -> None:
    bins = SimCC(torch.randn(2, 3, 64), torch.randn(2, 3, 128))
    simcc = SimCCCodec((64, 32), decoding="dark")
    assert torch.equal(decode_traceable(simcc, bins)[0], simcc.decode(bins)[0])
    xy = Coordinates(torch.rand(2, 3, 2), torch.rand(2, 3, 2))
    coordinates = CoordinateCodec((64, 32))
    assert torch.equal(decode_traceable(coordinates, xy)[1], coordinates.decode(xy)[1])
