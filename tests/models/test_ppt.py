"""PPT: which tokens stay, what is computed of the others, and how they come back for SDPose's second cycle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from leanpose.codecs import Heatmaps
from leanpose.errors import LeanposeError
from leanpose.losses.auxiliary import AuxiliaryHeatmapLoss
from leanpose.losses.sdpose import SDPoseLoss, SDPoseSection
from leanpose.models.layers import TransformerLayer
from leanpose.models.ppt import PPT, scheduled_keep_ratio
from leanpose.models.registry import create_model
from outputs import gradient, heatmaps, present

KEYPOINTS, PATCHES = 17, 16


def small_model(**options: Any) -> PPT:
    """Three layers over 4x4 patches, of which 12 and then 9 stay."""
    torch.manual_seed(0)
    sizes = {"input_size": (64, 48), "embed_dim": 16, "depth": 3, "stem_width": 8, "stage1_width": 8}
    model = create_model("sdpose_s_v1_ppt", **{**sizes, "prune_layers": (0, 1), **options})
    assert isinstance(model, PPT)
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("layers", "ratio", "left"), [((0,), 0.7, 12), ((0, 1), 0.7, 9), ((0, 1, 2), 0.5, 2), ((2,), 0.01, 1)]
)
def test_each_pruning_keeps_its_share_rounded_up(
    images: Tensor, layers: tuple[int, ...], ratio: float, left: int
) -> None:
    with torch.inference_mode():
        output = small_model(prune_layers=layers, keep_ratio=ratio)(images)
    assert output.visual_tokens.shape == (2, left, 16)
    assert output.keep_indices.shape == (2, left)
    for kept in output.keep_indices.tolist():
        assert kept == sorted(set(kept))
        assert set(kept) <= set(range(PATCHES))


def test_a_ratio_of_1_is_plain_tokenpose(images: Tensor) -> None:
    model, plain = small_model(keep_ratio=1.0), small_model(prune_layers=())
    with torch.inference_mode():
        output, expected = model(images), plain(images)
    assert output.keep_indices is None
    torch.testing.assert_close(heatmaps(output), heatmaps(expected))


def test_the_tokens_that_the_keypoints_attend_to_most_stay(images: Tensor) -> None:
    model = small_model(prune_layers=(0,))
    with torch.inference_mode():
        first = model.layers[0]
        assert isinstance(first, TransformerLayer)
        normed = first.attention_norm(model.embed(model.forward_features(images)))
        _, weights = first.attention.with_weights(normed, KEYPOINTS)
        score = weights[:, :, :, KEYPOINTS:].mean(dim=1).sum(dim=1)
        kept = model(images).keep_indices
    for of_image, indices in zip(score.tolist(), kept.tolist(), strict=True):
        assert set(indices) == set(sorted(range(PATCHES), key=of_image.__getitem__)[-12:])


def test_dropped_tokens_are_not_computed(images: Tensor) -> None:
    model = small_model()
    attended, transformed = [], []
    for layer in model.layers:
        layer.get_submodule("attention.qkv").register_forward_hook(
            lambda _m, inputs, _o: attended.append(inputs[0].shape[1])
        )
        layer.get_submodule("mlp").register_forward_hook(lambda _m, inputs, _o: transformed.append(inputs[0].shape[1]))
    with torch.inference_mode():
        model(images)
    assert attended == [KEYPOINTS + n for n in (16, 12, 9)]
    assert transformed == [KEYPOINTS + n for n in (12, 9, 9)]


def test_the_keep_ratio_falls_as_in_the_papers_code(shared: Path) -> None:
    schedule = json.loads((shared / "golden" / "losses" / "ppt_keep_ratio_schedule.json").read_text())
    for moment, expected in schedule["values"].items():
        epoch, step = (int(part.split("=")[1]) for part in moment.split(","))
        now = epoch + step / schedule["iterations_per_epoch"]
        assert scheduled_keep_ratio(now, 300, schedule["base_keep_rate"]) == pytest.approx(expected, abs=1e-12), moment


def test_a_short_training_ends_with_the_final_ratio_too() -> None:
    ratios = [scheduled_keep_ratio(epoch, 30, 0.7) for epoch in range(30)]
    assert ratios[0] == ratios[1] == 1
    assert ratios[6] == pytest.approx(0.85)
    assert ratios[11:] == pytest.approx([0.7] * 19)
    assert ratios == sorted(ratios, reverse=True)


def test_the_schedule_counts_in_training_and_the_final_ratio_in_use(images: Tensor) -> None:
    model = small_model(prune_layers=(0,))
    left = lambda: PATCHES if (kept := model.forward_train(images).keep_indices) is None else kept.shape[1]  # noqa: E731
    assert model.train().keep_ratio == 0.7  # before any epoch
    expected = {0: 16, 60: 14, 200: 12}
    for epoch, count in expected.items():
        model.train().start_epoch(epoch, 300)
        assert model.keep_ratio == scheduled_keep_ratio(epoch, 300, 0.7)
        assert left() == count
        model.eval()
        assert left() == 12


def test_dropped_tokens_enter_the_second_cycle_as_they_were(images: Tensor) -> None:
    model = small_model(prune_layers=(1,))
    entering = []
    model.layers[0].register_forward_pre_hook(lambda _module, inputs: entering.append(inputs[0]))
    with torch.inference_mode():
        output = model.forward_train(images)
        before = model.layers[0](model.embed(model.forward_features(images))) + model.position
        second_layer = model.layers[1]
        assert isinstance(second_layer, TransformerLayer)
        when_dropped = (before + second_layer.attention(second_layer.attention_norm(before)))[:, KEYPOINTS:]
    first, second = output.cycles
    visual = entering[1][:, KEYPOINTS:]
    torch.testing.assert_close(entering[1][:, :KEYPOINTS], first.keypoint_tokens)
    for image, kept in enumerate(present(first.keep_indices).tolist()):
        dropped = [patch for patch in range(PATCHES) if patch not in kept]
        assert len(dropped) == 4
        torch.testing.assert_close(visual[image, kept], present(first.visual_tokens)[image])
        torch.testing.assert_close(visual[image, dropped], when_dropped[image, dropped])
    assert second.keep_indices is None
    assert present(second.visual_tokens).shape == (2, PATCHES, 16)


def test_of_a_token_dropped_later_the_second_cycle_gets_what_it_had_become(images: Tensor) -> None:
    model = small_model(prune_layers=(0, 2))
    with torch.inference_mode():
        embedded = model.embed(model.forward_features(images))
        record: list[Tensor] = []
        _, _, later = model.cycle(embedded, record)
        _, _, earlier = small_model(prune_layers=(0,)).cycle(embedded)
    changed = (record[2] != record[1]).any(dim=-1)
    for image in range(2):
        last, first = set(present(later)[image].tolist()), set(present(earlier)[image].tolist())
        assert last < first
        # What the first pruning dropped stays as it was; what the second dropped went through its layer's attention.
        left = {*range(KEYPOINTS), *(KEYPOINTS + patch for patch in first)}
        assert set(changed[image].nonzero().flatten().tolist()) == left


def test_the_second_cycle_teaches_dropped_patches_too(images: Tensor) -> None:
    model = small_model().train()
    tokens = model.embed(model.forward_features(images)).detach().requires_grad_()
    record: list[Tensor] = []
    _, _, kept = model.cycle(tokens, record)
    second, _, _ = model.cycle(record[-1], index=1)
    assert isinstance(second, Heatmaps)
    second.heatmaps.square().sum().backward()
    assert present(kept).shape[1] == 9
    assert gradient(tokens).abs().sum(dim=-1).min() > 0


def test_all_losses_of_sdpose_reach_every_parameter(images: Tensor) -> None:
    model = small_model().train()
    method = SDPoseLoss(model.codec, SDPoseSection(keypoint_token_weight=1.0, visual_token_weight=1.0))
    target = model.codec.encode(torch.rand(2, 17, 2) * 40, torch.ones(2, 17))
    losses = method(model.forward_train(images), None, target)
    assert set(losses) == {"pose", "keypoint_tokens", "visual_tokens"}
    torch.stack(list(losses.values())).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_layers_maps_show_dropped_tokens_as_they_were_last(images: Tensor) -> None:
    model = small_model(prune_layers=(1,))
    output = model.forward_train(images)
    assert [tuple(layer.shape) for layer in output.feature_maps] == [(2, 16, 4, 4)] * 3
    last, before = (layer.flatten(2).transpose(1, 2) for layer in (output.feature_maps[2], output.feature_maps[1]))
    for image, kept in enumerate(present(output.keep_indices).tolist()):
        dropped = [patch for patch in range(PATCHES) if patch not in kept]
        torch.testing.assert_close(last[image, kept], present(output.visual_tokens)[image])
        assert torch.equal(last[image, dropped], before[image, dropped])
    target = model.codec.encode(torch.rand(2, 17, 2) * 40, torch.ones(2, 17))
    assert AuxiliaryHeatmapLoss(model, weight=1.0)(output, target).isfinite()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"depth": 9}, r"prune_layers=\[3, 6, 9\] must be in 0\.\.8, since depth=9"),
        ({"prune_layers": (-1,)}, r"prune_layers=\[-1\] must be in 0\.\.11"),
        ({"prune_layers": (6, 3)}, "must ascend"),
        ({"prune_layers": (3, 3)}, "must ascend"),
        ({"keep_ratio": 0.0}, r"keep_ratio=0\.0 does not fit: .* greater than 0"),
        ({"keep_ratio": 1.1}, r"keep_ratio=1\.1 does not fit: .* less than or equal to 1"),
        ({"keep_ratio": float("nan")}, "keep_ratio=nan does not fit"),
        ({"stages": 3}, "stages=3 must be 1 if tokens are pruned"),
        ({"prune_layer": (3,)}, "did you mean 'prune_layers'"),
    ],
)
def test_settings_that_do_not_fit_get_one_sentence(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(LeanposeError, match=message) as caught:
        create_model("ppt_s", **overrides)
    assert "\n" not in str(caught.value)
