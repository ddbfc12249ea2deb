"""What a conversion takes from a file, what it is told, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from golden_rules import OUTPUT_TOLERANCE, Golden
from leanpose import create_model, load_model
from leanpose.conversion.catalogue import Official
from leanpose.conversion.checkpoint import Checkpoint
from leanpose.conversion.convert import convert
from leanpose.errors import LeanposeError
from leanpose.weights import describe
from leanpose.weights.storage import NoInitWeights
from official_files import converted, deviation, official_weights, save


@pytest.mark.parametrize("file", ["vitpose_s_256x192", "deit_tiny_patch16_224"])
def test_networks_that_are_not_known_are_described(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    what = {"vitpo": "'backbone.", "deit_": "'cls_token'"}
    shapes = {
        key: torch.zeros(()).expand(shape)
        for key, shape, _ in Golden.load(shared, file).facts["keys"]
        if not key.startswith("head.") or not file.startswith("vitpose")
    }
    # No file of that few numbers would be read.
    monkeypatch.setattr("leanpose.conversion.convert.read_checkpoint", lambda _: Checkpoint(shapes))
    with pytest.raises(
        LeanposeError, match=f"is not recognised from its .* such as {what[file[:5]]}.*; supported are RTMPose"
    ):
        converted({}, tmp_path)


@pytest.fixture(scope="module")
def rtmpose(shared: Path) -> dict[str, Tensor]:
    return Golden.load(shared, "rtmpose_t_wholebody133_256x192").state_dict()


def distiller(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        **{f"teacher.{key}": value for key, value in teacher.items()},
        **{f"student.{key}": value for key, value in student.items()},
        "data_preprocessor.mean": torch.zeros(3, 1, 1),
    }


def test_stage_1_of_dwpose_gives_its_student(shared: Path, tmp_path: Path, rtmpose: dict[str, Tensor]) -> None:
    golden = Golden.load(shared, "rtmpose_t_wholebody133_256x192")
    teacher = Golden.load(shared, "rtmpose_s_wholebody133_256x192").state_dict()
    weights = {**distiller(rtmpose, teacher), "distill_losses.loss_fea.align.weight": torch.zeros(512, 384, 1, 1)}
    done = converted(weights, tmp_path)
    assert done.model == "dwpose_t"
    assert "the student of a distillation (stage 1) was taken" in done.notes
    assert deviation(golden, done.path) < OUTPUT_TOLERANCE


def test_stage_2_of_dwpose_joins_the_teachers_backbone_and_the_students_head(
    shared: Path, tmp_path: Path, rtmpose: dict[str, Tensor]
) -> None:
    golden = Golden.load(shared, "rtmpose_t_wholebody133_256x192")
    is_backbone = {key: key.startswith("backbone.") for key in rtmpose}
    student = {key: torch.zeros_like(value) if is_backbone[key] else value for key, value in rtmpose.items()}
    teacher = {key: value if is_backbone[key] else torch.zeros_like(value) for key, value in rtmpose.items()}
    done = converted(distiller(student, teacher), tmp_path)
    assert any("as after stage 2 of DWPose" in note for note in done.notes)
    assert deviation(golden, done.path) < OUTPUT_TOLERANCE
    first = converted(distiller(student, teacher), tmp_path, stage=1)
    assert load_model(first.path).get_parameter("backbone.stem.0.conv.weight").abs().max() == 0


def test_half_precision_and_a_wrapped_average_come_through(tmp_path: Path, rtmpose: dict[str, Tensor]) -> None:
    half = {f"module.{key}": value.half() for key, value in rtmpose.items()}
    source = save({"ema_state_dict": {**half, "steps": torch.tensor(5)}, "optimizer": {}}, tmp_path)
    done = convert(source, tmp_path / "new.safetensors")
    loaded = load_model(done.path).get_parameter("bins_x.weight")
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded, rtmpose["head.cls_x.weight"], rtol=1e-3, atol=1e-6)


def test_the_files_own_words_tell_keypoints_size_and_codec(tmp_path: Path) -> None:
    weights = convolutional(keypoints=14)
    names = dict(enumerate(f"point_{i}" for i in range(14)))
    meta = {
        "cfg": "codec = dict(\n    type='UDPHeatmap', input_size=(288, 384), heatmap_size=(72, 96), sigma=3)",
        "dataset_meta": {
            "dataset_name": "aic",
            "keypoint_id2name": names,
            "skeleton_links": [(0, 1), (1, 2)],
            "sigmas": np.full(14, 0.07, np.float32),
        },
    }
    source = save({"meta": meta, "state_dict": weights}, tmp_path)
    model = load_model(convert(source, tmp_path / "new.safetensors").path)
    assert model.input_size == (384, 288)
    assert model.skeleton.keypoints == tuple(names.values())
    assert model.skeleton.limbs == ((0, 1), (1, 2))
    assert model.skeleton.sigmas == (0.07,) * 14
    assert model.codec.warp == "udp"
    assert model.codec.to_dict()["encoding"] == "udp"


def convolutional(keypoints: int, backbone: str | None = None) -> dict[str, Tensor]:
    """SimpleBaseline by mmpose's names."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"backbone": backbone} if backbone else {}
    with NoInitWeights():
        model = create_model("simplebaseline_r50", skeleton="coco17" if keypoints == 17 else "crowdpose14", **options)
    for parameter in model.parameters():
        parameter.data.fill_(0.01)
    names = {"deconvolutions": "head.deconv_layers", "head": "head.final_layer", "backbone": "backbone"}
    return {names[key.split(".")[0]] + key[key.index(".") :]: value for key, value in model.state_dict().items()}


def test_a_depth_that_no_model_has_is_said(tmp_path: Path) -> None:
    source = save({"state_dict": convolutional(keypoints=17, backbone="resnet18")}, tmp_path)
    with pytest.raises(LeanposeError, match="is a SimpleBaseline of a size that no leanpose model has"):
        convert(source, tmp_path / "new.safetensors")


def test_the_size_is_that_of_the_files_name_where_nothing_else_tells(tmp_path: Path) -> None:
    named = save({"state_dict": convolutional(keypoints=17)}, tmp_path, "res50_coco_384x288-e6f795e9.pth")
    done = convert(named, tmp_path / "new.safetensors")
    assert done.input_size == (384, 288)
    assert any("going by the file's name (--input-size says otherwise)" in note for note in done.notes)
    codec = describe(done.path)["codec"]
    assert (codec["encoding"], codec["decoding"]) == ("msra", "quarter")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skeleton": "coco17"}, "predicts 133 keypoints, but the skeleton 'coco17' has 17"),
        ({"input_size": (384, 288)}, "weights are for crops of 256x192, not 384x288"),
        ({"model": "rtmpose_tt"}, "Unknown model 'rtmpose_tt'; did you mean 'rtmpose_t'"),
        ({"model": "rtmpose_m"}, "do not (fit|match) 'rtmpose_m'"),
        ({"model": "sdpose_t"}, "do not (fit|match) 'sdpose_t'"),
        ({"stage": 2}, "the student of|"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    tmp_path: Path, rtmpose: dict[str, Tensor], arguments: dict[str, Any], message: str
) -> None:
    if "stage" in arguments:  # says nothing of a file without a teacher
        assert converted(rtmpose, tmp_path, **arguments).family == "RTMPose"
        return
    with pytest.raises(LeanposeError, match=message):
        converted(rtmpose, tmp_path, **arguments)
    assert not (tmp_path / "new.safetensors").exists()


def test_what_the_file_does_not_tell_is_asked(shared: Path, tmp_path: Path) -> None:
    weights = official_weights(Golden.load(shared, "ppt_s"))
    with pytest.raises(LeanposeError, match="matches ppt_s and tokenpose_s_v1, which compute different things"):
        converted(weights, tmp_path)
    learnt = {**weights, "features.pos_embedding": torch.zeros(1, 256, 192)}
    with pytest.raises(LeanposeError, match="is not the fixed one of sines"):
        converted(learnt, tmp_path, model="ppt_s")


def test_settings_that_the_name_does_not_tell_are_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("rle_r50", backbone="resnet18")
    weights = {key.replace("head.", "head.fc."): value for key, value in model.state_dict().items()}
    done = converted(weights, tmp_path)
    assert done.model == "rle_r50"
    assert "other than the usual rle_r50: backbone=resnet18" in done.notes
    assert load_model(done.path).config == model.config


def test_unknown_keypoints_are_asked_for(tmp_path: Path, rtmpose: dict[str, Tensor]) -> None:
    weights = {**rtmpose, "head.final_layer.weight": rtmpose["head.final_layer.weight"][:26]}
    weights["head.final_layer.bias"] = rtmpose["head.final_layer.bias"][:26]
    with pytest.raises(LeanposeError, match=r"predicts 26 keypoints without names; give a skeleton \(--skeleton"):
        converted(weights, tmp_path)
    skeleton = tmp_path / "mine.yaml"
    skeleton.write_text("name: mine\nkeypoints: [" + ", ".join(f"p{i}" for i in range(26)) + "]\n")
    assert converted(weights, tmp_path, skeleton=skeleton).skeleton == "mine"


def test_the_catalogue_fills_the_card_of_a_file_that_it_knows(
    tmp_path: Path, rtmpose: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Official(
        name="dwpose-t",
        url="https://example.org/dwpose.pth",
        sha256="",  # fits every file
        model="rtmpose_t",
        input_size=(256, 192),
        skeleton="coco_wholebody133",
        published={"whole AP": 48.5},
        training_data=("UBody",),
        licence="theirs",
        source="https://example.org",
    )
    monkeypatch.setattr("leanpose.conversion.catalogue.official_checkpoints", lambda: {"dwpose-t": entry})
    done = converted(rtmpose, tmp_path)
    card = describe(done.path)
    assert done.official == entry
    assert (card["training_data"], card["licence"]) == (["UBody"], "theirs")
    assert card["metrics"] == {"whole AP, published": 48.5}
    assert "published as https://example.org/dwpose.pth" in card["notes"]
    card = describe(converted(rtmpose, tmp_path, training_data=["mine"], licence="CC0").path)
    assert (card["training_data"], card["licence"]) == (["mine"], "CC0")


def test_only_safetensors_are_written(tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match=r"the name must end in \.safetensors"):
        convert(tmp_path / "a.pth", tmp_path / "b.pth")
