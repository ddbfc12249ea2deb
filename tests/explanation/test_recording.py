"""What is recorded is what the model computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leanpose.codecs.base import Prediction
from leanpose.explanation.recording import AttentionRecording, record_attention
from leanpose.models.layers import TransformerLayer
from leanpose.models.registry import create_model
from leanpose.models.tokenpose import TokenPose, TokenPoseConfig
from leanpose.skeleton import COCO17
from tiny import TINY_MODEL

SIZES = {**TINY_MODEL, "input_size": (64, 48), "depth": 3, "cycles": 2}
KEPT = torch.tensor([1, 2, 6, 9, 14])
KEYPOINTS = 17


class PruningPose(TokenPose):
    """Drops patches between the attention and the MLP of its second layer, in every cycle (PPT in its simplest form)."""

    def cycle(
        self, tokens: Tensor, record: list[Tensor] | None = None, *, index: int = 0
    ) -> tuple[Prediction, Tensor, None]:
        alive = torch.arange(tokens.shape[1])
        whole = tokens
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, TransformerLayer)
            if i:
                tokens = tokens + self.position[:, alive]
            tokens = tokens + layer.attention(layer.attention_norm(tokens))
            if i == 1:
                alive = torch.cat([alive[:KEYPOINTS], KEYPOINTS + KEPT])
                tokens = tokens[:, alive]
            tokens = tokens + layer.mlp(layer.mlp_norm(tokens))
        return self.predict(tokens[:, :KEYPOINTS]), whole.index_copy(1, alive, tokens), None


@pytest.fixture(params=["sdpose_t", "sdpose_reg"])
def model(request: pytest.FixtureRequest) -> TokenPose:
    torch.manual_seed(0)
    sizes = {key: value for key, value in SIZES.items() if request.param == "sdpose_t" or key != "head_hidden"}
    model = create_model(request.param, **sizes)
    assert isinstance(model, TokenPose)
    for layer in model.layers:  # fresh attention is almost even
        assert isinstance(layer, TransformerLayer)
        layer.attention.qkv.weight.data *= 20
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(1))


def test_a_row_sums_to_one_in_every_layer_of_every_cycle(model: TokenPose, images: Tensor):
    recording = record_attention(model, images)
    assert [(a.cycle, a.layer) for a in recording.layers] == [(c, n) for c in range(2) for n in range(3)]
    assert recording.cycles == 2
    for layer in recording.layers:
        assert layer.weights.shape == (2, KEYPOINTS, KEYPOINTS + 16)
        assert abs(layer.weights.sum(axis=-1) - 1).max() < 1e-5
        patches = layer.over_patches(3, recording.grid_size)
        assert abs(patches.sum() + layer.among_keypoints[3].sum() - 1) < 1e-5
    assert {len(layer.patches) for layer in recording.layers} == {16}


@torch.inference_mode()
def test_the_weights_give_the_output_of_the_attention(model: TokenPose, images: Tensor):
    seen: list[tuple[Tensor, Tensor]] = []
    handles = [
        layer.get_submodule("attention").register_forward_hook(
            lambda _, inputs, output: seen.append((inputs[0], output))  # pyright: ignore[reportArgumentType]
        )
        for layer in model.layers
    ]
    model.forward_train(images)
    for handle in handles:
        handle.remove()
    recording = record_attention(model, images)
    for i, (attended, (inputs, output)) in enumerate(zip(recording.layers, seen, strict=True)):
        layer = model.layers[i % 3]
        assert isinstance(layer, TransformerLayer)
        attention = layer.attention
        values = (
            attention.qkv(inputs)[0].chunk(3, dim=-1)[2].unflatten(-1, (2, -1)).transpose(0, 1)
        )  # heads, T, D/heads
        mixed = torch.from_numpy(attended.weights) @ values
        expected = attention.out(mixed.transpose(0, 1).flatten(1))
        assert torch.allclose(expected, output[0, :KEYPOINTS], atol=1e-5)


def test_the_model_is_left_as_it_was(model: TokenPose, images: Tensor):
    before = model(images).prediction
    model.train()
    output = record_attention(model, images).output
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    after = model.eval()(images).prediction
    for name in ("heatmaps", "xy"):
        if hasattr(before, name):
            assert torch.equal(getattr(before, name), getattr(after, name))
            assert torch.equal(getattr(before, name), getattr(output.prediction, name))


def test_hooks_go_when_the_model_fails(model: TokenPose):
    with pytest.raises(Exception, match="takes images of shape"):
        record_attention(model, torch.zeros(1, 3, 8, 8))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_dropped_patches_are_found_out(images: Tensor):
    torch.manual_seed(0)
    options = {**SIZES, "patch_size": (4, 3)}
    model = PruningPose("pruning", TokenPoseConfig(**options), COCO17).eval()
    model.forward_train = lambda images: _cycles(model, images)
    recording = record_attention(model, images)
    assert recording.layers[2].patches.tolist() == KEPT.tolist()
    assert [len(layer.patches) for layer in recording.layers] == [16, 16, 5, 16, 16, 5]
    assert _dropped(recording, 1) == 0
    assert _dropped(recording, 2) == 11


def _cycles(model: PruningPose, images: Tensor):
    tokens = model.embed(model.forward_features(images))
    _, tokens, _ = model.cycle(tokens)
    prediction, tokens, _ = model.cycle(tokens)
    return model.output(prediction, tokens, None, images)


def _dropped(recording: AttentionRecording, layer: int) -> int:
    patches = recording.layers[layer].over_patches(0, recording.grid_size)
    return int((patches != patches).sum())
