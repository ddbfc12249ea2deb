"""DARK: a window of the map gives what the whole map gives, whatever surrounds the decoding, and when exported."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from leanpose.codecs import HeatmapCodec, Heatmaps, dark


def official_dark(values: np.ndarray, kernel: int, udp: bool) -> np.ndarray:
    """Where DARK places the peak of one map, by operations on the whole map in double precision."""
    import cv2

    weights = cv2.getGaussianKernel(kernel, 0)
    values = values.astype(np.float64)
    height, width = values.shape
    y, x = np.unravel_index(values.argmax(), values.shape)
    blurred = cv2.filter2D(values, -1, weights @ weights.T, borderType=cv2.BORDER_CONSTANT)
    log = np.log((blurred * (values.max() / blurred.max())).clip(*((1e-3, 50) if udp else (1e-10, None))))
    if udp:
        log = np.pad(log, 1, mode="edge")
        at = lambda i, j: log[y + 1 + j, x + 1 + i]  # noqa: E731
        gradient = [(at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2]
        xy = (at(1, 1) - at(1, 0) - at(0, 1) + 2 * at(0, 0) - at(-1, 0) - at(0, -1) + at(-1, -1)) / 2
        hessian = (
            np.array([[at(1, 0) - 2 * at(0, 0) + at(-1, 0), xy], [xy, at(0, 1) - 2 * at(0, 0) + at(0, -1)]])
            + np.eye(2) * np.finfo(np.float32).eps
        )
    else:
        if not (1 < x < width - 2 and 1 < y < height - 2):
            return np.array([x, y], float)
        at = lambda i, j: log[y + j, x + i]  # noqa: E731
        gradient = [(at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2]
        xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
        hessian = np.array(
            [
                [(at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4, xy],
                [xy, (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4],
            ]
        )
    if np.linalg.det(hessian) == 0:
        return np.array([x, y], float)
    return np.array([x, y]) - np.linalg.solve(hessian, gradient)


@pytest.mark.parametrize("udp", [False, True])
@pytest.mark.parametrize("kernel", [3, 7, 11, 17])
@pytest.mark.parametrize("size", [(64, 48), (9, 7), (6, 23), (40, 5)])
def test_dark_in_a_window_equals_dark_on_the_whole_map(size: tuple[int, int], kernel: int, udp: bool) -> None:
    rng = np.random.default_rng(kernel)
    y, x = np.mgrid[: size[0], : size[1]]
    maps = np.zeros((60, *size), np.float32)
    for i in range(60):
        cx, cy = rng.uniform(-0.5, size[1] - 0.5), rng.uniform(-0.5, size[0] - 0.5)
        # From clean to hidden in noise: the last third has negative values, so that the logarithm's floor is met.
        maps[i] = rng.uniform(0.003, 1) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8) + rng.normal(
            0, (0.0, 0.01, 0.3)[i // 20], size
        )
    codec = HeatmapCodec(size, size, 2.0, "udp" if udp else "unbiased", "dark", kernel)
    found = codec.decode(Heatmaps(torch.from_numpy(maps[None])))[0].numpy()
    expected = np.stack([official_dark(values, kernel, udp) for values in maps])
    error = np.abs(found[0] - expected).max(axis=1)
    # Clean maps exactly; on noise a flat parabola multiplies rounding, in proportion to how far it throws the point.
    thrown = np.abs(expected - [np.unravel_index(m.argmax(), size)[::-1] for m in maps]).max(axis=1)
    assert (error <= 1e-3 * (1 + thrown**2)).all()
    assert (error[:20] <= 1e-3).all()


@pytest.mark.parametrize("toolbox", ["mmpose1x", "mmpose029"])
@pytest.mark.parametrize("encoding", ["unbiased", "udp"])
def test_a_gpu_s_way_gives_the_same_points(encoding: Any, toolbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU whole maps are blurred, so that nothing has to be asked of it."""
    codec = HeatmapCodec(encoding=encoding, toolbox=toolbox)
    generator = torch.Generator().manual_seed(0)
    places = torch.rand((90, 17, 2), generator=generator) * torch.tensor([191.0, 255.0])
    maps = codec.encode(places, torch.ones(90, 17)).heatmaps * torch.linspace(0.01, 1.2, 90).view(-1, 1, 1, 1)
    maps = Heatmaps(
        maps + 0.002 * torch.randn(maps.shape, generator=generator) * (torch.arange(90) > 44).view(-1, 1, 1, 1)
    )
    points, scores = codec.decode(maps)
    monkeypatch.setattr(dark, "_blurred_around", dark._blurred_in_parts)
    whole, whole_scores = codec.decode(maps)
    clean = (torch.arange(90) <= 44) | (torch.linspace(0.01, 1.2, 90) > 0.2)
    assert (whole - points)[clean].abs().max() < 1e-4
    assert (whole - points).abs().max() < 0.01
    assert torch.equal(whole_scores, scores)


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    path = Path(__file__).parents[2] / "benchmarks" / "decode_heatmaps.py"
    spec = importlib.util.spec_from_file_location("decode_heatmaps", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


def test_the_benchmark_compares_equals(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    codec = HeatmapCodec()
    maps = benchmark.drawn_maps(codec, 4, 17, noise=0.01, seed=1)
    points, scores = codec.decode(Heatmaps(maps))
    expected_points, expected_scores = benchmark.dark_loop(maps.numpy(), 11, 4.0)
    np.testing.assert_allclose(points, expected_points, atol=1e-3)
    np.testing.assert_allclose(scores, expected_scores, atol=2e-6)
    assert benchmark.main(["--people", "2", "--repeats", "1"]) > 0
    assert "ratio" in capsys.readouterr().out


def test_autocast_and_inference_mode_change_nothing() -> None:
    codec = HeatmapCodec((200, 160), (50, 40), blur_kernel_size=13)  # a size that no other test has put into the cache
    maps = torch.rand(2, 5, 50, 40) ** 20
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        inside, _ = codec.decode(Heatmaps(maps))
    outside, _ = codec.decode(Heatmaps(maps.clone().requires_grad_()))
    assert torch.equal(inside, outside)
    half, scores = codec.decode(Heatmaps(maps.bfloat16()))
    assert half.dtype == scores.dtype == torch.float32


WAYS = list(itertools.product(("msra", "unbiased", "udp"), ("argmax", "quarter", "dark"), ("mmpose1x", "mmpose029")))


@pytest.mark.parametrize(("encoding", "decoding", "toolbox"), WAYS)
def test_what_is_exported_gives_the_same(
    encoding: str, decoding: str, toolbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    found, found_scores = codec.decode(Heatmaps(maps))
    assert torch.equal(found_scores, scores)
    # Where there is nothing but noise, DARK's parabola may be all but flat.
    firm = scores > 0.1
    assert firm.sum() > 60
    assert (found - wanted)[firm].abs().max() < 1e-3
    assert torch.allclose(found[0, :4], wanted[0, :4])
    assert found.isfinite().all()
