"""Models go to folders and to the hub, and come back with their weights and with what is known of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

import leanpose
from hub_server import READER, StandInHub
from leanpose.backends.model import BackendConfig
from leanpose.codecs import ScoreCalibration
from leanpose.codecs.heatmap import HeatmapCodec
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel
from leanpose.models.cost import model_cost
from leanpose.models.heatmap_model import HeatmapModel
from leanpose.models.tokenpose import TokenPose
from leanpose.weights import describe, load_model, load_weights, save_model

STATED: dict[str, Any] = {"training_data": ["people"], "licence": "CC0 1.0", "metrics": {"AP on people": 0.5}}
SMALL: dict[str, Any] = {"input_size": (64, 48), "embed_dim": 16, "depth": 1, "num_heads": 2, "head_hidden": 16}
FACTS = ("model", "config", "skeleton", "codec", "mean", "std", "training_data", "licence", "metrics", "notes")


def small() -> PoseModel:
    return leanpose.create_model("sdpose_t", skeleton="lsp14", stem_width=8, stage1_width=4, **SMALL)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model's file with everything that a card can say."""
    model = small()
    assert isinstance(model.codec, HeatmapCodec)
    model.codec = replace(model.codec, calibration=ScoreCalibration(1.5, (0.25,) * 14))
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    data = ["people", "us/more-people", "and a third set"]
    save_model(
        model, path, training_data=data, licence="research alone", metrics={"AP on people": 0.5}, notes="Beware."
    )
    return path


def same_weights(one: PoseModel, other: PoseModel) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


def facts(card: dict[str, Any]) -> dict[str, Any]:
    return {name: card[name] for name in FACTS}


def test_a_loaded_model_is_pushed_with_its_card_and_comes_back_the_same(
    hub: StandInHub, file: Path, tmp_path: Path
) -> None:
    model = load_model(file)
    url = model.push_to_hub("me/pose", commit_message="As it came")
    assert url.startswith(f"{hub.endpoint}/me/pose/commit/")
    ((oid, files),) = hub.repositories["me/pose"].items()
    assert url.endswith(oid)
    assert files.keys() == {"model.safetensors", "README.md"}
    assert "leanpose.PoseEstimator('hf://me/pose')" in files["README.md"].decode()
    for loaded in (
        load_model("hf://me/pose"),
        leanpose.create_model(f"hf://me/pose@{oid}"),
        PoseModel.from_pretrained("me/pose", revision=oid, cache_dir=tmp_path / "elsewhere"),
        TokenPose.from_pretrained("hf://me/pose", token=READER),
    ):
        assert same_weights(loaded, model)
        assert loaded.codec == model.codec
        assert loaded.provenance == model.provenance
    assert (tmp_path / "elsewhere").is_dir()
    assert facts(describe("hf://me/pose")) == facts(describe(file))


def test_the_readme_says_what_the_card_says(file: Path, tmp_path: Path) -> None:
    load_model(file).save_pretrained(tmp_path)
    readme, card = ModelCard.load(tmp_path / "README.md"), describe(file)
    assert readme.data.to_dict() == {
        "library_name": "leanpose",
        "pipeline_tag": "keypoint-detection",
        "tags": ["leanpose", "pose-estimation", "sdpose_t", "lsp14"],
        "license": "other",
        "license_name": "terms-in-this-card",
        "datasets": ["people", "us/more-people"],
    }
    cost = model_cost("sdpose_t", skeleton="lsp14", **card["config"])
    for said in (
        "14 keypoints: right_ankle, right_knee", "64×48 (height × width)", f"| {card['parameters'] / 1e6:.2f} M |",
        f"| {cost.macs / 1e9:.2f}, with attention ", "| AP on people | 0.5 |", *(f"- {data}\n" for data in card["training_data"]),
        "research alone", "Beware.", "leanpose.PoseEstimator('model.safetensors')",
    ):  # fmt: skip
        assert said in readme.text, said


def test_names_in_a_readme_are_no_markup(tmp_path: Path) -> None:
    model, name = small(), "<b>a|b</b>\n# c [d](e) `f`"
    model.save_pretrained(tmp_path, training_data=[name], licence="mit", metrics={name: 1.0}, notes=name)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    plain = r"\<b>a\|b\</b> # c \[d](e) \`f\`"
    assert f"| {plain} | 1.0 |" in text
    assert text.count(f"- {plain}\n") == 2
    metadata = ModelCard(text).data.to_dict()
    assert metadata["license"] == "mit"
    assert "datasets" not in metadata


def test_fresh_and_changed_weights_need_their_data_terms_and_figures(hub: StandInHub, tmp_path: Path) -> None:
    model = small()
    with pytest.raises(
        LeanposeError, match=r"The origin of the weights .* give training_data=, licence=, metrics= \(empty if none\)"
    ):
        model.push_to_hub("me/mine")
    with pytest.raises(LeanposeError, match=r"give training_data=, metrics= \(empty if none\)"):
        model.save_pretrained(tmp_path / "mine", licence="MIT")
    with pytest.raises(LeanposeError, match="need a licence: licence= is empty"):
        model.push_to_hub("me/mine", training_data=[], licence=" ", metrics={})
    assert hub.repositories == {}
    assert not (tmp_path / "mine").exists()
    model.save_pretrained(tmp_path / "mine", **STATED, notes="fresh")
    loaded = PoseModel.from_pretrained(tmp_path / "mine")
    loaded.push_to_hub("me/mine", metrics={"AP on people": 0.6})  # what is stated goes before what the file said
    assert describe("hf://me/mine")["training_data"] == ["people"]
    assert describe("hf://me/mine")["metrics"] == {"AP on people": 0.6}
    with torch.no_grad():
        next(loaded.parameters()).add_(1)
    with pytest.raises(
        LeanposeError, match="have changed since they were loaded, so the file's card no longer applies; give"
    ):
        loaded.save_pretrained(tmp_path / "mine")
    loaded.save_pretrained(tmp_path / "mine", **STATED)
    assert describe(tmp_path / "mine" / "model.safetensors")["notes"] == ""
    load_weights(loaded, tmp_path / "mine" / "model.safetensors")
    loaded.save_pretrained(tmp_path / "mine")  # known again


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_weights_stored_in_few_bits_are_known_again(tmp_path: Path, dtype: torch.dtype) -> None:
    small().save_pretrained(tmp_path / "few", **STATED, dtype=dtype)
    loaded = PoseModel.from_pretrained(tmp_path / "few")
    loaded.save_pretrained(tmp_path / "whole")
    assert same_weights(loaded, PoseModel.from_pretrained(tmp_path / "whole"))


def test_a_push_that_is_refused_is_one_sentence(hub: StandInHub, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(file)
    refused: dict[str, dict[str, Any]] = {
        r"gives this account no permission for me/pose \(status 403\); `hf auth login`": {"token": READER},
        "'me/pose' has no revision 'next'": {"branch": "next"},
    }
    for sentence, options in refused.items():
        with pytest.raises(LeanposeError, match=sentence):
            model.push_to_hub("me/pose", **options)
    with pytest.raises(LeanposeError, match=r"names a revision, which only loading takes; give branch='v1'\."):
        model.push_to_hub("me/pose@v1")
    hub.objection = '"datasets[0]" with value "two words" is not valid.'
    with pytest.raises(
        LeanposeError, match=r'does not take hf://me/pose: Invalid metadata in README\.md\. - "datasets\[0\]"'
    ):
        model.push_to_hub("me/pose")
    hub.broken = True
    with pytest.raises(LeanposeError, match="answers with status 500 about me/pose"):
        model.push_to_hub("me/pose")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LeanposeError, match=r"^http://127\.0\.0\.1:9 cannot be reached: "):
        model.push_to_hub("me/pose")


def test_what_cannot_be_loaded_or_saved_here(file: Path, tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match=r"contains no model\.safetensors\.$"):
        PoseModel.from_pretrained(tmp_path)
    with pytest.raises(LeanposeError, match="is not a hub address"):
        PoseModel.from_pretrained(tmp_path / "missing")
    with pytest.raises(LeanposeError, match=r"names another revision than revision='v2'"):
        PoseModel.from_pretrained("me/pose@v1", revision="v2")
    with pytest.raises(LeanposeError, match="skeleton, pretrained and overrides cannot be given"):
        leanpose.create_model("hf://me/pose", skeleton="lsp14")
    (tmp_path / "model.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(LeanposeError, match="contains 'sdpose_t', a TokenPose, not a HeatmapModel"):
        HeatmapModel.from_pretrained(tmp_path)
    unknown = PoseModel("a_file.onnx", BackendConfig((64, 48)), small().skeleton)
    with pytest.raises(LeanposeError, match=r"'a_file\.onnx' is not a registered model"):
        unknown.save_pretrained(tmp_path, **STATED)
    (tmp_path / "file").write_text(json.dumps({}))
    with pytest.raises(LeanposeError, match=r"Cannot write .*file"):
        small().save_pretrained(tmp_path / "file", **STATED)
