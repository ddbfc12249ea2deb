"""How fast heatmaps are read and drawn: `HeatmapCodec` with DARK against a loop over maps with OpenCV.

    python benchmarks/decode_heatmaps.py                  # 256 people × 17 keypoints, maps of 64×48, kernel 11, one thread
    python benchmarks/decode_heatmaps.py --threads 2      # both sides may use two, and wall time is taken
    python benchmarks/decode_heatmaps.py --people 32 --repeats 3

The loop does what the papers' toolbox does, in its stages: numpy finds the maxima of all maps; then each map is padded,
blurred whole by OpenCV and scaled back; numpy takes the logarithm of all maps; then the derivatives are read at each
peak. Both sides go from maps in memory to points in crop pixels, and their points are compared. The maps are Gaussians
with noise on them, as a trained network writes them; `--noise 1` shows the worst case, where most maps must be blurred
whole. With one thread its processor time is taken, which other programs on the machine stretch least; the two
alternate, and the ratio is of the medians. Last, the drawing of training targets for 64 people × 19 keypoints, with no
peer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from leanpose.codecs import HeatmapCodec
from leanpose.codecs.base import Heatmaps


def dark_loop(maps: np.ndarray, kernel: int, stride: float) -> tuple[np.ndarray, np.ndarray]:
    """DARK (Zhang et al., CVPR 2020) map by map: (B, K, H, W) maps to (B, K, 2) points and (B, K) maxima."""
    maps = maps.copy()
    people, keypoints, height, width = maps.shape
    flat = maps.reshape(people, keypoints, -1)
    peak, highest = flat.argmax(axis=2), flat.max(axis=2)
    points = np.stack([peak % width, peak // width], axis=2).astype(np.float32)
    points[highest <= 0] = -1
    margin = kernel // 2
    for person in range(people):
        for keypoint in range(keypoints):
            padded = np.zeros((height + 2 * margin, width + 2 * margin), np.float32)
            padded[margin:-margin, margin:-margin] = maps[person, keypoint]
            blurred = cv2.GaussianBlur(padded, (kernel, kernel), 0)[margin:-margin, margin:-margin]
            maps[person, keypoint] = blurred * (highest[person, keypoint] / blurred.max())
    logs = np.log(np.maximum(maps, 1e-10))
    for person in range(people):
        for keypoint in range(keypoints):
            log = logs[person, keypoint]
            x, y = points[person, keypoint].astype(int)
            if 1 < x < width - 2 and 1 < y < height - 2:
                dx = 0.5 * (log[y, x + 1] - log[y, x - 1])
                dy = 0.5 * (log[y + 1, x] - log[y - 1, x])
                dxx = 0.25 * (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2])
                dyy = 0.25 * (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x])
                dxy = 0.25 * (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1])
                hessian = np.array([[dxx, dxy], [dxy, dyy]])
                if dxx * dyy - dxy**2 != 0:
                    points[person, keypoint] -= np.linalg.inv(hessian) @ np.array([dx, dy])
    return points * stride, highest


def drawn_maps(codec: HeatmapCodec, people: int, keypoints: int, noise: float, seed: int) -> torch.Tensor:
    """Gaussians at random places of the crop, 0.3 to 0.9 high, plus normal noise."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor(codec.input_size[::-1], dtype=torch.float32)
    points = torch.rand((people, keypoints, 2), generator=generator) * (size - 1)
    maps = codec.encode(points, torch.ones(people, keypoints)).heatmaps
    height = 0.3 + 0.6 * torch.rand((people, keypoints, 1, 1), generator=generator)
    return maps * height + noise * torch.randn(maps.shape, generator=generator)


def seconds_of(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Time of one call."""
    start = clock()
    call()
    return clock() - start


def main(arguments: list[str] | None = None) -> float:
    """Run the comparison, print it, return the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=256)
    parser.add_argument("--keypoints", type=int, default=17)
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter

    codec = HeatmapCodec()
    maps = drawn_maps(codec, options.people, options.keypoints, options.noise, options.seed)
    arrays, prediction = maps.numpy(), Heatmaps(maps)
    ours, _ = codec.decode(prediction)  # also fills the caches of blur weights
    theirs, _ = dark_loop(arrays, codec.blur_kernel_size, 4.0)
    difference = np.abs(ours.numpy() - theirs)
    loop, batched = [], []
    for _ in range(options.repeats):
        loop.append(seconds_of(lambda: dark_loop(arrays, codec.blur_kernel_size, 4.0), clock))
        batched.append(seconds_of(lambda: codec.decode(prediction), clock))
    ratio = statistics.median(loop) / statistics.median(batched)
    print(
        f"decode {options.people} × {options.keypoints} maps of 64×48 with DARK, {options.repeats} runs each, {options.threads} threads"
    )
    print(f"  loop over maps  {1e3 * statistics.median(loop):8.1f} ms (best {1e3 * min(loop):.1f})")
    print(f"  HeatmapCodec    {1e3 * statistics.median(batched):8.1f} ms (best {1e3 * min(batched):.1f})")
    print(f"  ratio           {ratio:8.1f} ×")
    print(f"  points differ by at most {difference.max():.1e} px, 99 of 100 by {np.quantile(difference, 0.99):.1e}")

    points, weights = torch.rand(64, 19, 2) * torch.tensor([191.0, 255.0]), torch.ones(64, 19)
    print("encode 64 × 19 keypoints into maps of 64×48")
    for encoding in ("msra", "unbiased", "udp"):
        drawing = HeatmapCodec(encoding=encoding)
        taken = [
            seconds_of(lambda drawing=drawing: drawing.encode(points, weights), clock)
            for _ in range(options.repeats + 1)
        ]
        print(f"  {encoding:15} {1e3 * statistics.median(taken[1:]):8.1f} ms (best {1e3 * min(taken):.1f})")
    return ratio


if __name__ == "__main__":
    main()
