"""Saved models come back as they were, and what is not a saved model is refused in one sentence."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import leanpose
from leanpose.codecs import ScoreCalibration
from leanpose.codecs.heatmap import HeatmapCodec
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel
from leanpose.weights import RELEASED, Release, describe, load_model, load_weights, save_calibrated, save_model

TINY: dict[str, Any] = {
    "input_size": (64, 48),
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "stem_width": 8,
    "stage1_width": 4,
}


@pytest.fixture(scope="module")
def model() -> PoseModel:
    """A tiny net whose every tensor, running statistics included, differs from a fresh one's."""
    torch.manual_seed(0)
    model = leanpose.create_model("sdpose_t", skeleton="body19", head_hidden=None, **TINY)
    model.train()
    model(torch.randn(2, 3, 64, 48))
    model.codec = HeatmapCodec(input_size=(64, 48), heatmap_size=(16, 12), sigma=1.5, decoding="quarter")
    return model.eval()


def save(model: PoseModel, path: Path, **more: Any) -> Path:
    save_model(model, path, training_data=["people"], licence="CC0", metrics={"AP on people": 0.5}, **more)
    return path


def test_a_model_comes_back_as_it_was(model: PoseModel, tmp_path: Path) -> None:
    loaded = load_model(save(model, tmp_path / "model.safetensors"))
    assert not loaded.training
    assert (loaded.name, loaded.config, loaded.skeleton, loaded.codec) == (
        model.name,
        model.config,
        model.skeleton,
        model.codec,
    )
    assert (loaded.input_size, loaded.mean, loaded.std) == (model.input_size, model.mean, model.std)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_a_calibrated_copy_differs_in_its_scores_alone(model: PoseModel, tmp_path: Path, dtype: torch.dtype) -> None:
    file, copy = save(model, tmp_path / "a.safetensors", notes="a test", dtype=dtype), tmp_path / "b.safetensors"
    calibration = ScoreCalibration(1.25, tuple(k / 8 for k in range(19)))
    save_calibrated(file, copy, calibration, {"error on people": 0.01})
    before, after = load_file(file), load_file(copy)
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    card, calibrated = describe(file), describe(copy)
    assert calibrated["metrics"] == {"AP on people": 0.5, "error on people": 0.01}
    unlike = {key for key in card if card[key] != calibrated[key]}
    assert unlike == {"codec", "metrics"}
    loaded = load_model(copy)
    assert loaded.codec == model.codec.with_calibration(calibration)
    again = load_model(save(loaded, tmp_path / "c.safetensors"))
    assert again.codec == loaded.codec
    with pytest.raises(LeanposeError, match=r"must end in \.safetensors"):
        save_calibrated(file, tmp_path / "d.onnx", calibration, {})


def test_a_damaged_calibration_is_refused(model: PoseModel, tmp_path: Path) -> None:
    file = save(model, tmp_path / "a.safetensors")
    with safe_open(file, "pt") as opened:
        card = json.loads(opened.metadata()["leanpose"])
    card["codec"]["calibration"] = {"slope": 1.0}
    save_file(load_file(file), file, {"leanpose": json.dumps(card)})
    with pytest.raises(LeanposeError, match="cannot build: Not a score calibration"):
        load_model(file)


def test_half_precision_halves_the_file_and_loads_as_float32(model: PoseModel, tmp_path: Path) -> None:
    whole, half = save(model, tmp_path / "a.safetensors"), save(model, tmp_path / "b.safetensors", dtype=torch.float16)
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    loaded = load_model(half)
    for name, value in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == value.dtype
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-6)


def test_int8_weights_take_a_quarter_and_are_off_by_half_a_step(tmp_path: Path) -> None:
    model = leanpose.create_model("tinypose", input_size=(128, 96))
    whole, small = save(model, tmp_path / "a.safetensors"), save(model, tmp_path / "b.safetensors", dtype=torch.int8)
    assert small.stat().st_size < 0.4 * whole.stat().st_size
    loaded = load_model(small).state_dict()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            weight, found = module.weight.detach(), loaded[f"{name}.weight"]
            step = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
            assert found.dtype == torch.float32
            assert ((found - weight).abs() <= 0.501 * step).all()
    assert loaded.keys() == model.state_dict().keys()


def test_the_same_model_gives_the_same_bytes(model: PoseModel, tmp_path: Path) -> None:
    first, second = save(model, tmp_path / "a.safetensors"), save(model, tmp_path / "b.safetensors")
    assert first.read_bytes() == second.read_bytes()


def test_a_file_describes_itself(model: PoseModel, tmp_path: Path) -> None:
    card = describe(save(model, tmp_path / "model.safetensors", notes="a test"))
    assert card["model"] == "sdpose_t"
    assert card["config"]["embed_dim"] == 16
    assert card["skeleton"]["keypoints"][17:] == ["neck", "head_top"]
    assert card["codec"]["sigma"] == 1.5
    assert card["input_size"] == [64, 48]
    assert card["training_data"] == ["people"]
    assert (card["licence"], card["metrics"], card["notes"]) == ("CC0", {"AP on people": 0.5}, "a test")
    assert card["version"] == leanpose.__version__


@pytest.mark.parametrize("kept", [0, 4, 200, 0.5, -1])
def test_a_truncated_file_is_refused(model: PoseModel, tmp_path: Path, kept: float) -> None:
    path = save(model, tmp_path / "model.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(LeanposeError, match="corrupt, truncated or not a safetensors file"):
        load_model(path)


def test_a_flipped_bit_is_noticed(model: PoseModel, tmp_path: Path) -> None:
    path = save(model, tmp_path / "model.safetensors")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(LeanposeError, match="do not match their checksum"):
        load_model(path)


def test_another_programs_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors", {"format": "pt"})
    with pytest.raises(LeanposeError, match="of another program"):
        load_model(tmp_path / "foreign.safetensors")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    for name in ("bomb.pth", "bomb.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(LeanposeError, match=r"not opened|not a safetensors file"):
            load_model(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def _with_card(path: Path, **changes: Any) -> Path:
    card = {**describe(path), **changes}
    save_file(load_file(path), path, {"leanpose": json.dumps({k: v for k, v in card.items() if v is not None})})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "posenet_9000", "version": "9.0"}, "of leanpose 9.0, which this version .* cannot build"),
        ({"config": {"embed_din": 16}}, "did you mean 'embed_dim'"),
        ({"config": {**TINY, "embed_dim": 32, "head_hidden": None}}, "of other sizes, not this"),
        ({"skeleton": None}, "lacks 'skeleton'"),
        ({"std": [0.2, 0.0, 0.2]}, "has a wrong 'std.1': Input should be greater than 0"),
        ({"mean": [0.5, float("nan"), 0.5]}, "has a wrong 'mean.1'"),
    ],
)
def test_a_card_that_does_not_fit_is_named(
    model: PoseModel, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = _with_card(save(model, tmp_path / "model.safetensors"), **changes)
    with pytest.raises(LeanposeError, match=message):
        load_model(path)


@pytest.mark.parametrize(
    ("part", "old", "new"), [("config", "width", "embed_dim"), ("codec", "kernel", "blur_kernel_size")]
)
def test_a_card_with_a_setting_of_earlier_releases_gets_its_new_name(
    model: PoseModel, tmp_path: Path, part: str, old: str, new: str
) -> None:
    path = save(model, tmp_path / "model.safetensors")
    settings = {(old if key == new else key): value for key, value in describe(path)[part].items()}
    with pytest.raises(LeanposeError, match=f"cannot build: .*'{old}'.* is called '{new}' now"):
        load_model(_with_card(path, **{part: settings}))


def test_weights_of_another_model_are_refused_by_name(model: PoseModel, tmp_path: Path) -> None:
    path = save(model, tmp_path / "model.safetensors")
    other = leanpose.create_model("tokenpose_s_v1", **{**TINY, "depth": 3})
    with pytest.raises(LeanposeError, match="contains a 'sdpose_t', not this 'tokenpose_s_v1'"):
        load_weights(other, path)
    same = leanpose.create_model("sdpose_t", skeleton="body19", head_hidden=None, **TINY)
    load_weights(same, path)
    assert torch.equal(same.state_dict()["keypoint_tokens"], model.state_dict()["keypoint_tokens"])


def test_weights_that_are_not_finite_are_not_saved(model: PoseModel, tmp_path: Path) -> None:
    path = save(model, tmp_path / "model.safetensors")
    before = path.read_bytes()
    broken = load_model(path)
    with torch.no_grad():
        broken.get_parameter("keypoint_tokens").fill_(1e6)  # fits float32, not float16
    with pytest.raises(LeanposeError, match=r"'keypoint_tokens' is not finite as torch\.float16"):
        save(broken, path, dtype=torch.float16)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such.safetensors", "There is no file"),
        ("sdpose_t", "create_model"),
        ("leanpose-wholebody-z", "did you mean 'leanpose-wholebody-s'"),
        (".", "is a folder"),
        ("no/such.onnx", r"is not a weight file.* work for predict, eval and as teachers"),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(RELEASED, "leanpose-body-s", Release("leanpose-body-s", "CC0", "a test"))
    with pytest.raises(LeanposeError, match=message):
        load_model(name)


def test_a_released_name_is_found_in_the_package(
    model: PoseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leanpose.weights.released.FOLDER", tmp_path)
    monkeypatch.setitem(RELEASED, "tiny", Release("tiny", "CC0", "a test"))
    save(model, tmp_path / "tiny.safetensors")
    assert load_model("tiny").skeleton == model.skeleton
    with pytest.raises(LeanposeError, match=r"leanpose\.load_model loads a released model"):
        leanpose.create_model("tiny", pretrained=True)  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_every_release_is_in_the_package_and_loads() -> None:
    for name, release in RELEASED.items():
        assert release.path.stat().st_size <= 10 * 2**20
        assert describe(name)["licence"] == release.licence
        assert load_model(name).skeleton.name


def test_only_safetensors_are_written(model: PoseModel, tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match=r"must end in \.safetensors"):
        save(model, tmp_path / "model.pth")
