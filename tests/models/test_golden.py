"""The papers' own networks, number by number (golden/README.md gives rules and tolerance)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from golden_rules import OUTPUT_TOLERANCE, Golden, official_model
from leanpose.codecs.simcc import SimCCCodec
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.models.rtmpose import RTMPose
from leanpose.models.tokenpose import TokenPose
from leanpose.skeleton import Skeleton
from outputs import heatmaps, present

MPII16 = Skeleton("sixteen", tuple(f"point_{i}" for i in range(16)), (), (0.05,) * 16)
ORIGINAL_L: dict[str, Any] = {"stages": 3, "head_hidden": None}

# reference file, model, overrides
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("sdpose_t", "sdpose_t", {}),
    ("sdpose_s_v1", "sdpose_s_v1", {}),
    ("tokenpose_t", "tokenpose_t", {}),
    ("tokenpose_s_v1", "tokenpose_s_v1", {}),
    ("tokenpose_s_v2", "tokenpose_s_v2", {}),
    ("tokenpose_b", "tokenpose_b", {}),
    ("tokenpose_l_d24_256x192", "tokenpose_l_d6", {**ORIGINAL_L, "depth": 24, "num_heads": 12}),
    (
        "tokenpose_l_d6_mpii_256x256",
        "tokenpose_l_d6",
        {**ORIGINAL_L, "input_size": (256, 256), "patch_size": (4, 4), "skeleton": MPII16},
    ),
    ("sdrepo_tokenpose_t", "tokenpose_t", {}),
    ("sdrepo_tokenpose_s_v1", "tokenpose_s_v1", {"attention_scale": "head_dim"}),
    ("sdrepo_tokenpose_s_v2", "tokenpose_s_v2", {"attention_scale": "head_dim"}),
    ("sdrepo_tokenpose_b", "tokenpose_b", {"stage1_width": 32}),
    ("sdrepo_tokenpose_l_d6", "tokenpose_l_d6", {}),
    ("pptrepo_tokenpose_l_d6", "tokenpose_l_d6", {}),
    ("distilpose_teacher_hr48", "tokenpose_hrnet_w48", {}),
    ("distilpose_teacher_stemnet", "tokenpose_s_v1", {"attention_scale": "head_dim"}),
    # The repositories' attention scales differ; conversion makes up for it.
    ("sdrepo_tokenpose_s_v1", "tokenpose_s_v1", {}),
    ("tokenpose_s_v1", "sdpose_s_v1", {}),
]


@pytest.mark.parametrize(("file", "name", "overrides"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_outputs_of_every_cycle_are_the_papers(shared: Path, file: str, name: str, overrides: dict[str, Any]) -> None:
    golden = Golden.load(shared, file)
    model = official_model(golden, name, **overrides)
    assert isinstance(model, TokenPose)
    assert sum(p.numel() for p in model.parameters()) == golden.facts["n_params_requires_grad"]
    first_stage: list[Any] = []
    model.layers[model.config.depth // model.config.stages - 1].register_forward_hook(
        lambda _module, _inputs, tokens: first_stage.append(tokens)
    )
    with torch.inference_mode():
        trained, inferred = model.forward_train(golden.images), model(golden.images)

    cycles = [prefix for prefix in ("cycle0.", "cycle1.", "cycle2.") if f"{prefix}pred" in golden.facts["outputs"]]
    # Some reference files hold one cycle only, of a model that has two.
    for cycle, prefix in zip(trained.cycles, cycles or [""], strict=bool(cycles)):
        keypoints, visual = cycle.keypoint_tokens, cycle.visual_tokens
        if model.config.stages > 1:  # of these models the tokens after the first stage were recorded
            keypoints, visual = first_stage[0].tensor_split([len(model.skeleton)], dim=1)
        assert keypoints is not None
        assert visual is not None
        assert golden.deviation(f"{prefix}pred", heatmaps(cycle)) < OUTPUT_TOLERANCE
        assert golden.deviation(f"{prefix}kpt_token", keypoints) < OUTPUT_TOLERANCE
        assert golden.deviation(f"{prefix}vis_token", visual) < OUTPUT_TOLERANCE
    first = trained.cycles[0]
    torch.testing.assert_close(heatmaps(inferred), heatmaps(first))
    torch.testing.assert_close(heatmaps(trained), heatmaps(first))
    if "backbone" in golden.facts["outputs"]:
        assert inferred.features is not None
        assert golden.deviation("backbone", inferred.features) < OUTPUT_TOLERANCE


PPT_L: dict[str, Any] = {"backbone": "hrnet_w48", "depth": 6}

# reference file, model, overrides, layers that drop tokens
PRUNED: list[tuple[str, str, dict[str, Any], tuple[int, ...]]] = [
    ("ppt_s", "ppt_s", {}, (3, 6, 9)),
    ("ppt_s", "sdpose_s_v1_ppt", {}, (3, 6, 9)),  # the same net: conversion makes up for the attention scale
    ("ppt_l_d6", "ppt_b", PPT_L, (3,)),
    ("pptrepo_tokenpose_l_d6", "ppt_b", {**PPT_L, "keep_ratio": 1.0}, (3,)),
]


@pytest.mark.parametrize(("file", "name", "overrides", "layers"), PRUNED, ids=lambda v: v if isinstance(v, str) else "")
def test_pruned_networks_are_the_papers(
    shared: Path, file: str, name: str, overrides: dict[str, Any], layers: tuple[int, ...]
) -> None:
    golden = Golden.load(shared, file)

    def network(pruned: int) -> tuple[PoseModel, PoseOutput]:
        options = {**overrides, "prune_layers": layers[:pruned]}
        model = official_model(golden, name, **options)
        with torch.inference_mode():
            return model, model(golden.images)

    # What each pruning keeps is the result of a network that stops there.
    networks = [network(pruned) for pruned in range(1, len(layers) + 1)]
    for pruned, (_, output) in enumerate(networks):
        expected = golden.arrays.get(f"prune{pruned}.kept_original_patch_idx")
        if expected is None:  # the reference that keeps all
            assert output.keep_indices is None
        else:
            assert present(output.keep_indices).tolist() == [sorted(indices) for indices in expected.tolist()]
    model, output = networks[-1]
    assert sum(p.numel() for p in model.parameters()) == golden.facts["n_params_requires_grad"]
    tokens = "vis_token" if output.keep_indices is None else "vis_token_sorted_by_patch"
    assert golden.deviation("pred", heatmaps(output)) < OUTPUT_TOLERANCE
    assert golden.deviation("kpt_token", present(output.keypoint_tokens)) < OUTPUT_TOLERANCE
    assert golden.deviation(tokens, present(output.visual_tokens)) < OUTPUT_TOLERANCE


CONVOLUTIONAL = [
    ("simplebaseline_res50_256x192", "simplebaseline_r50"),
    ("simplebaseline_res101_256x192", "simplebaseline_r101"),
    ("simplebaseline_res152_256x192", "simplebaseline_r152"),
    ("hrnet_w32_256x192", "hrnet_w32"),
]


REGRESSION = [
    ("deeppose_res50_256x192", "deeppose_r50"),
    ("deeppose_res101_256x192", "deeppose_r101"),
    ("deeppose_res152_256x192", "deeppose_r152"),
    ("rle_res50_256x192", "rle_r50"),
]


@pytest.mark.parametrize(("file", "name"), REGRESSION)
def test_regression_networks_are_the_toolboxs(shared: Path, file: str, name: str) -> None:
    golden = Golden.load(shared, file)
    model = official_model(golden, name)
    with torch.inference_mode():
        output = model(golden.images)
    expected = torch.from_numpy(golden.arrays["out"])
    tolerance = OUTPUT_TOLERANCE * golden.facts["outputs"]["out"]["abs_max"]
    torch.testing.assert_close(output.prediction.xy, expected[..., :2].float(), rtol=0, atol=tolerance)
    if output.prediction.sigma is not None:  # stored before the sigmoid, which cannot be undone near 0 and 1
        sigma = expected[..., 2:].float().sigmoid()
        torch.testing.assert_close(output.prediction.sigma, sigma, rtol=0, atol=tolerance / 4)
    assert output.features is not None
    assert golden.deviation("backbone[0]", output.features.mean(dim=(2, 3))) < OUTPUT_TOLERANCE


TOKEN_REGRESSION: list[tuple[str, str, dict[str, Any]]] = [
    ("distilpose_s", "distilpose_s", {}),
    ("distilpose_reg_stemnet", "distilpose_s", {"outputs": "xy"}),
    ("sdpose_reg_d12_h64", "sdpose_reg", {}),
    ("sdpose_reg_d12_h384", "sdpose_reg", {"head_hidden": 384}),
    ("sdpose_reg_d6_h64", "sdpose_reg", {"depth": 6}),
]


@pytest.mark.parametrize(("file", "name", "overrides"), TOKEN_REGRESSION, ids=lambda v: v if isinstance(v, str) else "")
def test_token_regression_networks_are_the_papers(
    shared: Path, file: str, name: str, overrides: dict[str, Any]
) -> None:
    golden = Golden.load(shared, file)
    model = official_model(golden, name, **overrides)
    with torch.inference_mode():
        output = model(golden.images)
    found = output.prediction
    assert golden.deviation("kpt_token", present(output.keypoint_tokens)) < OUTPUT_TOLERANCE
    assert golden.deviation("vis_token", output.visual_tokens) < OUTPUT_TOLERANCE
    if "score" in golden.facts["outputs"]:
        assert golden.deviation("score", found.score[..., None]) < OUTPUT_TOLERANCE
        assert golden.deviation("sigma", found.sigma) < OUTPUT_TOLERANCE
    if name == "sdpose_reg":
        together = torch.cat([found.xy, found.sigma], dim=-1)
        assert golden.deviation("inference_regression(sigma after sigmoid)", together) < OUTPUT_TOLERANCE
    else:
        assert golden.deviation("pred", found.xy) < OUTPUT_TOLERANCE
        assert sum(p.numel() for p in model.parameters()) == golden.facts["n_params_requires_grad"]


@pytest.mark.parametrize(("file", "name"), CONVOLUTIONAL)
def test_convolutional_networks_are_the_toolboxs(shared: Path, file: str, name: str) -> None:
    golden = Golden.load(shared, file)
    model = official_model(golden, name)
    assert sum(p.numel() for p in model.parameters()) == golden.facts["n_params_requires_grad"]
    with torch.inference_mode():
        output = model(golden.images)
    assert golden.deviation("out", heatmaps(output)) < OUTPUT_TOLERANCE
    assert output.features is not None
    assert golden.deviation("backbone[0]", output.features) < OUTPUT_TOLERANCE


def test_vitpose_is_the_toolboxs(shared: Path) -> None:
    golden = Golden.load(shared, "vitpose_s_256x192")
    model = official_model(golden, "vitpose_s")
    assert sum(p.numel() for p in model.parameters()) == golden.facts["n_params_requires_grad"]
    assert model.codec.warp == "udp"
    with torch.inference_mode():
        output = model(golden.images)
    assert output.features is not None
    assert golden.deviation("backbone[0]", output.features) < OUTPUT_TOLERANCE
    assert golden.deviation("out", heatmaps(output)) < OUTPUT_TOLERANCE


def test_vitpose_with_the_simple_decoder_is_the_toolboxs(shared: Path) -> None:
    golden = Golden.load(shared, "vitpose_s_simple_256x192")
    model = official_model(golden, "vitpose_s_simple")
    assert sum(p.numel() for p in model.parameters()) == golden.facts["n_params_requires_grad"]
    enlarged: list[torch.Tensor] = []
    model.get_submodule("deconvolutions").register_forward_hook(lambda _m, _i, output: enlarged.append(output))  # pyright: ignore[reportArgumentType]
    with torch.inference_mode():
        output = model(golden.images)
    assert golden.deviation("backbone[0]", enlarged[0]) < OUTPUT_TOLERANCE
    assert golden.deviation("out", heatmaps(output)) < OUTPUT_TOLERANCE


def test_simcc_is_the_toolboxs(shared: Path) -> None:
    golden = Golden.load(shared, "simcc_res50_256x192")
    model = official_model(golden, "simcc_r50")
    assert sum(p.numel() for p in model.parameters()) == golden.facts["n_params_requires_grad"]
    with torch.inference_mode():
        output = model(golden.images)
    assert output.features is not None
    assert golden.deviation("backbone[0]", output.features) < OUTPUT_TOLERANCE
    assert golden.deviation("simcc_x", output.prediction.x) < OUTPUT_TOLERANCE
    assert golden.deviation("simcc_y", output.prediction.y) < OUTPUT_TOLERANCE


@pytest.mark.parametrize(
    "file",
    [
        *(f"rtmpose_{size}_body17_256x192" for size in "tsml"),
        *(f"rtmpose_{size}_wholebody133_256x192" for size in "tsmlx"),
        "rtmpose_l_wholebody133_384x288",
    ],
)
def test_rtmpose_is_the_toolboxs(shared: Path, file: str) -> None:
    golden = Golden.load(shared, file)
    name = file[: len("rtmpose_x")]
    height, width = golden.facts["input_shape"][2:]
    overrides: dict[str, Any] = {"input_size": (height, width)}
    if "wholebody" in file and name == "rtmpose_x":
        overrides["skeleton"] = "coco_wholebody133"
    elif "wholebody" in file:
        name = name.replace("rtmpose", "dwpose")
    model = official_model(golden, name, **overrides)
    assert isinstance(model, RTMPose)
    assert sum(p.numel() for p in model.parameters()) == golden.facts["n_params_requires_grad"]
    codec = golden.facts["codec"]
    assert isinstance(model.codec, SimCCCodec)
    assert (list(model.codec.sigma), model.codec.simcc_split_ratio) == (codec["sigma"], codec["simcc_split_ratio"])
    inside: dict[str, torch.Tensor] = {}
    for part in ("maps", "embedding", "attention"):
        getattr(model, part).register_forward_hook(lambda _m, _i, output, part=part: inside.update({part: output}))
    with torch.inference_mode():
        output = model(golden.images)
    assert output.features is not None
    assert golden.deviation("backbone[0]", output.features) < OUTPUT_TOLERANCE
    assert golden.deviation("head_final_layer", inside["maps"]) < OUTPUT_TOLERANCE
    assert golden.deviation("head_mlp", inside["embedding"]) < OUTPUT_TOLERANCE
    assert golden.deviation("head_gau", inside["attention"]) < OUTPUT_TOLERANCE
    assert golden.deviation("simcc_x", output.prediction.x) < OUTPUT_TOLERANCE
    assert golden.deviation("simcc_y", output.prediction.y) < OUTPUT_TOLERANCE
