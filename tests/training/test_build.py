"""What a training starts from: weights of a model with other keypoints, or with several rows of the head for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from leanpose.codecs import ScoreCalibration
from leanpose.codecs.base import Heatmaps
from leanpose.errors import LeanposeError
from leanpose.models.registry import create_model
from leanpose.training.build import build_model, build_trainer
from leanpose.training.recipe import parse_recipe
from leanpose.weights import save_model
from tiny import tiny_recipe, write_tiny_coco


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
    with pytest.raises(LeanposeError, match=r"codec\.calibration has 2 offsets; 'tinypose' finds 1 keypoints"):
        built([names[3]], codec={"calibration": kept.to_dict()})


@pytest.mark.parametrize(("loss", "told"), [("codec", True), ("rle", False)])
def test_who_leaves_deviations_untrained_is_told(tmp_path: Path, loss: str, told: bool) -> None:
    write_tiny_coco(tmp_path, people=2)
    options = {"backbone": "tinypose", "input_size": [64, 32]}
    changes = {"model": "rle_r50", "model_options": options, "distillation": {"method": "none"}, "loss": loss}
    said: list[str] = []
    recipe = parse_recipe(tiny_recipe(tmp_path, **changes))
    build_trainer(recipe, tmp_path / "run", tmp_path / "run", resume=False, device="cpu", quiet=True, say=said.append)
    sentence = "loss=codec does not train the deviations by which 'rle_r50' scores its keypoints; loss=rle does."
    assert (sentence in said) == told
