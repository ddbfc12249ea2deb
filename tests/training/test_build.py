"""What a training starts from: weights of a model with other keypoints, or with several rows of the head for each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml

from leanpose.codecs import ScoreCalibration
from leanpose.codecs.base import Heatmaps
from leanpose.data.dataset import TopDownDataset
from leanpose.data.pack_file import PackConfig
from leanpose.data.pack_writer import pack_people
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.models.registry import create_model
from leanpose.skeleton import COCO17
from leanpose.training import build
from leanpose.training.build import build_model, build_trainer
from leanpose.training.recipe import load_recipe, parse_recipe
from leanpose.weights import save_model
from tiny import TINY_MODEL, tiny_recipe, write_tiny_coco

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("upsample", [1, 2])
def test_a_start_with_other_keypoints_gives_the_common_ones_their_rows(tmp_path: Path, upsample: int) -> None:
    options: dict[str, Any] = {"input_size": [64, 32]}
    start = create_model("tinypose", skeleton="crowdpose14", **options).eval()
    save_model(start, tmp_path / "start.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    changes = {
        "model": "tinypose",
        "model_options": {**options, "head_upsample": upsample},
        "skeleton": "body19",
        "distillation": {"method": "none"},
        "init_from": str(tmp_path / "start.safetensors"),
        "strict": False,
    }
    model = build_model(parse_recipe(tiny_recipe(tmp_path, **changes))).eval()
    images = torch.rand(1, 3, 64, 32)
    found, expected = model(images).prediction, start(images).prediction
    assert isinstance(found, Heatmaps)
    assert isinstance(expected, Heatmaps)
    assert found.heatmaps.shape == (1, 19, 16 * upsample, 8 * upsample)
    common = [
        (own, start.skeleton.keypoints.index(name))
        for own, name in enumerate(model.skeleton.keypoints)
        if name in start.skeleton.keypoints
    ]
    assert len(common) == 14
    for own, other in common:
        same = expected.heatmaps[0, other].repeat_interleave(upsample, 0).repeat_interleave(upsample, 1)
        torch.testing.assert_close(found.heatmaps[0, own], same)


def test_a_start_gives_the_keypoints_that_it_knows_its_calibration(tmp_path: Path) -> None:
    """Without it 60 people's fine-tuning began 0.65 AP below its start."""
    file = tmp_path / "start.safetensors"
    start = create_model("tinypose", skeleton="crowdpose14", input_size=(64, 32)).eval()
    names = start.skeleton.keypoints
    start.codec = start.codec.with_calibration(ScoreCalibration(1.5, tuple(float(k) for k in range(len(names)))))
    save_model(start, file, training_data=[], licence="Apache-2.0", metrics={})

    def built(keypoints: list[str], **changes: Any) -> ScoreCalibration | None:
        skeleton = tmp_path / "some.yaml"
        skeleton.write_text(yaml.safe_dump({"name": "some", "keypoints": keypoints}))
        values = {
            "model": "tinypose",
            "model_options": {"input_size": [64, 32]},
            "skeleton": str(skeleton),
            "distillation": {"method": "none"},
            "init_from": str(file),
            "strict": False,
            **changes,
        }
        return build_model(parse_recipe(tiny_recipe(tmp_path, **values))).codec.calibration

    kept = ScoreCalibration(1.5, (3.0, 0.0))
    assert built([names[3], names[0]]) == kept
    assert built([names[3], "nose"]) is None, "nobody knows how sure it is of a nose"
    assert built([names[3]], model="rtmpose_t", init_from=None, pretrained=None) is None
    # What a resumed run reads: the recipe that was written with the codec of the first start.
    assert built([names[3], names[0]], codec={"calibration": kept.to_dict()}, init_from=None) == kept
    with pytest.raises(LeanposeError, match=r"codec\.calibration has 2 offsets; 'tinypose' predicts 1 keypoints"):
        built([names[3]], codec={"calibration": kept.to_dict()})


def test_a_start_that_gives_little_or_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start = create_model("tokenpose_s_v1", **TINY_MODEL)
    save_model(start, tmp_path / "start.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    values = {"model": "tokenpose_s_v1", "distillation": {"method": "none"}, "strict": False}
    values |= {"init_from": str(tmp_path / "start.safetensors"), "skeleton": "coco17"}
    build_model(parse_recipe(tiny_recipe(tmp_path, **values, model_options={**TINY_MODEL, "depth": 2})))
    assert not caplog.messages
    build_model(parse_recipe(tiny_recipe(tmp_path, **values, model_options={**TINY_MODEL, "depth": 20})))
    assert re.search(r"Only \d+% of the parameters of 'tokenpose_s_v1' match .*start\.safetensors", caplog.text)
    # Of another network only the rows of common keypoints would fit.
    values |= {"model": "movenet_topdown", "model_options": {"input_size": [64, 32]}, "init_from": "leanpose-body-s"}
    with pytest.raises(
        LeanposeError, match="No tensor of leanpose-body-s, a 'tinypose', matches the recipe's 'movenet_top"
    ):
        build_model(parse_recipe(tiny_recipe(tmp_path, **values)))


RELEASED_STARTS = [f for f in sorted(RECIPES.rglob("*.yaml")) if "init_from: leanpose" in f.read_text()]


@pytest.mark.parametrize("file", RELEASED_STARTS, ids=lambda file: file.stem)
def test_a_recipe_starts_from_weights_that_fit(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    build_model(load_recipe(file))
    assert not caplog.messages


def test_jpegs_are_decoded_on_the_device_where_that_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_tiny_coco(tmp_path / "data", people=4).parent
    people = read_people(
        DatasetConfig.model_validate(tiny_recipe(data)["data"]["train"][0]), COCO17, data, training=True
    )
    pack_people([people], COCO17, PackConfig((64, 48), encoding="jpeg"), tmp_path / "crops.pack")

    def decodes(said: list[str], **changes: Any) -> bool:
        source = {**tiny_recipe(data)["data"], "cache": str(tmp_path / "crops.pack"), "val": None, **changes}
        recipe = parse_recipe({**tiny_recipe(data), "data": source}, "tiny")
        run = tmp_path / "run"
        trainer = build_trainer(recipe, run, run, resume=False, device="cpu", quiet=True, say=said.append)
        assert trainer.log is not None
        trainer.log.close()
        return cast(TopDownDataset, trainer.dataset).decode_on_device

    said: list[str] = []
    assert decodes(said, warp_on_device=True, decode_on_device=True)
    assert not decodes(said, warp_on_device=True), "a CPU has no decoder of its own"
    with pytest.raises(LeanposeError, match=r"data\.decode_on_device=true needs data\.warp_on_device=true"):
        decodes(said, decode_on_device=True)
    with pytest.raises(LeanposeError, match="decode_on_device needs warp_on_device"):
        decodes(said, decode_on_device=True, warp_on_device=False)
    monkeypatch.setattr(build, "has_decoder", lambda _device: True)
    assert decodes(said, warp_on_device=True)
    assert not decodes(said)
    monkeypatch.setattr(build, "why_not_decoded", lambda _device: "it is built without nvJPEG")
    assert not [sentence for sentence in said if "decoded" in sentence]
    assert not decodes(said, warp_on_device=True)
    assert [sentence for sentence in said if "decoded" in sentence] == [
        "JPEG crops are decoded by the DataLoader workers, since torchvision cannot do it on cpu: it is built without nvJPEG"
    ]
    with pytest.raises(LeanposeError, match="torchvision cannot decode JPEG on cpu: it is built without nvJPEG"):
        decodes(said, warp_on_device=True, decode_on_device=True)


@pytest.mark.parametrize(("loss", "told"), [("codec", True), ("rle", False)])
def test_who_leaves_deviations_untrained_is_told(tmp_path: Path, loss: str, told: bool) -> None:
    write_tiny_coco(tmp_path, people=2)
    options = {"backbone": "tinypose", "input_size": [64, 32]}
    changes = {"model": "rle_r50", "model_options": options, "distillation": {"method": "none"}, "loss": loss}
    said: list[str] = []
    recipe = parse_recipe(tiny_recipe(tmp_path, **changes))
    build_trainer(recipe, tmp_path / "run", tmp_path / "run", resume=False, device="cpu", quiet=True, say=said.append)
    sentence = "loss=codec does not train the sigma that 'rle_r50' uses as keypoint score; loss=rle does."
    assert (sentence in said) == told


@pytest.mark.parametrize(
    ("precision", "emulated", "told"), [("bf16", True, True), ("bf16", False, False), ("fp32", True, False)]
)
def test_a_cpu_without_bfloat16_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, emulated: bool, told: bool
) -> None:
    write_tiny_coco(tmp_path, people=2)
    monkeypatch.setattr(build, "emulates_bfloat16", lambda _device: emulated)
    said: list[str] = []
    recipe = parse_recipe(tiny_recipe(tmp_path, precision=precision))
    build_trainer(recipe, tmp_path / "run", tmp_path / "run", resume=False, device="cpu", quiet=True, say=said.append)
    assert any("emulates bfloat16" in sentence for sentence in said) == told
