"""One estimator called from many threads, and many images looked at side by side: the results of one thread, bit by bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from leanpose.device import CPU_QUOTA, available_cores, limit_threads
from leanpose.inference import estimator as estimator_file
from leanpose.inference.detectors import Detector
from leanpose.inference.estimator import PoseEstimator
from leanpose.inference.results import PoseResult
from leanpose.weights import load_model
from spots import PureSpotFinder, scene

CALLS, THREADS = 200, 8


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Torch, and with it every backend, with two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def portraits(count: int) -> list[np.ndarray]:
    """Small images of one person, each in another place."""
    portrait = np.ascontiguousarray(data.astronaut()[::2, ::2])
    return [np.roll(portrait, 5 * number, axis=1) for number in range(count)]


def same(one: PoseResult, other: PoseResult) -> bool:
    names = ("keypoints", "keypoint_scores", "boxes", "box_scores")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize(
    ("backend", "detector"),
    [("torch", "whole-image"), ("onnxruntime", "rtmdet-nano"), ("openvino", "whole-image")],
)
def test_many_threads_get_what_one_gets(backend: str, detector: str, small_model_file: Path) -> None:
    estimator = PoseEstimator(load_model(small_model_file), detector, "cpu", backend, person_threshold=0)
    images = portraits(20)
    expected = [estimator(image) for image in images]
    assert sum(map(len, expected)) >= 15
    counted = estimator.duplicates, estimator.uncertain
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(estimator, [images[i % 20] for i in range(CALLS)]))
    wrong = [i for i, poses in enumerate(found) if not same(poses, expected[i % 20])]
    assert wrong == []
    assert (estimator.duplicates, estimator.uncertain) == tuple(11 * number for number in counted)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_images_side_by_side(backend: str, small_model_file: Path, two_threads: None) -> None:
    estimator = PoseEstimator(load_model(small_model_file), "rtmdet-nano", "cpu", backend, person_threshold=0)
    images = portraits(18)
    blocks = [images[i : i + 4] for i in range(0, 18, 4)]
    expected = [poses for block in blocks for poses in estimator._in_turn((p, p, None) for p in block)]
    worker = estimator.for_callers(2)
    assert worker is not None
    assert worker.backend is not estimator.backend
    found = list(estimator.stream((image, None) for image in images))
    assert torch.get_num_threads() == 2
    for one, other in zip(expected, found, strict=True):
        assert np.allclose(one.boxes, other.boxes, atol=1e-3)
        assert np.allclose(one.keypoints, other.keypoints, atol=1e-2)


def test_results_come_in_order_and_images_are_taken_as_needed(two_threads: None) -> None:
    estimator, taken = PoseEstimator(PureSpotFinder(), "whole-image", "cpu", "onnxruntime"), 0
    scenes = [scene(seed, 1 + seed % 3) for seed in range(5)]

    def endless() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal taken
        while True:
            given = scenes[taken % 5]
            taken += 1
            yield given.image, given.boxes

    stream = estimator.stream(endless())
    for number in range(30):
        given = scenes[number % 5]
        assert np.abs(next(stream).keypoints - given.points).max() < 0.4
        assert taken <= number + 1 + 4 * estimator_file.BLOCK
    del stream  # which ends its threads


def test_an_error_among_the_images_is_raised(two_threads: None) -> None:
    estimator, given = PoseEstimator(PureSpotFinder(), "whole-image", "cpu", "onnxruntime"), scene(0, 1)

    def broken() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for _ in range(10):
            yield given.image, given.boxes
        raise RuntimeError("the camera is gone")

    with pytest.raises(RuntimeError, match="camera is gone"):
        list(estimator.stream(broken()))
    assert torch.get_num_threads() == 2


def test_a_detector_of_ones_own_is_called_from_one_thread(two_threads: None) -> None:
    class Counting(Detector):
        name, callers = "counting", set[int]()

        def __call__(self, images):
            self.callers.add(threading.get_ident())
            return [(np.array([[0.0, 0, 50, 50]]), np.ones(1)) for _ in images]

    detector = Counting()
    estimator = PoseEstimator(PureSpotFinder(), detector, "cpu", "onnxruntime", person_threshold=0)
    assert len(estimator([scene(0, 1).image] * 12)) == 12
    assert len(detector.callers) == 1


def test_threads_are_no_more_than_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None) -> None:
    assert CPU_QUOTA.name == "cpu.max"
    for content, cores in (("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)):
        (tmp_path / "cpu.max").write_text(content + "\n")
        monkeypatch.setattr("leanpose.device.CPU_QUOTA", tmp_path / "cpu.max")
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
        assert available_cores() == cores
    limit_threads()
    assert torch.get_num_threads() == 2
    (tmp_path / "cpu.max").write_text("50000 100000")
    limit_threads()
    assert torch.get_num_threads() == 1
