"""Neither a training step nor evaluation waits for a GPU before the end: tried on torch's fake tensors, without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leanpose.backends.base import TorchBackend, halves
from leanpose.codecs import Codec, CoordinateCodec, HeatmapCodec, ScoreCalibration, SimCCCodec
from leanpose.codecs.base import Coordinates, Heatmaps, Prediction, SimCC
from leanpose.data.augmentation import Augmentation, PhotometricParams
from leanpose.data.device_augmentation import SourceBatch, stack_photometric
from leanpose.models.registry import create_model
from leanpose.skeleton import COCO17
from leanpose.training.build import build_model
from leanpose.training.recipe import parse_recipe
from leanpose.training.task import build_task
from tiny import tiny_recipe
from waiting import no_waiting, on_fake_gpu

CODECS: list[tuple[Codec[Any, Any], type[Prediction], list[tuple[int, ...]]]] = [
    *((HeatmapCodec(encoding=encoding, decoding="dark"), Heatmaps, [(64, 48)]) for encoding in ("msra", "udp")),
    (HeatmapCodec(encoding="udp", toolbox="mmpose029"), Heatmaps, [(64, 48)]),
    (HeatmapCodec(decoding="quarter"), Heatmaps, [(64, 48)]),
    (SimCCCodec(decoding="dark"), SimCC, [(384,), (512,)]),
    (CoordinateCodec(), Coordinates, [(2,), (2,)]),
]


def test_waiting_is_noticed() -> None:
    for wait in (
        lambda x: torch.tensor([1.0], device=x.device), lambda x: x[:, [0, 1]], lambda x: x.sum().item(),
        lambda x: x.cpu(), lambda x: x.nonzero(),
    ):  # fmt: skip
        with no_waiting(), pytest.raises((AssertionError, RuntimeError)):
            wait(torch.zeros(3, 4, device="cuda"))


@pytest.mark.parametrize(("codec", "form", "shapes"), CODECS)
def test_a_codec_does_not_wait(codec: Codec[Any, Any], form: type[Prediction], shapes: list[tuple[int, ...]]) -> None:
    codec = codec.with_calibration(ScoreCalibration(1.0, (0.0,) * 17))
    with no_waiting():
        one, other = (form(*(torch.zeros(2, 17, *shape, device="cuda") for shape in shapes)) for _ in range(2))
        points, scores = codec.decode(codec.merge_flipped(one, other, COCO17.flip_indices))
        loss = codec.loss(one, codec.encode(points, scores))
    assert {points.device.type, scores.device.type, loss.device.type} == {"cuda"}
    assert points.shape == (2, 17, 2)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sdpose_t", {}),
        (
            "tfpose_r18",
            {
                "model_options": {
                    "input_size": [64, 48], "embed_dim": 32, "encoder_layers": 1, "decoder_layers": 1, "num_heads": 4,
                },
                "distillation": {"method": "none"},
            },
        ),
    ],
)  # fmt: skip
def test_a_step_does_not_wait(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """Augmentation, forward pass and losses; the backward pass and the optimizers are torch's."""
    recipe = parse_recipe(tiny_recipe(tmp_path, **changes, model=name), name)
    task = build_task(recipe, build_model(recipe).train(), sets=("one", "other"))
    rng = np.random.default_rng(0)
    blurred = Augmentation(hue=20, blur_probability=1.0, coarse_dropout_probability=1.0)
    photometric: list[PhotometricParams] = [
        blurred.sample_photometric(rng, (64, 48), np.zeros((17, 2)), np.ones(17)) for _ in range(2)
    ]
    *changed, blurs = stack_photometric(photometric)
    with no_waiting() as fake:
        state = on_fake_gpu(fake, task)
        sources, maps = torch.zeros(2, 70, 60, 3, dtype=torch.uint8, device="cuda"), torch.zeros(2, 2, 3, device="cuda")
        labels = torch.zeros(2, 17, 2, device="cuda"), torch.ones(2, 17, device="cuda"), maps
        looked = [fake.from_tensor(value).to("cuda", non_blocking=True) for value in changed if value is not None]
        sets = torch.zeros(2, dtype=torch.int64, device="cuda")
        batch = SourceBatch(torch.arange(2), {}, sources, maps, *labels, (64, 48), *looked, blurs=blurs, sets=sets)
        losses = torch.func.functional_call(task, state, batch.inputs)
    assert all(loss.device.type == "cuda" for loss in losses.values())


def test_a_flip_test_is_one_pass_where_that_suits() -> None:
    """Whether one pass or two: the same keypoints."""
    model = create_model("sdpose_t", input_size=(64, 48), embed_dim=32, depth=2, num_heads=4)
    backend = TorchBackend(model, torch.device("cpu"))
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3), np.uint8)
    passes: list[int] = []
    model.register_forward_hook(lambda _module, inputs, _output: passes.append(len(inputs[0])))
    points, scores = backend.predict_keypoints(crops, flip_test=True)
    backend.one_pass = True
    together, scores_together = backend.predict_keypoints(crops, flip_test=True)
    assert passes == [3, 3, 6]
    np.testing.assert_allclose(together, points, atol=1e-4)
    np.testing.assert_allclose(scores_together, scores, atol=1e-6)


def test_halves_of_a_prediction() -> None:
    first, second = halves(Coordinates(torch.arange(16.0).view(4, 2, 2), score=torch.arange(8.0).view(4, 2)))
    assert torch.equal(first.xy, torch.arange(8.0).view(2, 2, 2))
    assert second.score is not None
    assert torch.equal(second.score, torch.arange(4.0, 8.0).view(2, 2))
    assert first.sigma is second.sigma is None
