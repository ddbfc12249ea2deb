"""Mobile files: what is written, and that nothing is left of one that differs from its model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import mobile.converter as standins
from layered_spots import write_spot_people
from leanpose.backends.exported import ExportCard
from leanpose.checksums import file_checksum
from leanpose.errors import LeanposeError
from leanpose.export.program import CropProgram
from leanpose.mobile import MOBILE_FORMATS, export_mobile, exporter
from leanpose.mobile.formats import MobileFormat
from spots import PureSpotFinder, scene

PYTHON = Path(sys.executable)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    given = scene(0, 4)
    return np.stack([given.image[36:164, left : left + 96] for left in (40, 240, 440, 640)])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the converter reads takes seconds to write, and the tests' converters do not read it."""

    def write(program: CropProgram, _card: ExportCard, path: Path, crops: int) -> None:
        path.write_text(f"{program.model.name} for {crops} crop")

    monkeypatch.setattr(exporter, "write_onnx", write)
    monkeypatch.setattr(exporter, "write_torch", write)


@pytest.mark.usefixtures("quick")
def test_a_file_is_written_with_its_card(crops: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(standins.SCRIPT)
    monkeypatch.setattr(MobileFormat, "script", script)
    path = tmp_path / "new" / "spots.tflite"
    report = export_mobile(PureSpotFinder(), path, format="litert", crops=crops, python=PYTHON)
    assert report.agreement.points == 4 * 3
    assert report.agreement.max_shift is not None
    assert report.agreement.max_shift < 1e-3
    assert report.milliseconds > 0
    assert report.versions == {"numpy": np.__version__}
    assert report.shapes == {"heatmaps": (1, 3, 32, 24)}
    assert report.accuracy is None
    assert report.files == (path, path.with_name("spots.tflite.json"))
    assert sorted(path.parent.iterdir()) == sorted(report.files)
    assert path.read_text() == "spot_finder for 1 crop"
    assert report.bytes == path.stat().st_size
    text = report.files[-1].read_text(encoding="utf-8")
    assert ExportCard.from_json(text, "the card").spec == report.card.spec
    facts = json.loads(text)["mobile"]
    assert facts["format"] == "litert"
    assert facts["input"] == {"images": [1, 3, 128, 96]}
    assert facts["outputs"] == {"heatmaps": [1, 3, 32, 24]}
    assert facts["checksums"] == {"spots.tflite": file_checksum(path)}
    assert facts["checked"]["max_shift"] == report.agreement.max_shift


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("standin", "model", "words"),
    [
        ("Shifted", "PureSpotFinder", r"differs from 'spot_finder': the prediction by 0\.\d+ of the greatest value"),
        ("Infinite", "PureSpotFinder", "differs from 'spot_finder': the prediction by nan"),
        ("Short", "PureSpotFinder", r"mnn gives \[1\] rows for 4 crops"),
        ("Narrow", "PureSpotFinder", r"\(4, 3, 32, 23\).*, but the model .*\(4, 3, 32, 24\)"),
        ("Unable", "PureSpotFinder", "MNN has no operation for ONNX::Spots"),
        ("Blind", "Dark", "not sure of a single keypoint"),
    ],
)
def test_nothing_is_left_of_a_file_that_differs(
    standin: str, model: str, words: str, crops: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "ConverterProcess", getattr(standins, standin))
    (tmp_path / "spots.mnn").write_bytes(b"an earlier one")
    with pytest.raises(LeanposeError, match=words):
        export_mobile(getattr(standins, model)(), tmp_path / "spots.mnn", format="mnn", crops=crops, python=PYTHON)
    assert [file.name for file in tmp_path.iterdir()] == ["spots.mnn"]
    assert (tmp_path / "spots.mnn").read_bytes() == b"an earlier one"


@pytest.mark.usefixtures("quick")
def test_decoding_that_cannot_be_converted_is_left_out(
    crops: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "ConverterProcess", standins.Unable)
    options = {"format": "mnn", "crops": crops, "include_decoding": True, "python": PYTHON}
    with pytest.raises(LeanposeError, match=r"no operation for ONNX::Spots; export without --include-decoding\.$"):
        export_mobile(PureSpotFinder(), tmp_path / "spots.mnn", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick")
def test_half_a_pixel_is_the_bound(crops: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Moved(standins.InProcess):
        """Keypoints lie 0.6 pixels too far right, within all other bounds of half precision but the median's."""

        def heatmaps(self, images: np.ndarray) -> np.ndarray:
            maps = super().heatmaps(images)
            return np.concatenate([0.85 * maps[:1] + 0.15 * np.roll(maps[:1], 1, axis=-1), maps[1:]])

    monkeypatch.setattr(exporter, "ConverterProcess", Moved)
    monkeypatch.setattr(exporter, "BOUNDS", {"fp16": exporter.Bounds(1.0, 9.0, 9.0, 1.0)})
    options = {"format": "mnn", "precision": "fp16", "crops": crops, "python": PYTHON}
    with pytest.raises(LeanposeError, match=r"a keypoint by 0\.\d+ pixels, allowed are 0\.5"):
        export_mobile(PureSpotFinder(), tmp_path / "spots.mnn", **options)  # pyright: ignore[reportArgumentType]
    report = export_mobile(PureSpotFinder(), tmp_path / "spots.mnn", max_shift=1, **options)  # pyright: ignore[reportArgumentType]
    assert report.agreement.max_shift is not None
    assert 0.5 < report.agreement.max_shift < 1


@pytest.mark.usefixtures("quick")
def test_a_file_is_kept_if_its_ap_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = write_spot_people(tmp_path / "people", count=2, people=2)
    options = {"format": "mnn", "source": people, "flip_test": False, "python": PYTHON}
    path = tmp_path / "here" / "spots.mnn"
    monkeypatch.setattr(exporter, "ConverterProcess", standins.ShiftedLater)
    with pytest.raises(LeanposeError, match=r"loses \d+\.\d+ AP \(100\.00 in torch, .* in MNN\), and allowed are 0\.5"):
        export_mobile(PureSpotFinder(), path, **options)
    with pytest.raises(LeanposeError, match=r"the model reaches 100\.0 AP in torch"):
        export_mobile(PureSpotFinder(), path, max_ap_drop=100, **options)
    assert not path.parent.exists()
    monkeypatch.setattr(exporter, "ConverterProcess", standins.InProcess)
    report = export_mobile(PureSpotFinder(), path, **options)
    assert report.accuracy is not None
    assert report.accuracy.ap == report.accuracy.model_ap == pytest.approx(100)
    assert report.accuracy.people == 4
    checked = json.loads(report.files[-1].read_text())["mobile"]["checked"]
    assert checked["crops"] == 4
    assert checked["ap"] == report.accuracy.ap
    assert not checked["flip_test"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"format": "nccn"}, "did you mean 'ncnn'"),
        ({"path": "spots.param"}, r"must end in \.ncnn\.param"),
        ({"precision": "bf16"}, "fp32 or fp16, not bf16"),
        ({"include_preprocessing": True}, "ncnn takes no uint8"),
        ({"include_decoding": True, "flip_test": True}, "decoded keypoints"),
        ({"max_ap_drop": -1.0}, "AP points, 0 to 100"),
        ({"max_shift": float("nan")}, "in pixels, 0 or more"),
        ({"crops": np.zeros((2, 10, 10, 3), np.uint8)}, r"\(crops, 128, 96, 3\)"),
        ({"python": Path("no/python")}, "There is no Python at no/python"),
        ({"python": None}, r"Writing ncnn needs ncnn and pnnx .* add --install-converter, which downloads \d+ MB"),
    ],
)
def test_arguments_that_do_not_fit(
    arguments: dict, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / arguments.pop("path", "spots.ncnn.param")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(LeanposeError, match=words):
        export_mobile(**{"model": PureSpotFinder(), "path": path, "format": "ncnn", "python": PYTHON, **arguments})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("format", MOBILE_FORMATS)
@pytest.mark.parametrize("name", ["leanpose-body-t", "rtmpose_t", "sdpose_t", "distilpose_s"])
def test_a_real_converter_says_what_the_model_says(format: str, name: str, tmp_path: Path) -> None:
    from leanpose.cli.export import fresh_model

    path = tmp_path / f"model{MOBILE_FORMATS[format].suffixes[0]}"
    report = export_mobile(fresh_model(name) or name, path, format=format, install=True)
    assert report.agreement.max_shift is not None
    assert report.agreement.max_shift < 0.01
