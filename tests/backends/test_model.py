"""Exported files as models: measured and used as teachers like a model in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leanpose.backends import open_exported
from leanpose.backends.base import TorchBackend
from leanpose.backends.model import BackendModel, load_pose_model
from leanpose.errors import LeanposeError
from leanpose.export import export_model
from spots import PureSpotFinder, scene
from tiny import write_tiny_coco


def test_it_predicts_what_the_file_does(tmp_path: Path) -> None:
    path = export_model(PureSpotFinder(), tmp_path / "spots.onnx", batches=(1, 2)).path
    model = load_pose_model(path)
    assert isinstance(model, BackendModel)
    assert not list(model.parameters())
    assert model.provides == frozenset()
    assert model.device == torch.device("cpu")
    given = scene(0, 2)
    crops, _ = model.backend.spec.crop([given.image] * 2, given.boxes)
    found, scores = TorchBackend(model, torch.device("cpu")).predict_keypoints(crops, flip_test=True)
    expected, expected_scores = open_exported(path).predict_keypoints(crops, flip_test=True)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(scores, expected_scores)


def test_a_file_that_decodes_is_no_model(tmp_path: Path) -> None:
    path = export_model(PureSpotFinder(), tmp_path / "points.onnx", include_decoding=True, batches=(1, 2)).path
    with pytest.raises(LeanposeError, match="outputs decoded keypoints"):
        load_pose_model(path)


def test_eval_measures_a_file_and_says_what_it_is_taken_for(
    shared: Path, tmp_path: Path, command: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    labels = write_tiny_coco(tmp_path, people=3)
    file = shared / "data" / "pose_models" / "tinypose_128x96.onnx"
    ended = command("eval", file, "--images", tmp_path / "images", "--annotations", labels)
    assert ended.returncode == 0, ended.stderr
    assert "tinypose_128x96 128x96 on annotations: 3 people" in ended.stdout.replace("\n", " ")
    assert (
        "recognised as heatmaps of a UDP model by its shapes; 17 keypoints of 'coco17', guessed from their number"
        in caplog.text
    )
