"""What only a GPU can show: `pytest -m gpu tests/gpu`. `LEANPOSE_GPU_TESTS=cpu` runs the same code on a CPU, as a rehearsal."""

from __future__ import annotations

import os
import runpy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from leanpose.backends.base import TorchBackend
from leanpose.codecs import HeatmapCodec
from leanpose.codecs.base import Heatmaps
from leanpose.data.augmentation import Augmentation
from leanpose.data.batch import CropBatch
from leanpose.data.dataset import TopDownDataset
from leanpose.data.device_augmentation import SourceBatch
from leanpose.data.images import read_image
from leanpose.data.jpeg_records import JpegRecords, why_not_decoded
from leanpose.data.pack_file import PackConfig
from leanpose.data.pack_writer import pack_people
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import StoppedError
from leanpose.evaluation.evaluate import evaluate
from leanpose.inference.estimator import PoseEstimator
from leanpose.skeleton import COCO17
from leanpose.training import loop
from leanpose.training.batches import epoch_batches
from leanpose.training.build import build_trainer
from leanpose.training.recipe import Recipe, parse_recipe
from leanpose.training.train import train
from leanpose.weights import load_model
from tiny import tiny_recipe, write_tiny_coco

DEVICE = os.environ.get("LEANPOSE_GPU_TESTS", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device"),
]
TOKENS: dict[str, Any] = {
    "stem_width": 8, "stage1_width": 8, "stage1_blocks": 1, "embed_dim": 16, "depth": 2, "num_heads": 2,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "sdpose_t": {"model_options": {**TOKENS, "head_hidden": 16}, "distillation": {"method": "sdpose"}},
    "tokenpose_s_v1": {"model_options": {**TOKENS, "head_hidden": 16}},
    "ppt_s": {"model_options": {**TOKENS, "depth": 12, "head_hidden": 16}},
    "distilpose_s": {"model_options": TOKENS},
    "rtmpose_t": {"model_options": {"embed_dim": 32, "gau_qk_dim": 16}},
    "tfpose_r18": {"model_options": {"embed_dim": 32, "encoder_layers": 1, "decoder_layers": 2, "num_heads": 4}},
    "simplebaseline_r50": {"model_options": {"backbone": "movenet_lightning", "deconv_channels": [16, 16, 16]}},
    "rle_r50": {"model_options": {"backbone": "movenet_lightning"}, "loss": "rle"},
    "tinypose": {"model_options": {}},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_tiny_coco(tmp_path / "data", people=16)
    return tmp_path / "data"


def recipe_of(name: str, data: Path, **changes: Any) -> Recipe:
    family = FAMILIES[name]
    options = {"input_size": [128, 96], **family["model_options"]}
    values = {"distillation": {"method": "none"}, **family, "model": name, "model_options": options, **changes}
    return parse_recipe(tiny_recipe(data, **values), name)


@pytest.fixture(scope="module")
def people() -> Any:
    from leanpose.demo.demo import PEOPLE  # real people, on photographs

    source = DatasetConfig(format="coco", images=PEOPLE / "images", annotations=PEOPLE / "val.json")
    return read_people(source, COCO17, training=False)


def test_augmentation_is_that_of_opencv(people: Any, tmp_path: Path) -> None:
    everything = Augmentation(
        hue=20, saturation=40, value=40, blur_probability=0.3, coarse_dropout_probability=0.5,
        joint_dropout_probability=0.5,
    )  # fmt: skip
    cache = pack_people([people], COCO17, PackConfig((256, 192)), tmp_path / "crops.pack")
    sets = [
        TopDownDataset(
            people.people[:32], COCO17, (256, 192), augmentation=everything, cache=cache, warp_on_device=on_device
        )
        for on_device in (False, True)
    ]
    expected, sources = (each.collate_for_device([each[i] for i in range(32)]) for each in sets)
    assert isinstance(expected, CropBatch)
    assert isinstance(sources, SourceBatch)
    crops = sources.to(DEVICE).prepared()
    apart = (crops.images.cpu().float() - expected.images.float()).abs().mean(dim=(1, 2, 3))
    assert apart.mean() < 1.5
    assert torch.equal(crops.keypoints.cpu(), expected.keypoints)


def test_jpegs_are_decoded_as_by_opencv(people: Any, tmp_path: Path) -> None:
    if (reason := why_not_decoded(torch.device(DEVICE))) is not None:
        pytest.skip(f"torchvision decodes no JPEG here: {reason}")
    cache = pack_people([people], COCO17, PackConfig((256, 192), encoding="jpeg"), tmp_path / "crops.pack")
    rows = cache.rows[:32].tolist()
    canvas = torch.zeros(32, *cache.largest, 3, dtype=torch.uint8, device=DEVICE)
    JpegRecords.of({place: cache.read(row, decoded=False)[0] for place, row in enumerate(rows)}).decode_into(canvas)
    for decoded, row in zip(canvas.cpu().numpy(), rows, strict=True):
        expected = cache.read(row)[0]
        height, width = expected.shape[:2]
        assert np.abs(decoded[:height, :width].astype(int) - expected).mean() < 1.5
        assert not decoded[height:].any()


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains(name: str, precision: str, data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(name, data, precision=precision, ema=0.9, validation={"interval": 3})
    summary = train(recipe, tmp_path / "run", device=DEVICE, quiet=True)
    assert 0 <= summary.metrics["AP"] <= 1
    assert all(value.isfinite().all() for value in load_file(tmp_path / "run" / "last.safetensors").values())


def _loss(recipe: Recipe, folder: Path, steps: int) -> float:
    trainer = build_trainer(recipe, folder, folder, resume=False, device=DEVICE, quiet=True, say=lambda _: None)
    parts = epoch_batches(trainer.dataset, recipe, trainer.fabric, epoch=0, start=0)
    losses = [trainer.take_step(parts) for _ in range(steps)]
    if trainer.log is not None:
        trainer.log.close()
    return float(losses[-1])


def test_a_step_waits_for_nothing(data: Path, tmp_path: Path) -> None:
    """After the first steps, which choose kernels, no operation asks the device for a value."""
    recipe = recipe_of("sdpose_t", data, precision="bf16", ema=0.9, optimizer={"grad_clip_norm": 1.0})
    folder = tmp_path / "run"
    trainer = build_trainer(recipe, folder, folder, resume=False, device=DEVICE, quiet=True, say=lambda _: None)
    parts = epoch_batches(trainer.dataset, recipe, trainer.fabric, epoch=0, start=0)
    trainer.take_step(parts)
    if DEVICE == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            trainer.take_step(parts)
    finally:
        if DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compiled", [False, True])
def test_a_teacher_teaches(compiled: bool, data: Path, tmp_path: Path) -> None:
    if compiled and DEVICE != "cuda":
        pytest.skip("compiling is for GPUs")
    teacher = recipe_of("tokenpose_s_v1", data, schedule={"epochs": 1, "warmup_steps": 0})
    train(teacher, tmp_path / "teacher", device=DEVICE, quiet=True)
    section = {"method": "auto", "teacher": str(tmp_path / "teacher"), "compile_teacher": compiled}
    student = recipe_of("rtmpose_t", data, distillation=section)
    assert train(student, tmp_path / "student", device=DEVICE, quiet=True).metrics.keys() >= {"AP"}


def test_a_compiled_training_agrees(data: Path, tmp_path: Path) -> None:
    if DEVICE != "cuda":
        pytest.skip("compiling is for GPUs")
    plain, compiled = (
        _loss(recipe_of("sdpose_t", data, compile=value), tmp_path / str(value), steps=3) for value in (False, True)
    )
    assert compiled == pytest.approx(plain, rel=0.02)


def test_a_stopped_run_resumes_to_the_same_weights(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    recipe = recipe_of("rtmpose_t", data, ema=0.9)
    try:
        train(recipe, tmp_path / "whole", device=DEVICE, quiet=True)
        step = loop.Trainer.take_step

        def stopping(trainer: Any, parts: Any) -> torch.Tensor:
            if trainer.state.step == 5:
                trainer._save_state()
                raise StoppedError("here", 15)
            return step(trainer, parts)

        with monkeypatch.context() as patched:
            patched.setattr(loop.Trainer, "take_step", stopping)
            with pytest.raises(StoppedError):
                train(recipe, tmp_path / "stopped", device=DEVICE, quiet=True)
        train(recipe, tmp_path / "stopped", resume=True, device=DEVICE, quiet=True)
    finally:
        torch.use_deterministic_algorithms(False)
    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "stopped"))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("decoding", ["argmax", "quarter", "dark"])
@pytest.mark.parametrize("encoding", ["msra", "unbiased", "udp"])
def test_codecs_give_the_same_points(encoding: Any, decoding: Any) -> None:
    codec = HeatmapCodec(encoding=encoding, decoding=decoding)
    points = torch.rand(8, 17, 2) * torch.tensor([191.0, 255.0])
    maps = codec.encode(points, torch.ones(8, 17)).heatmaps
    on_device = codec.encode(points.to(DEVICE), torch.ones(8, 17).to(DEVICE)).heatmaps
    assert torch.allclose(on_device.cpu(), maps, atol=1e-5)
    found, scores = codec.decode(Heatmaps(on_device))
    expected, expected_scores = codec.decode(Heatmaps(on_device.cpu()))
    assert found.device.type == DEVICE
    assert torch.allclose(found.cpu(), expected, atol=0.01)
    assert torch.allclose(scores.cpu(), expected_scores, atol=1e-5)


def test_evaluation_agrees_with_the_cpu(people: Any) -> None:
    here, there = (
        evaluate(load_model("leanpose-body-s").to(device).eval(), people, batch_size=32, num_workers=0).metrics["AP"]
        for device in ("cpu", DEVICE)
    )
    assert there == pytest.approx(here, abs=0.005)


def test_a_flip_test_waits_once(people: Any) -> None:
    """One copy comes back a batch, with keypoints and scores."""
    backend = TorchBackend(load_model("leanpose-body-s"), torch.device(DEVICE))
    crops, _ = backend.spec.crop(
        [read_image(person.image) for person in people.people[:4]],
        np.stack([person.box for person in people.people[:4]]),
    )
    backend.predict_keypoints(crops, flip_test=True)  # kernels are chosen
    with warnings.catch_warnings(record=True) as waited:
        warnings.simplefilter("always")
        if DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        points, scores = backend.predict_keypoints(crops, flip_test=True)
        if DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    # Torch's first warning in a process says that the mode may miss some.
    waits = [str(warning.message) for warning in waited if "called a synchronizing" in str(warning.message)]
    assert len(waits) == (DEVICE == "cuda"), waits
    backend.one_pass = not backend.one_pass
    others, other_scores = backend.predict_keypoints(crops, flip_test=True)
    np.testing.assert_allclose(points, others, atol=0.05)
    np.testing.assert_allclose(scores, other_scores, atol=0.01)


def test_people_are_evaluated_in_number(tmp_path: Path) -> None:
    """The step of benchmarks/gpu with 24 people instead of 6,352."""
    path = Path(__file__).parents[2] / "benchmarks" / "gpu" / "measure.py"
    measure = runpy.run_path(str(path))
    results = measure["Results"]("here", "none")
    measure["measure_evaluation"](
        results, "leanpose-body-s", torch.device(DEVICE), count=24, batch_size=16, num_workers=0
    )
    (_, _, people, _, _, ap), half = results.evaluation
    assert people == half[2] == 24
    assert half[5] == pytest.approx(ap, abs=0.02)
    assert "| `leanpose-body-s` | bf16 | 24 |" in results.page()
    measure["measure_decoding"](results, tmp_path, torch.device(DEVICE), count=8)
    assert "- OpenCV, one core: " in results.page()
    assert len(results.decoding) == 2


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_inference_agrees_with_the_cpu(backend: str, people: Any) -> None:
    """The export is made on the device and run by whatever runs it."""
    if backend == "onnxruntime" and DEVICE == "cuda":
        providers = pytest.importorskip("onnxruntime").get_available_providers()
        if "CUDAExecutionProvider" not in providers:
            pytest.skip("this ONNX Runtime is for CPUs")
    image, box = str(people.people[0].image), people.people[0].box[None]
    here, there = (
        PoseEstimator("leanpose-body-s", device=device, backend=how)(image, box)
        for device, how in (("cpu", "torch"), (DEVICE, backend))
    )
    np.testing.assert_allclose(there.keypoints, here.keypoints, atol=0.5)
    np.testing.assert_allclose(there.keypoint_scores, here.keypoint_scores, atol=0.02)


def test_half_precision_finds_the_same_people(people: Any) -> None:
    model = load_model("leanpose-body-s").to(DEVICE).eval()
    crops = torch.randint(0, 255, (4, *model.input_size, 3), dtype=torch.uint8, device=DEVICE)
    with torch.no_grad():
        full = model(model.normalize(crops)).prediction.heatmaps
        with torch.autocast(DEVICE, torch.bfloat16):
            half = model(model.normalize(crops)).prediction.heatmaps
    assert (full - half.float()).abs().max() < 0.05
