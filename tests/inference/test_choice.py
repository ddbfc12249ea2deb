"""The choice of the fastest backend: only among those that agree, and remembered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from leanpose.inference import choice
from leanpose.inference import estimator as estimator_file
from leanpose.inference.choice import Candidate, Measurement, benchmark_backends, fastest, remember, remembered
from leanpose.inference.estimator import PoseEstimator
from spots import PureSpotFinder, scene

CPU = torch.device("cpu")
TORCH, ORT = Candidate("torch", "fp32"), Candidate("onnxruntime", "fp32")


def test_every_run_time_is_measured() -> None:
    results = benchmark_backends(PureSpotFinder(), CPU, batches=(1, 3), seconds=0.1)
    usable = {r.candidate for r in results if r.reason is None}
    assert {TORCH, ORT, Candidate("openvino", "fp32")} <= usable
    for result in results:
        assert (set(result.milliseconds) == {1, 3}) == (result.reason is None)
    assert results[0].candidate == TORCH
    ours = next(r for r in results if r.candidate == ORT).agreement
    assert ours is not None
    assert ours.tail is not None
    assert ours.tail < 1e-3


def test_a_run_time_that_differs_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = choice.open_candidate

    def lying(model, device, candidate):
        backend = honest(model, device, TORCH)
        if candidate == ORT:
            predict = backend.predict
            backend.predict = lambda crops: predict(np.ascontiguousarray(np.roll(crops, 8, axis=2)))
        return backend

    monkeypatch.setattr(choice, "open_candidate", lying)
    results = {r.candidate: r for r in benchmark_backends(PureSpotFinder(), CPU, batches=(1,), seconds=0.01)}
    assert "differs from torch" in (results[ORT].reason or "")
    assert results[ORT].milliseconds == {}
    assert fastest(list(results.values())) != ORT


def test_the_fastest() -> None:
    def measured(candidate: Candidate, *times: float, reason: str | None = None) -> Measurement:
        return Measurement(candidate, dict(zip((1, 8), times, strict=False)), reason=reason)

    openvino = Candidate("openvino", "bf16")
    assert fastest([measured(TORCH, 10, 80), measured(ORT, 5, 40), measured(openvino, 4, 30)]) == openvino
    assert fastest([measured(TORCH, 10, 80), measured(ORT, 5, 40), measured(openvino, reason="differs")]) == ORT
    assert fastest([measured(TORCH, 10, 80), measured(ORT, 9.9, 79)]) == TORCH  # not worth it
    assert fastest([measured(TORCH, 10, 80), measured(ORT, 5, 200)]) == TORCH  # faster alone, slower together


def test_the_choice_is_remembered_for_these_weights(cache: Path) -> None:
    model = PureSpotFinder()
    model.anchor.data.fill_(0.25)
    assert remembered(model, CPU) is None
    assert "no backend has been measured" in PoseEstimator(model, "whole-image", "cpu").backend_reason
    results = [Measurement(TORCH, {1: 10.0}), Measurement(ORT, {1: 1.0})]
    assert remember(model, CPU, results) == ORT
    assert remembered(model, CPU) == ORT
    assert remembered(model, CPU, "bf16") is None
    estimator = PoseEstimator(model, "whole-image", "cpu")
    assert str(estimator.backend) == "onnxruntime fp32"
    assert estimator.backend_reason == "the fastest measured here"
    given = scene(2, 2)
    assert np.abs(estimator(given.image, given.boxes).keypoints - given.points).max() < 0.4
    assert str(PoseEstimator(model, "whole-image", "cpu", "torch").backend) == "torch fp32"
    model.anchor.data.fill_(0.5)
    assert remembered(model, CPU) is None
    model.anchor.data.fill_(0.25)
    for record in (cache / "backends").iterdir():
        record.write_text("{")
    assert remembered(model, CPU) is None


def test_a_large_job_is_worth_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    model = PureSpotFinder()
    model.anchor.data.fill_(0.75)
    monkeypatch.setattr(estimator_file, "LARGE_JOB", 3)
    steps: list[str] = []
    given = scene(0, 1)
    estimator = PoseEstimator(model, "whole-image", "cpu")
    estimator([given.image] * 2, [given.boxes] * 2)
    assert "no backend has been measured" in estimator.backend_reason
    estimator.expect(3, advance=steps.append)
    assert "timing" in steps
    assert "no backend has been measured" not in estimator.backend_reason
    fixed = PoseEstimator(model, "whole-image", "cpu", "torch")
    fixed.expect(3, advance=lambda _: pytest.fail("a named backend stays what it is"))
