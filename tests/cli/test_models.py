"""`leanpose models` prints the table it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import leanpose
from leanpose.cli.models import models
from leanpose.errors import LeanposeError
from leanpose.weights import RELEASED, Release, save_model


def test_a_pattern_lists_the_models_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    models("sdpose_s_*")
    rows = [line for line in capsys.readouterr().out.splitlines() if "sdpose_s_" in line]
    assert len(rows) == 3
    for expected in ("sdpose_s_v1", "6.62 M", "2.40", "2.75", "256x192", "72.3", "SDPose (CVPR 2024), table 1"):
        assert expected in rows[0]


def test_options_change_what_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    models("tfpose_r50", ["encoder_layers=4"])
    row = next(line for line in capsys.readouterr().out.splitlines() if "tfpose_r50" in line)
    assert "7.66" in row  # TFPose, Table 5: 7.68
    assert "with encoder_layers=4" in row
    assert "71.0" not in row, "that is another network's"
    models("tfpose_r50", ["input_size=[384,288]"])
    row = next(line for line in capsys.readouterr().out.splitlines() if "tfpose_r50" in line)
    assert "20.43" in row
    assert "384x288" in row
    for settings, words in (
        (["encoder_layer=4"], "no setting 'encoder_layer'; did you mean 'encoder_layers'"),
        (["encoder_layers"], "write key=value, for example encoder_layers=4"),
        (["encoder_layers=[4"], "is not valid YAML"),
        (["encoder_layers=many"], "does not fit"),
    ):
        with pytest.raises(LeanposeError, match=words):
            models("tfpose_r50", settings)
    with pytest.raises(LeanposeError, match="leanpose models tfpose_r50 embed_dim=96"):
        models("embed_dim=96")


def test_whole_body_figures_say_that_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    models("dwpose_t")
    row = next(line for line in capsys.readouterr().out.splitlines() if "dwpose_t" in line)
    for expected in ("5.52 M", "0.54", "48.5 (whole body)", "DWPose (ICCV 2023 workshop)"):
        assert expected in row


def test_released_weights_are_listed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leanpose.weights.released.FOLDER", tmp_path)
    monkeypatch.setitem(RELEASED, "tiny-body", Release("tiny", "CC0", "a tiny one"))
    model = leanpose.create_model("sdpose_t", skeleton="body19", input_size=(64, 48), embed_dim=16, depth=1)
    save_model(model, tmp_path / "tiny.safetensors", training_data=[], licence="CC0", metrics={})
    models("tiny-*")
    out = capsys.readouterr().out
    for expected in ("tiny-body", "64x48", "19", "a tiny one", "leanpose weights"):
        assert expected in out


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(LeanposeError, match="did you mean 'sdpose_t'"):
        models("sdpose_tt")


def test_the_list_needs_no_torch() -> None:
    code = "import sys; from leanpose.cli.models import models; models(); print(sorted({'torch', 'timm', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
