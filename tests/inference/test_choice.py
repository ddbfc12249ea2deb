"""The choice of the fastest backend: only among those that agree, and remembered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from leanpose.codecs.base import Heatmaps
from leanpose.inference import choice
from leanpose.inference.choice import BackendBenchmark, BackendSetup, benchmark_backends, fastest, remember, remembered
from leanpose.inference.estimator import PoseEstimator
from leanpose.models.base import PoseOutput
from spots import PureSpotFinder, SpotFinder, scene

CPU = torch.device("cpu")
TORCH, ORT = BackendSetup("torch", "fp32"), BackendSetup("onnxruntime", "fp32")


def test_every_run_time_is_measured() -> None:
    results = benchmark_backends(PureSpotFinder(), CPU, batches=(1, 3), time_budget=0.1)
    usable = {r.setup for r in results if r.reason is None}
    assert {TORCH, ORT, BackendSetup("openvino", "fp32")} <= usable
    for result in results:
        assert (set(result.milliseconds) == {1, 3}) == (result.reason is None)
    assert results[0].setup == TORCH
    ours = next(r for r in results if r.setup == ORT).agreement
    assert ours is not None
    assert ours.tail is not None
    assert ours.tail < 1e-3


def test_a_run_time_that_differs_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = choice.open_setup

    def lying(model, device, setup):
        backend = honest(model, device, TORCH)
        if setup == ORT:
            predict = backend.predict
            backend.predict = lambda crops: predict(np.ascontiguousarray(np.roll(crops, 8, axis=2)))
        return backend

    monkeypatch.setattr(choice, "open_setup", lying)
    results = {r.setup: r for r in benchmark_backends(PureSpotFinder(), CPU, batches=(1,), time_budget=0.01)}
    assert "differs from torch" in (results[ORT].reason or "")
    assert results[ORT].milliseconds == {}
    assert fastest(list(results.values())) != ORT


def test_the_fastest() -> None:
    def measured(setup: BackendSetup, *times: float, reason: str | None = None) -> BackendBenchmark:
        return BackendBenchmark(setup, dict(zip((1, 8), times, strict=False)), reason=reason)

    openvino = BackendSetup("openvino", "bf16")
    assert fastest([measured(TORCH, 10, 80), measured(ORT, 5, 40), measured(openvino, 4, 30)]) == openvino
    assert fastest([measured(TORCH, 10, 80), measured(ORT, 5, 40), measured(openvino, reason="differs")]) == ORT
    assert fastest([measured(TORCH, 10, 80), measured(ORT, 9.9, 79)]) == TORCH  # not worth it
    assert fastest([measured(TORCH, 10, 80), measured(ORT, 5, 200)]) == TORCH  # faster alone, slower together


def test_the_choice_is_remembered_for_these_weights(cache: Path) -> None:
    model = PureSpotFinder()
    model.anchor.data.fill_(0.25)
    assert remembered(model, CPU) is None
    assert PoseEstimator(model, "whole-image", "cpu").backend_reason == choice.DEFAULT_REASON
    results = [BackendBenchmark(TORCH, {1: 10.0}), BackendBenchmark(ORT, {1: 1.0})]
    assert remember(model, CPU, results) == ORT
    assert remembered(model, CPU) == ORT
    assert remembered(model, CPU, "bf16") is None
    estimator = PoseEstimator(model, "whole-image", "cpu")
    assert str(estimator.backend) == "onnxruntime fp32"
    assert estimator.backend_reason == "the fastest in the benchmark"
    given = scene(2, 2)
    assert np.abs(estimator(given.image, given.boxes).keypoints - given.points).max() < 0.4
    assert str(PoseEstimator(model, "whole-image", "cpu", "torch").backend) == "torch fp32"
    model.anchor.data.fill_(0.5)
    assert remembered(model, CPU) is None
    model.anchor.data.fill_(0.25)
    for record in (cache / "backends").iterdir():
        record.write_text("{")
    assert remembered(model, CPU) is None


def test_onnxruntime_is_the_usual_one_and_its_export_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given, steps = PureSpotFinder(), scene(0, 1), list[str]()
    model.anchor.data.fill_(0.75)
    estimator = PoseEstimator(model, "whole-image", "cpu", advance=steps.append)
    assert str(estimator.backend) == "onnxruntime fp32"
    assert estimator.backend_reason == choice.DEFAULT_REASON
    assert np.abs(estimator(given.image, given.boxes).keypoints - given.points).max() < 0.4
    assert len(steps) == 1
    assert "exporting spot_finder for onnxruntime, once" in steps[0]
    monkeypatch.setattr(choice, "export_model", lambda *_, **__: pytest.fail("it is there already"))
    monkeypatch.setattr(choice, "benchmark_backends", lambda *_, **__: pytest.fail("nothing is measured"))
    assert str(PoseEstimator(model, "whole-image", "cpu").backend) == "onnxruntime fp32"
    assert PoseEstimator(model, "whole-image", "cpu", precision="bf16").backend.name == "torch"


def test_an_export_that_is_damaged_or_of_other_code_is_made_again(cache: Path) -> None:
    class Doubling(PureSpotFinder):
        factor = 1.0

        def read(self, images: torch.Tensor) -> PoseOutput:
            output = super().read(images)
            assert isinstance(output.prediction, Heatmaps)
            return PoseOutput(Heatmaps(output.prediction.heatmaps * self.factor))

    model, given = Doubling(), scene(0, 1)
    first = PoseEstimator(model, "whole-image", "cpu")(given.image, given.boxes).keypoint_scores
    path = cache / "exports" / f"{choice.model_key(model)}.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    assert PoseEstimator(model, "whole-image", "cpu").backend.name == "onnxruntime"
    model.factor = 0.5  # which no key can see
    second = PoseEstimator(model, "whole-image", "cpu")(given.image, given.boxes).keypoint_scores
    assert np.allclose(second, 0.5 * first, atol=1e-5)


def test_what_cannot_be_exported_runs_in_torch_and_says_so_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(SpotFinder):
        def forward(self, images: torch.Tensor) -> PoseOutput:
            if float(images.sum()) > 1e9:  # no graph can hold that
                raise ValueError
            output = self.read(images)
            assert isinstance(output.prediction, Heatmaps)
            return PoseOutput(Heatmaps(torch.from_numpy(output.prediction.heatmaps.numpy())))

    model, given = Stubborn(), scene(0, 1)
    for _ in range(2):
        estimator = PoseEstimator(model, "whole-image", "cpu")
        assert (str(estimator.backend), estimator.backend_reason) == ("torch fp32", choice.NOT_EXPORTED)
        assert np.abs(estimator(given.image, given.boxes).keypoints - given.points).max() < 0.4
        monkeypatch.setattr(choice, "export_model", lambda *_, **__: pytest.fail("it is not tried again"))
    assert len([r for r in caplog.records if "Using torch instead of onnxruntime" in r.getMessage()]) == 1


def test_two_processes_share_a_cache(small_model_file: Path, tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\nfrom leanpose import PoseEstimator\n"
        "estimator = PoseEstimator(sys.argv[1], 'whole-image', 'cpu')\n"
        "image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)\n"
        "print(estimator.backend, estimator(image).keypoints.tobytes().hex())"
    )
    environment = {**os.environ, "LEANPOSE_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(small_model_file)]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    assert ended[0][0].startswith("onnxruntime fp32")
    assert ended[0][0] == ended[1][0]
    assert [path.suffix for path in (tmp_path / "exports").iterdir()] == [".onnx"]
