"""DeiT-Tiny: timm's numbers, and what its cycles are."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from golden_rules import OUTPUT_TOLERANCE, Golden, official_model
from leanpose import create_model, list_models
from leanpose.classification.deit import DeiT, load_classifier
from leanpose.errors import LeanposeError
from leanpose.models.cost import model_cost
from leanpose.models.registry import model_entry
from leanpose.weights import describe, load_model, save_model

SMALL: dict[str, Any] = {
    "input_size": (32, 48),
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "classes": 5,
}
SIZES = [("tiny", {}), ("small", {"embed_dim": 384, "num_heads": 6}), ("base", {"embed_dim": 768, "num_heads": 12})]


def small(cycles: int = 2, **changes: Any) -> DeiT:
    torch.manual_seed(0)
    model = create_model("deit_tiny", **{**SMALL, "cycles": cycles, **changes})
    assert isinstance(model, DeiT)
    return model


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("size", "overrides"), [SIZES[0], *(pytest.param(*row, marks=pytest.mark.slow) for row in SIZES[1:])]
)
def test_outputs_are_timms(shared: Path, size: str, overrides: dict[str, Any]) -> None:
    golden = Golden.load(shared, f"deit_{size}_patch16_224")
    model = official_model(golden, "deit_tiny", **overrides)
    assert isinstance(model, DeiT)
    with torch.inference_mode():
        output = model(golden.images)
        tokens = torch.cat([output.class_tokens, output.visual_tokens], dim=1)
        assert golden.deviation("features", model.network.norm(tokens)) < OUTPUT_TOLERANCE
    assert golden.deviation("logits", output.logits) < OUTPUT_TOLERANCE


def test_cost_is_timms() -> None:
    """fvcore counts 1.0796 G without the products of attention, which are 12 layers × 2 × 197² × 192."""
    for name in ("deit_tiny", "sdpose_deit_tiny"):
        cost = model_cost(name)
        assert cost.parameters == 5_717_416
        assert cost.macs == pytest.approx(1_079_579_328, rel=0.01)
        assert cost.attention_macs == 12 * 2 * 197**2 * 192


def test_a_cycle_is_another_pass_through_the_same_layers() -> None:
    model = small(3)
    with torch.inference_mode():
        output = model.forward_train(images())
        first = model(images())
        torch.testing.assert_close(first.logits, output.logits)
        assert first.cycles == ()
        tokens = [torch.cat([cycle.class_tokens, cycle.visual_tokens], dim=1) for cycle in output.cycles]
        assert len(tokens) == 3
        for shallow, deeper in pairwise(tokens):
            torch.testing.assert_close(model.network.blocks(shallow), deeper)
        head = model.network
        for cycle, state in zip(output.cycles, tokens, strict=True):
            torch.testing.assert_close(cycle.logits, head.head(head.norm(state)[:, 0]))
    assert output.visual_tokens.shape == (2, 24, 24)


def test_the_pooled_head_reads_the_patches() -> None:
    model = small(1, pool="avg")
    with torch.inference_mode():
        output = model(images())
        network = model.network
        mean = network.norm(torch.cat([output.class_tokens, output.visual_tokens], dim=1))[:, 1:].mean(dim=1)
        torch.testing.assert_close(output.logits, network.head(network.fc_norm(mean)))


def test_gradient_reaches_every_parameter() -> None:
    model = small().train()
    output = model.forward_train(images())
    torch.stack([cycle.logits.square().sum() for cycle in output.cycles]).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_file_describes_it(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "m.safetensors"
    model.class_names = ("ant", "bee", "cat", "dog", "eel")
    save_model(model, path, training_data=[], licence="none", metrics={"top-1": 0.5})
    loaded = load_classifier(path)
    assert loaded.class_names == model.class_names
    with torch.inference_mode():
        assert torch.equal(loaded(images()).logits, model.eval()(images()).logits)
    assert describe(path)["classes"] == list(model.class_names)
    with pytest.raises(LeanposeError, match="a classifier, not a pose model"):
        load_model(path)
    pose = tmp_path / "pose.safetensors"
    save_model(create_model("sdpose_t", input_size=(64, 48), depth=1), pose, training_data=[], licence="", metrics={})
    with pytest.raises(LeanposeError, match="a pose model, not a classifier"):
        load_classifier(pose)


def test_classifiers_are_a_task_of_their_own() -> None:
    assert list_models(task="classification") == ["deit_tiny", "sdpose_deit_tiny"]
    assert not {"deit_tiny", "sdpose_deit_tiny"} & set(list_models(task="pose"))
    assert sorted(list_models(task="pose") + list_models(task="classification")) == list_models()
    for name in list_models(task="classification"):
        entry = model_entry(name)
        assert f"{entry.published_metric} top-1" in entry.summary
        assert entry.published == (f"{entry.published_metric} (top-1)", "SDPose (CVPR 2024), table 9")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_size": (30, 48)}, "multiples of 8"),
        ({"num_heads": 5}, "embed_dim=24 is not divisible by num_heads=5"),
        ({"classes": 0}, "classes=0 must be at least 1"),
        ({"drop_path": 1.0}, "drop_path=1"),
        ({"pool": "max"}, "pool='max' does not fit"),
        ({"skeleton": "coco17"}, "takes no skeleton"),
        ({"pretrained": "backbone"}, "train it from scratch"),
    ],
)
def test_what_does_not_fit_gets_one_sentence(change: dict[str, Any], words: str) -> None:
    with pytest.raises(LeanposeError, match=words) as caught:
        create_model("deit_tiny", **{**SMALL, **change})
    assert "\n" not in str(caught.value)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(LeanposeError, match=r"takes images of shape \(batch, 3, 32, 48\)"):
        small()(torch.zeros(1, 3, 48, 32))
