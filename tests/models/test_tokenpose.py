"""TokenPose's sizes, errors, and the parts that the reference numbers do not reach."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leanpose.codecs.base import Heatmaps
from leanpose.errors import LeanposeError
from leanpose.models import registry
from leanpose.models.layers import sine_position
from leanpose.models.registry import configure_model, create_model, list_models
from leanpose.models.tokenpose import TokenPose, TokenPoseConfig
from outputs import heatmaps


@settings(max_examples=15)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    patch=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    num_heads=st.sampled_from([1, 2, 4]),
    depth=st.integers(1, 3),
    cycles=st.integers(1, 3),
)
def test_any_size_that_fits_the_patches_works(
    rows: int, columns: int, patch: tuple[int, int], num_heads: int, depth: int, cycles: int
) -> None:
    size = (rows * patch[0] * 4, columns * patch[1] * 4)
    if min(size) < 8:  # a heatmap needs two pixels each way
        return
    model = create_model(
        "sdpose_t", skeleton="lsp14", input_size=size, patch_size=patch, num_heads=num_heads, depth=depth, cycles=cycles,
        embed_dim=16, stem_width=4, stage1_width=2, stage1_blocks=1, head_hidden=None,
    )  # fmt: skip
    with torch.inference_mode():
        output = model.forward_train(torch.randn(1, 3, *size))
    assert heatmaps(output).shape == (1, 14, size[0] // 4, size[1] // 4)
    assert output.visual_tokens is not None
    assert output.visual_tokens.shape == (1, rows * columns, 16)
    assert len(output.cycles) == cycles


def test_a_detectors_features_are_half_as_fine() -> None:
    model = create_model("sdpose_t", input_size=(128, 96), backbone="rtmdet_nano", patch_size=(2, 1), embed_dim=16)
    assert isinstance(model, TokenPose)
    assert model.config.grid_size == (8, 12)
    with torch.inference_mode():
        output = model.forward_train(torch.randn(1, 3, 128, 96))
    assert output.visual_tokens is not None
    assert output.visual_tokens.shape == (1, 8 * 12, 16)
    assert heatmaps(output).shape == (1, 17, 32, 24)
    with pytest.raises(LeanposeError, match="the height must be a multiple of 32, the width of 32"):
        create_model("sdpose_t", input_size=(144, 96), backbone="rtmdet_nano", patch_size=(2, 1))


def test_patches_are_cut_row_by_row_with_the_channel_fastest() -> None:
    model = create_model("sdpose_t", input_size=(32, 24), patch_size=(4, 3), embed_dim=48, num_heads=1, stem_width=4)
    assert isinstance(model, TokenPose)
    features = torch.arange(2 * 3 * 8 * 6, dtype=torch.float32).reshape(2, 3, 8, 6)
    model.patch_embedding = torch.nn.Identity()  # type: ignore[assignment]
    model.keypoint_tokens = torch.nn.Parameter(torch.zeros(1, 17, 36))
    model.position = torch.zeros(1, 17 + 4, 36)
    token = model.embed(features)[1, 17 + 1]  # second image, first row of patches, second column
    expected = [features[1, c, y, x] for y in range(4) for x in range(3, 6) for c in range(3)]
    assert token.tolist() == expected


def test_position_tells_rows_in_the_first_half_and_columns_in_the_second() -> None:
    grid = sine_position(3, 5, 8).reshape(3, 5, 8)
    assert torch.equal(grid[:, :1, :4].expand(3, 5, 4), grid[:, :, :4])
    assert torch.equal(grid[:1, :, 4:].expand(3, 5, 4), grid[:, :, 4:])
    assert grid[0, 0, :2].tolist() == pytest.approx([math.sin(2 * math.pi / 3), math.cos(2 * math.pi / 3)], abs=1e-5)
    assert grid[0, 1, 6].item() == pytest.approx(math.sin(2 * math.pi * 2 / 5 / 100), abs=1e-6)


def test_inference_computes_one_cycle_only() -> None:
    model = create_model("sdpose_t", input_size=(64, 48), embed_dim=16, depth=2)
    assert isinstance(model, TokenPose)
    calls = []
    for layer in model.layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    images = torch.randn(1, 3, 64, 48)
    with torch.inference_mode():
        model(images)
        assert len(calls) == 2
        model.forward_train(images)
        assert len(calls) == 2 + 2 * 3


def test_a_later_cycle_goes_on_from_the_tokens_of_the_one_before() -> None:
    model = create_model("sdpose_t", input_size=(64, 48), embed_dim=16, depth=2)
    assert isinstance(model, TokenPose)
    images = torch.randn(1, 3, 64, 48)
    with torch.inference_mode():
        output = model.forward_train(images)
        first = output.cycles[0]
        assert first.keypoint_tokens is not None
        assert first.visual_tokens is not None
        again, *_ = model.cycle(torch.cat([first.keypoint_tokens, first.visual_tokens], dim=1))
    assert isinstance(again, Heatmaps)
    torch.testing.assert_close(again.heatmaps, heatmaps(output.cycles[1]))


def test_gradients_in_bfloat16_are_those_of_float32() -> None:
    torch.manual_seed(0)
    model = create_model("sdpose_t", input_size=(64, 48), embed_dim=32, depth=2, stem_width=8, stage1_width=8)
    assert isinstance(model, TokenPose)
    images = torch.randn(4, 3, 64, 48)

    def gradient(*, rough: bool) -> torch.Tensor:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=rough):
            maps = [heatmaps(cycle) for cycle in model.forward_train(images).cycles]
        torch.cat(maps).float().square().mean().backward()
        return torch.cat([p.grad.flatten() for p in model.layers.parameters() if p.grad is not None])

    assert torch.cosine_similarity(gradient(rough=True), gradient(rough=False), dim=0) > 0.995


def test_fresh_weights_are_drawn_as_stated() -> None:
    torch.manual_seed(0)
    model = create_model("tokenpose_s_v1")
    state = model.state_dict()
    assert state["layers.3.mlp.0.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert state["keypoint_tokens"].std().item() == pytest.approx(0.02, rel=0.1)
    assert not state["layers.3.mlp.0.bias"].any()
    assert state["backbone.layer1.1.conv2.weight"].std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
    assert (state["backbone.bn1.weight"] == 1).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"input_size": (250, 192)}, "the height must be a multiple of 16, the width of 12"),
        ({"input_size": (0, 0)}, "input_size 0x0"),
        ({"input_size": (256,)}, "input_size"),
        ({"input_size": "large"}, "input_size='large' does not fit"),
        ({"embed_dim": 100, "num_heads": 8}, "embed_dim=100 is not divisible by num_heads=8"),
        ({"embed_dim": 18, "num_heads": 1}, "must be divisible by 4"),
        ({"depth": 7, "stages": 3}, "depth=7 is not divisible by stages=3"),
        ({"depth": 0}, "depth=0 does not fit: .* greater than 0"),
        ({"cycles": 0}, "cycles=0 does not fit"),
        ({"head_hidden": 0}, "head_hidden=0"),
        ({"backbone": "resnet"}, "Unknown backbone 'resnet'; did you mean 'resnet"),
        ({"backbone": "hrnet_w32", "stem_width": 32}, "'hrnet_w32' has no setting stem_width"),
        ({"backbone": "hrnet_w32", "input_size": (96, 72)}, "a multiple of 16, the width of 48"),
        ({"dept": 6}, "did you mean 'depth'"),
        ({"width": 96}, "the setting 'width' is called 'embed_dim' now"),
        ({"skeleton": "coco71"}, "did you mean 'coco17'"),
        ({"pretrained": True}, "leanpose.load_model loads a released model"),
        ({"pretrained": "backbone"}, "has no ImageNet weights"),
    ],
)
def test_settings_that_do_not_fit_get_one_sentence(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(LeanposeError, match=message) as caught:
        create_model("sdpose_t", **overrides)
    assert "\n" not in str(caught.value)


def test_every_renamed_setting_is_one_of_today() -> None:
    fields = [{field.name for field in dataclasses.fields(configure_model(name))} for name in list_models()]
    for old, new in registry.RENAMED_MODEL_OPTIONS.items():
        assert any(new in known for known in fields)
        assert not any(old in known for known in fields)


def test_an_unknown_model_gets_the_nearest_name() -> None:
    with pytest.raises(LeanposeError, match="did you mean 'tokenpose_s_v1'"):
        create_model("tokenpose_sv1")


@pytest.mark.unshaped
def test_images_of_another_size_are_refused() -> None:
    model = create_model("sdpose_t", input_size=(64, 48))
    for shape in [(1, 3, 48, 64), (1, 1, 64, 48), (3, 64, 48)]:
        with pytest.raises(LeanposeError, match=r"takes images of shape \(batch, 3, 64, 48\)"):
            model(torch.zeros(shape))


def test_normalize_is_imagenets() -> None:
    model = create_model("sdpose_t", input_size=(64, 48))
    crops = torch.randint(0, 256, (2, 64, 48, 3), dtype=torch.uint8)
    expected = (crops.permute(0, 3, 1, 2) / 255 - torch.tensor(model.mean)[:, None, None]) / torch.tensor(model.std)[
        :, None, None
    ]
    torch.testing.assert_close(model.normalize(crops), expected)


def test_hrnet_starts_from_the_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's download is replaced by a fresh net: what fits is taken, a narrower stage 1 stays as it is."""
    import timm

    published = timm.create_model("hrnet_w32", pretrained=False)
    monkeypatch.setattr(timm, "create_model", lambda *_args, **_options: published)
    model = create_model("sdpose_b", input_size=(64, 48), depth=1, pretrained="backbone")
    state = model.state_dict()
    name = "stage3.3.fuse_layers.0.2.0.weight"
    assert torch.equal(state[f"backbone.{name}"], published.state_dict()[name])
    assert state["backbone.layer1.0.conv1.weight"].shape[0] == 32


def test_models_are_listed_by_pattern() -> None:
    assert list_models("sdpose_s_*") == ["sdpose_s_v1", "sdpose_s_v1_ppt", "sdpose_s_v2"]
    assert {"tokenpose_s_v1", "tokenpose_b", "tokenpose_l_d6", "tokenpose_l_d12"} <= set(list_models("tokenpose_*"))
    assert list_models("nothing") == []


def test_a_users_own_variant_joins_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))

    @registry.register_model(TokenPose, None, "a test")
    def my_net() -> TokenPoseConfig:
        """A net of one's own."""
        return TokenPoseConfig(embed_dim=16, depth=1)

    assert "my_net" in list_models()
    assert create_model("my_net", input_size=(64, 48)).config.embed_dim == 16
    with pytest.raises(ValueError, match="two models"):
        registry.register_model(TokenPose, None, "a test")(my_net)


def test_a_configuration_can_be_made_by_hand() -> None:
    assert TokenPoseConfig(input_size=(384, 288)).heatmap_size == (96, 72)
