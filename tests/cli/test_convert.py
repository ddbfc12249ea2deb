"""`leanpose convert` says what it did, and one sentence where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from golden_rules import Golden
from leanpose.cli.convert import convert
from leanpose.errors import LeanposeError
from leanpose.weights import describe


def test_a_checkpoint_is_converted_and_described(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = Golden.load(shared, "rtmpose_t_body17_256x192").state_dict()
    torch.save({"state_dict": weights}, tmp_path / "a.pth")
    out = tmp_path / "a.safetensors"
    convert(str(tmp_path / "a.pth"), out, licence="CC0", training_data=["COCO"])
    printed = capsys.readouterr().out
    for expected in ("Model:    RTMPose: rtmpose_t, 256x192, coco17", "going by their number", "Written:"):
        assert expected in printed
    assert describe(out)["licence"] == "CC0"
    convert(str(tmp_path / "a.pth"), out, backbone=True)
    assert "Model:    backbone cspnext_tiny" in capsys.readouterr().out


def test_the_list_has_a_row_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    convert("dwpose-*", list_all=True)
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("│ dwpose-")]
    assert len(rows) == 5
    for expected in ("dwpose-l-384x288", "384x288", "coco_wholebody133", "66.5", "UBody"):
        assert expected in rows[-1]
    assert "non-commercial" in printed
    with pytest.raises(LeanposeError, match="No official checkpoint is called 'dwpose-9'"):
        convert("dwpose-9", list_all=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": None}, "Give a checkpoint and an output file"),
        ({"source": "a.pth"}, "Give a checkpoint and an output file"),
        ({"source": "a.pth", "out": Path("a.pth")}, "must end in .safetensors"),
        ({"source": "a.pth", "out": Path("a.safetensors")}, "There is no file a.pth"),
        ({"source": "nothing", "out": Path("a.safetensors")}, "neither a file nor an official checkpoint"),
        ({"source": "a.pth", "out": Path("a.safetensors"), "input_size": "large"}, "--input-size is height x width"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LeanposeError, match=message):
        convert(**arguments)
