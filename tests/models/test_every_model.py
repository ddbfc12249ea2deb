"""What every registered model that finds poses must do."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch

from leanpose.codecs import CoordinateCodec
from leanpose.codecs.base import Prediction
from leanpose.losses.rle import RLELoss
from leanpose.models.backbones import Backbone, HRNet, LiteHRNet
from leanpose.models.backbones.timm_networks import MobileNetV2, ResNet
from leanpose.models.base import PoseModel
from leanpose.models.movenet import MoveNet
from leanpose.models.poseur import Poseur
from leanpose.models.registry import configure_model, create_model, list_models, model_entry, model_table
from leanpose.models.tfpose import TFPose
from leanpose.models.transpose import ResNetS

# The same code as a smaller sibling that is tested.
DEEPER = {
    "litehrnet_30",
    "movenet_thunder",
    "simplebaseline_r101",
    "simplebaseline_r152",
    "hrnet_w48",
    "deeppose_r101",
    "deeppose_r152",
    "rtmpose_l",
    "rtmpose_x",
    "dwpose_s",
    "dwpose_m",
    "dwpose_l",
    "vitpose_b",
    "tfpose_r50",
    "poseur_r50",
    "hourglass_1",
    "hourglass_4",
    "hourglass_8",
    "mspn50_1",
    "transpose_r_a4",
    "transpose_h_a4",
    "transpose_h_a6",
}

NAMES = sorted(set(list_models(task="pose")) - DEEPER)

# Branches from whose heights MoveNet chooses cells, which has no gradient.
CHOOSING = {"movenet_lightning": ("heatmaps.", "backbone.keypoints.", "center.", "regression.")}


def parts_of(name: str) -> set[tuple[Any, ...]]:
    """What decides which code a model runs, its backbone's family and its head: sizes alone make no other graph."""
    config = configure_model(name)
    written = ("outputs", "score", "backbone_stages", "decoder")
    family = getattr(config, "backbone", "").replace("wider_naive_litehrnet_18", "tinypose").split("_")[0]
    pruned = bool(getattr(config, "prune_layers", ()))
    head = (type(config), pruned, *(getattr(config, field, None) for field in written))
    return {("backbone", family), head}


def with_every_part(names: list[str]) -> set[str]:
    """The cheapest models that together have all parts."""
    chosen, seen = set[str](), set[tuple[Any, ...]]()
    for name in sorted(names, key=lambda name: model_table()[name].macs):
        if not parts_of(name) <= seen:
            chosen.add(name)
            seen |= parts_of(name)
    return chosen


WITH_EVERY_PART = with_every_part(NAMES)
TO_ONNX = {"rtmpose_t", "sdpose_t", "tfpose_r18"}
"""What tests/export exports whole, by the same tracing and with any batch size."""


def cut_repetitions(backbone: Backbone) -> None:
    """One module for each stage of an HRNet, and one block for each branch or stage, where the network repeats them."""
    if isinstance(backbone, HRNet):
        stages = [stage for stage in (backbone.stage2, backbone.stage3, backbone.stage4) if stage is not None]
        for stage in stages:
            del stage[:-1]  # the last one, since it may write fewer branches
            for branch in stage[0].branches:
                del branch[1:]
    elif isinstance(backbone, LiteHRNet):
        for stage in backbone.stages:
            assert isinstance(stage, torch.nn.Sequential)
            del stage[1:]
    elif isinstance(backbone, MobileNetV2):
        for stage in backbone.blocks:
            del stage[1:]
    elif isinstance(backbone, ResNetS):
        for layer in (backbone.layer1, backbone.layer2):
            del layer[1:]
    elif isinstance(backbone, ResNet):
        for layer in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
            del layer[1:]


def small_model(name: str) -> PoseModel:
    """Small input, and few layers where there is a choice, for speed."""
    backbone = getattr(configure_model(name), "backbone", "")
    coarse = (
        backbone.startswith(("resnet", "cspnext", "mobilenet", "movenet", "tinypose"))
        or name.startswith("mspn")
        or (getattr(configure_model(name), "backbone_stages", 4) == 4 and "hrnet" in backbone)
    )
    overrides: dict[str, Any] = {"input_size": (64, 96) if coarse else (64, 48)}
    repeated = {"depth", "encoder_layers", "decoder_layers"}
    overrides |= dict.fromkeys(repeated & {field.name for field in dataclasses.fields(configure_model(name))}, 2)
    if hasattr(configure_model(name), "prune_layers"):
        overrides["prune_layers"] = (0, 1)
    if backbone == "stem":
        overrides["stage1_blocks"] = 2
    if name.startswith("hourglass"):
        overrides |= {"stage_channels": (16, 16, 24), "stage_blocks": (1, 1, 1)}
    if name.startswith("mspn"):
        overrides |= {"num_stages": 2, "num_blocks": (1, 1, 1, 1), "unit_channels": 32}
    model = create_model(name, **overrides)
    cut_repetitions(model.backbone)
    if isinstance(model, TFPose):  # whose fresh points hardly depend on the image
        for refinement in model.refinements:
            assert isinstance(refinement, torch.nn.Sequential)
            torch.nn.init.normal_(refinement[-1].get_parameter("weight"), std=0.1)
    return model


def values(prediction: Prediction) -> torch.Tensor:
    """All that a prediction holds, in a row."""
    parts = [getattr(prediction, field.name) for field in dataclasses.fields(prediction)]
    return torch.cat([part.flatten(1) for part in parts if part is not None], dim=1)


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> PoseModel:
    torch.manual_seed(0)
    return small_model(request.param)


@pytest.fixture
def images(model: PoseModel) -> torch.Tensor:
    return torch.randn(2, 3, *model.input_size, generator=torch.Generator().manual_seed(0))


def test_it_is_ready_for_inference(model: PoseModel, images: torch.Tensor) -> None:
    assert not model.training
    with torch.inference_mode():
        output = model(images)
    points, scores = model.codec.decode(output.prediction)
    keypoints = 133 if model.name.startswith("dwpose") else 17
    assert points.shape == (2, keypoints, 2)
    assert scores.shape == (2, keypoints)
    assert output.cycles == ()
    assert all(p.isfinite().all() for p in (points, scores))


def test_training_gives_the_inference_result_and_more(model: PoseModel, images: torch.Tensor) -> None:
    with torch.inference_mode():
        trained, inferred = model.forward_train(images), model(images)
    torch.testing.assert_close(values(trained.prediction), values(inferred.prediction))
    assert len(trained.cycles) == (model.config.cycles if "cycles" in model.provides else 0)


def test_it_provides_what_it_says(model: PoseModel, images: torch.Tensor) -> None:
    with torch.inference_mode():
        output = model.forward_train(images)
    given = {
        "tokens": output.keypoint_tokens is not None and output.visual_tokens is not None,
        "cycles": bool(output.cycles),
        "layers": bool(output.aux_outputs),
    }
    assert {name for name, there in given.items() if there} == model.provides & given.keys()
    assert model.separable_head == (type(model).forward_head is not PoseModel.forward_head)
    assert model.num_cycles == max(len(output.cycles), 1)
    if "tokens" in model.provides:
        assert output.keypoint_tokens is not None
        assert model.token_dim == output.keypoint_tokens.shape[-1]
    if "features" in model.provides:
        assert output.features is not None
        assert output.features.shape[:2] == (2, model.backbone.channels)
    sigma, score = (getattr(output.prediction, name, None) is not None for name in ("sigma", "score"))
    assert sigma == bool(model.provides & {"heatmap_sigma", "rle_sigma"})
    # The scores of TFPose and Poseur are not learned, and MoveNet's is the height of a heatmap, so no loss can compare them.
    assert score == ("score" in model.provides or isinstance(model, (TFPose, Poseur, MoveNet)))


def test_gradient_reaches_every_parameter_that_is_trained(model: PoseModel, images: torch.Tensor) -> None:
    model = copy.deepcopy(model).train()
    output = model.forward_train(images)
    keypoints = len(model.skeleton)
    target = model.codec.encode(torch.rand(2, keypoints, 2) * 48, torch.ones(2, keypoints))
    predictions = output.aux_outputs or [cycle.prediction for cycle in output.cycles or (output,)]
    criterion = RLELoss() if "rle_sigma" in model.provides else model.codec
    torch.stack([criterion.loss(prediction, target) for prediction in predictions]).sum().backward()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    without = [n for n, p in trained if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == [n for n, _ in model.named_parameters() if n.startswith(CHOOSING.get(model.name, ()))]


def test_state_round_trip(model: PoseModel, images: torch.Tensor) -> None:
    torch.manual_seed(1)
    other = small_model(model.name)
    other.load_state_dict(model.state_dict(), strict=True)
    with torch.inference_mode():
        assert torch.equal(values(other(images).prediction), values(model(images).prediction))


def test_it_runs_in_bfloat16(model: PoseModel, images: torch.Tensor) -> None:
    with torch.inference_mode():
        exact = values(model(images).prediction)
        with torch.autocast("cpu", torch.bfloat16):
            rough = values(model(images).prediction)
    # Heatmaps may be coarse; coordinates may not: bfloat16 knows 128 of them between the middle and the border.
    coordinates = isinstance(model.codec, CoordinateCodec)
    assert rough.dtype == (torch.float32 if coordinates else torch.bfloat16)
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.05 * float(exact.abs().max()))


@pytest.mark.unshaped
@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=() if name in WITH_EVERY_PART - TO_ONNX else pytest.mark.slow) for name in NAMES],
    indirect=True,
)
def test_it_exports_with_any_batch_size(model: PoseModel, images: torch.Tensor) -> None:
    exported = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    more = torch.randn(3, 3, *model.input_size)
    with torch.inference_mode():
        torch.testing.assert_close(values(exported.module()(more).prediction), values(model(more).prediction))


@pytest.mark.parametrize(
    "name",
    [
        *("tokenpose_t", "sdpose_t", "ppt_s", "rtmpose_t"),  # with a stem alone, cycles, pruning, a whole backbone
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("sdpose_b", "simplebaseline_r50", "tfpose_r18")),
    ],
)
@pytest.mark.unshaped
def test_it_compiles_in_one_graph(name: str) -> None:
    model = small_model(name)
    images = torch.randn(2, 3, *model.input_size)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(values(compiled(images).prediction), values(model(images).prediction))


def test_its_docstring_and_source_say_where_it_comes_from(model: PoseModel) -> None:
    entry = model_entry(model.name)
    assert len(entry.summary) > 20
    assert entry.source
    assert entry.published_metric is None or f"{entry.published_metric}" in (entry.configure.__doc__ or "")


@pytest.mark.parametrize("name", list_models("dwpose_*"))
def test_a_models_own_skeleton_gives_way_to_another(name: str) -> None:
    entry = model_entry(name)
    assert entry.metric == "whole body"
    assert f"{entry.published_metric} whole-body AP" in entry.summary
    with torch.device("meta"):
        whole, body = create_model(name), create_model(name, skeleton="coco17")
        assert (len(whole.skeleton), len(body.skeleton)) == (133, 17)
        prediction = whole(torch.empty(1, 3, 256, 192)).prediction
    assert prediction.x.shape == (1, 133, 384)
    assert prediction.y.shape == (1, 133, 512)
