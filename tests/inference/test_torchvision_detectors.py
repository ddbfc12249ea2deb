"""torchvision's detectors with random weights, weights from files, and no network."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from leanpose.errors import LeanposeError
from leanpose.inference.detectors import Detector, TorchvisionDetector

SSDLITE = "ssdlite320_mobilenet_v3_large"
FASTER = "fasterrcnn_mobilenet_v3_large_320_fpn"


def build(name: str, classes: int = 91, seed: int = 0) -> nn.Module:
    from torchvision import models

    torch.manual_seed(seed)
    return models.get_model(name, weights=None, weights_backbone=None, num_classes=classes).eval()


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, shape, np.uint8) for shape in ((90, 120, 3), (64, 200, 3))]


class Answers(nn.Module):
    """Stands in for a detector: remembers its input and gives these results."""

    def __init__(self, results: list[dict[str, torch.Tensor]]) -> None:
        super().__init__()
        self.results, self.seen = results, []

    def forward(self, batch: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        self.seen.append(batch)
        return self.results


def test_people_above_the_threshold_best_first(images: list[np.ndarray]):
    results = {
        "boxes": torch.tensor([[1.0, 2, 30, 40], [5, 5, 60, 80], [0, 0, 9, 9], [7, 7, 8, 9], [3, 3, 3, 9]]),
        "labels": torch.tensor([1, 1, 2, 1, 1]),
        "scores": torch.tensor([0.5, 0.8, 0.9, 0.2, 0.99]),
    }
    model = Answers([results, {key: value[:0] for key, value in results.items()}])
    detector = TorchvisionDetector(SSDLITE, model=model, threshold=0.3, device="cpu")
    (boxes, scores), (none, no_scores) = detector(images)
    assert boxes.tolist() == [[5, 5, 60, 80], [1, 2, 30, 40]]  # no other classes, no flat boxes
    assert scores == pytest.approx([0.8, 0.5])
    assert none.shape == (0, 4)
    assert no_scores.shape == (0,)
    assert len(model.seen) == 1  # both images in one batch: RGB, channels first, 0..1
    for tensor, image in zip(model.seen[0], images, strict=True):
        assert torch.equal(tensor, torch.from_numpy(image.transpose(2, 0, 1)).float() / 255)
    assert detector([]) == []


@pytest.mark.parametrize(("name", "classes"), [(SSDLITE, 91), (SSDLITE, 2), (FASTER, 91)])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file_are_those_of_the_network(
    tmp_path: Path, images: list[np.ndarray], name: str, classes: int, suffix: str
):
    network = build(name, classes)
    path = tmp_path / f"weights{suffix}"
    state = network.state_dict()
    if suffix == ".pth":
        torch.save({"model": state} if classes == 2 else state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    detector = Detector.load(f"torchvision:{name}:{path}", threshold=0.0)
    assert isinstance(detector, TorchvisionDetector)
    assert detector.name == f"torchvision:{name}"
    direct = TorchvisionDetector(name, model=network, threshold=0.0)
    for (boxes, scores), (expected, wanted) in zip(detector(images[:1]), direct(images[:1]), strict=True):
        assert boxes == pytest.approx(expected)
        assert scores == pytest.approx(wanted)
        assert len(boxes) or classes == 91  # random weights seldom choose one of 91
        assert (boxes[:, 2:] <= [120, 90]).all()
    assert all(torch.equal(value, state[key]) for key, value in detector._model.state_dict().items())


def test_frozen_batch_norm_has_no_counters(tmp_path: Path, images: list[np.ndarray]):
    state = {key: value for key, value in build(FASTER).state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "frozen.pth")
    detector = TorchvisionDetector(FASTER, weights=tmp_path / "frozen.pth")
    assert len(detector(images)) == 2


def test_another_networks_weights_are_refused(tmp_path: Path):
    torch.save(build(SSDLITE, 5).state_dict(), tmp_path / "five.pth")
    torch.save({"layer": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("five.pth", "other.pth", "list.pth"):
        with pytest.raises(LeanposeError, match=f"{name} are not of {SSDLITE} with 91 or 2"):
            TorchvisionDetector(SSDLITE, weights=tmp_path / name)


def test_files_with_code_or_damage_are_refused(tmp_path: Path):
    torch.save(nn.Linear(2, 2), tmp_path / "pickled.pth")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for name in ("pickled.pth", "broken.pth", "broken.safetensors"):
        with pytest.raises(LeanposeError, match="tensors alone"):
            TorchvisionDetector(SSDLITE, weights=tmp_path / name)
    with pytest.raises(LeanposeError, match="There is no weight file"):
        TorchvisionDetector(SSDLITE, weights=tmp_path / "absent.pth")


def test_without_a_network_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(LeanposeError, match=rf"could not be downloaded .+no route.+torchvision:{SSDLITE}:FILE\.pth"):
        Detector.load(f"torchvision:{SSDLITE}")


def test_the_downloaded_file_may_hold_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torchvision import models

    weights: Any = next(iter(models.get_model_weights(SSDLITE)))
    cached = tmp_path / "hub/checkpoints" / Path(weights.url).name
    cached.parent.mkdir(parents=True)
    torch.save(nn.Linear(2, 2), cached)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(LeanposeError, match="could not be downloaded"):
        Detector.load(f"torchvision:{SSDLITE}")


def test_a_cached_download_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: list[np.ndarray]):
    from torchvision import models

    network = build(SSDLITE, seed=3)
    weights: Any = next(iter(models.get_model_weights(SSDLITE)))
    cached = tmp_path / "hub/checkpoints" / Path(weights.url).name
    cached.parent.mkdir(parents=True)
    torch.save(network.state_dict(), cached)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = Detector.load(f"torchvision:{SSDLITE}", threshold=0.0)(images)
    expected = TorchvisionDetector(SSDLITE, model=network, threshold=0.0)(images)
    for (boxes, _), (wanted, _) in zip(found, expected, strict=True):
        assert boxes == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("torchvision:ssdlite320_mobilenet_v3_lage", f"did you mean '{SSDLITE}'"),
        ("torchvision:resnet50", "no detector 'resnet50'"),
        ("torchvision:", "no detector ''"),
    ],
)
def test_names_that_do_not_exist(spelling: str, words: str):
    with pytest.raises(LeanposeError, match=words):
        Detector.load(spelling)


def test_settings_that_do_not_fit():
    with pytest.raises(LeanposeError, match="input size"):
        Detector.load(f"torchvision:{SSDLITE}", input_size=(320, 320))
    with pytest.raises(LeanposeError, match="threshold"):
        Detector.load(f"torchvision:{SSDLITE}", threshold=2)
