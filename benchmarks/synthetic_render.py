"""How fast synthetic scenes are drawn: images a second on one core, and where the time goes.

    python benchmarks/synthetic_render.py
    python benchmarks/synthetic_render.py --count 200 --size 480x640 --people 3-8

Processor time of this process is counted, so that other work on the machine disturbs little; the figure is that of the best
of several rounds, the spread of the rounds is printed with it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import defaultdict

import cv2

from leanpose.synthetic import render_scene, scene

STAGES = (
    "draw_people",
    "draw_camera",
    "draw_background",
    "people_polygons",
    "paint",
    "compose",
    "develop",
    "label_people",
)


def pair(text: str) -> tuple[int, int]:
    first, second = text.replace("-", "x").split("x")
    return int(first), int(second)


def draw(count: int, size: tuple[int, int], people: tuple[int, int]) -> float:
    """Milliseconds of processor time a scene."""
    start = time.thread_time()
    for index in range(count):
        render_scene(0, index, size, people=people)
    return (time.thread_time() - start) / count * 1e3


def time_stages(count: int, size: tuple[int, int], people: tuple[int, int]) -> list[tuple[str, float]]:
    """Milliseconds a scene spends in each of `STAGES`, the longest first."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Callable) -> Callable:
        def run(*arguments, **named):
            start = time.thread_time()
            result = function(*arguments, **named)
            spent[name] += (time.thread_time() - start) / count * 1e3
            return result

        return run

    kept = {name: getattr(scene, name) for name in STAGES}
    for name, function in kept.items():
        setattr(scene, name, timed(name, function))
    draw(count, size, people)
    for name, function in kept.items():
        setattr(scene, name, function)
    return sorted(spent.items(), key=lambda stage: -stage[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="scenes a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=pair, default=(256, 192), metavar="HxW")
    parser.add_argument("--people", type=pair, default=(1, 3), metavar="LEAST-MOST")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    draw(options.count, options.size, options.people)
    rounds = sorted(draw(options.count, options.size, options.people) for _ in range(options.rounds))
    print(f"{options.size[0]}x{options.size[1]}, {options.people[0]} to {options.people[1]} people, one core")
    print(
        f"{1e3 / rounds[0]:.0f} images/s   ({rounds[0]:.2f} ms; rounds {rounds[0]:.2f} to {rounds[-1]:.2f} ms; goal 100 images/s)"
    )
    for name, spent in time_stages(options.count, options.size, options.people):
        print(f"  {name:16} {spent:5.2f} ms")


if __name__ == "__main__":
    main()
