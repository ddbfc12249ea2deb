"""What a model costs, whoever wrote its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from leanpose.export.exporter import export_model
from leanpose.models.registry import create_model
from leanpose.report.costs import cost_of
from leanpose.report.figures import ParetoPoint, draw_pareto
from tiny import TINY_MODEL


def test_a_file_of_another_program_has_all_its_costs(tmp_path: Path) -> None:
    file = tmp_path / "small.onnx"
    export_model(create_model("tokenpose_s_v1", **TINY_MODEL).eval(), file, quick=True)
    threads = torch.get_num_threads()
    cost = cost_of(file, time_budget=0.01)
    assert torch.get_num_threads() == threads
    assert cost.model == "small.onnx"
    assert cost.parameters
    assert cost.macs
    assert cost.bytes == file.stat().st_size
    assert cost.milliseconds["onnxruntime"] > 0
    assert "torch" not in cost.milliseconds
    assert "Torch does not run" in cost.reasons["torch"]


def test_students_of_one_cost_stand_side_by_side() -> None:
    points = [ParetoPoint(name, 50.0, (40.0, 60.0), {"GMACs": 2.0}) for name in ("baseline", "distilled")]
    points.append(ParetoPoint("teacher", 70.0, (60.0, 80.0), {"GMACs": 8.0}))
    (axes,) = draw_pareto(points, ["GMACs"]).axes
    baseline, distilled, teacher = (float(np.asarray(bars[0].get_xdata())[0]) for bars in axes.containers)  # pyright: ignore
    assert baseline < 2.0 <= distilled < 2.2
    assert 8.0 < teacher < 8.3
    assert axes.get_ylim()[0] == 0
