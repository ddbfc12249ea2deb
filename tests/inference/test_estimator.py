"""The estimator: known answers, and that neither batches nor the kind of input change them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import leanpose
from layered_spots import LayeredSpotFinder
from leanpose.codecs import ScoreCalibration
from leanpose.codecs.base import Heatmaps
from leanpose.codecs.heatmap import Encoding
from leanpose.errors import LeanposeError
from leanpose.inference import estimator as estimator_file
from leanpose.inference.detectors import Detector, WholeImage
from leanpose.inference.estimator import PoseEstimator
from leanpose.models.base import PoseOutput
from spots import Scene, SpotFinder, paint_spots, scene


class FixedBoxes(Detector):
    """Gives these boxes for the first, second … image."""

    name = "fixed"

    def __init__(self, *boxes: np.ndarray) -> None:
        self.boxes = iter(boxes)

    def __call__(self, images):
        return [(b, np.full(len(b), 0.7)) for _, b in zip(images, self.boxes, strict=False)]


class Forbidden(Detector):
    """Must not be asked."""

    name = "forbidden"

    def __call__(self, images):
        raise AssertionError("the detector was asked although there were boxes")


@pytest.mark.parametrize("encoding", ["msra", "unbiased", "udp"])
@pytest.mark.parametrize("flip_test", [False, True])
def test_keypoints_come_out_where_they_are(encoding: Encoding, flip_test: bool):
    model = SpotFinder(encoding)
    given = scene(0, 3)
    poses = PoseEstimator(model, Forbidden(), "cpu", "torch", flip_test=flip_test)(given.image, given.boxes)
    # The classic flip test mirrors crop pixels, so that map pixels meet half a crop pixel off.
    assert np.abs(poses.keypoints - given.points).max() < (0.9 if flip_test and encoding != "udp" else 0.4)
    assert (poses.keypoint_scores > 0.5).all()
    assert (poses.box_scores == 1).all()
    assert poses.skeleton is model.skeleton


def test_people_of_several_images_share_batches(spot_finder: SpotFinder):
    scenes = [scene(seed, people) for seed, people in enumerate((3, 1, 4))]
    estimator = PoseEstimator(spot_finder, Forbidden(), "cpu", "torch", batch_size=5)
    together = estimator([s.image for s in scenes], [s.boxes for s in scenes])
    assert spot_finder.passes == [5, 3]
    for one, poses in zip(scenes, together, strict=True):
        alone = estimator(one.image, one.boxes)
        assert np.allclose(alone.keypoints, poses.keypoints, atol=1e-3)
        assert np.allclose(alone.keypoint_scores, poses.keypoint_scores, atol=1e-5)


def test_a_real_model_gives_the_same_in_any_batch(small_model_file: Path):
    images = [np.random.default_rng(i).integers(0, 255, (200, 150, 3), np.uint8) for i in range(3)]
    boxes = [np.array([[10.0, 10, 90, 190], [30, 5, 140, 180]][: i + 1]) for i in (0, 1, 1)]
    found = [PoseEstimator(small_model_file, Forbidden(), "cpu", batch_size=size)(images, boxes) for size in (1, 2, 64)]
    for a, b in itertools.pairwise(found):
        for one, other in zip(a, b, strict=True):
            assert np.allclose(one.keypoint_scores, other.keypoint_scores, atol=1e-4)
            assert np.allclose(one.keypoints, other.keypoints, atol=0.05)


def test_boxes_may_be_whole_numbers(spot_finder: SpotFinder):
    given = scene(0, 2)
    estimator = PoseEstimator(spot_finder, Forbidden(), "cpu", "torch")
    whole = given.boxes.astype(np.int64)
    assert (whole == given.boxes).all()
    assert (estimator(given.image, whole).keypoints == estimator(given.image, given.boxes).keypoints).all()


def test_the_detectors_boxes_are_used_and_nobody_is_fine(spot_finder: SpotFinder):
    first, third = scene(0, 2), scene(1, 1)
    detector = FixedBoxes(first.boxes, np.zeros((0, 4)), third.boxes)
    found = PoseEstimator(spot_finder, detector, "cpu", "torch")([first.image, first.image, third.image])
    assert [len(poses) for poses in found] == [2, 0, 1]
    assert np.abs(found[0].keypoints - first.points).max() < 0.4
    assert np.abs(found[2].keypoints - third.points).max() < 0.4
    assert found[0].box_scores == pytest.approx([0.7, 0.7])
    assert found[1].keypoints.shape == (0, 3, 2)


@pytest.mark.unshaped
@pytest.mark.parametrize("nobody", [np.zeros((0, 4)), np.zeros(0), []])
def test_no_boxes_is_nobody(spot_finder: SpotFinder, nobody):
    assert len(PoseEstimator(spot_finder, Forbidden(), "cpu", "torch")(scene(0, 1).image, nobody)) == 0
    assert spot_finder.passes == []


@pytest.fixture
def scene_file(tmp_path: Path) -> tuple[Scene, Path]:
    given = scene(5, 2)
    path = tmp_path / "spots.png"
    Image.fromarray(given.image).save(path)
    return given, path


def test_every_kind_of_input_gives_the_same(spot_finder: SpotFinder, scene_file: tuple[Scene, Path]):
    given, path = scene_file
    estimator = PoseEstimator(spot_finder, Forbidden(), "cpu", "torch")
    kinds = [given.image, path, str(path), path.read_bytes(), Image.open(path), Image.open(path).convert("RGBA")]
    found = estimator(kinds, [given.boxes] * len(kinds))
    for poses in found:
        assert (poses.keypoints == found[0].keypoints).all()


def test_rotated_by_exif(spot_finder: SpotFinder, scene_file: tuple[Scene, Path], tmp_path: Path):
    given, _ = scene_file
    turned = Image.fromarray(given.image).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90° clockwise
    path = tmp_path / "turned.png"
    turned.save(path, exif=exif)
    estimator = PoseEstimator(spot_finder, Forbidden(), "cpu", "torch")
    for image in (path, Image.open(path)):
        assert np.abs(estimator(image, given.boxes).keypoints - given.points).max() < 0.4


def test_grey_and_sixteen_bits(spot_finder: SpotFinder, tmp_path: Path):
    points = np.repeat(scene(3, 1).points[:, :1], 3, axis=1)
    grey = paint_spots((200, 200), points, 8)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 256).save(tmp_path / "deep.png")
    estimator = PoseEstimator(spot_finder, Forbidden(), "cpu", "torch")
    for image in (tmp_path / "grey.png", tmp_path / "deep.png", Image.open(tmp_path / "grey.png")):
        assert np.abs(estimator(image, scene(3, 1).boxes).keypoints - points).max() < 0.4


def forms_of(image: np.ndarray) -> dict[str, Any]:
    """The same image in every form that is taken."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")  # and its position is at the end
    tensor = torch.from_numpy(image)
    opaque = np.concatenate([image, np.full_like(image[..., :1], 255)], axis=2)
    return {
        "bytes": buffer.getvalue(), "BytesIO": buffer, "file": io.BufferedReader(io.BytesIO(buffer.getvalue())),  # pyright: ignore
        "Pillow": Image.fromarray(image), "RGBA": opaque, "floats": image / 255.0, "half": (image / 255).astype(np.float32),
        "HWC": tensor, "CHW": tensor.permute(2, 0, 1), "unit": tensor.permute(2, 0, 1).float() / 255,
        "wanting gradients": (tensor.double() / 255).requires_grad_(),
    }  # fmt: skip


@pytest.mark.parametrize("form", forms_of(scene(0, 1).image))
def test_every_form_of_an_image_gives_the_same(spot_finder: SpotFinder, form: str):
    given = scene(2, 2)
    estimator = PoseEstimator(spot_finder, Forbidden(), "cpu")
    expected = estimator(given.image, given.boxes)
    poses = estimator(forms_of(given.image)[form], given.boxes)
    assert (poses.keypoints == expected.keypoints).all()
    assert poses.image_size == given.image.shape[:2]
    assert (poses.draw() == expected.draw()).all()


@pytest.mark.parametrize(
    "grey", [np.array, lambda image: image[..., None], torch.tensor, lambda image: torch.tensor(image)[None]]
)
def test_grey_arrays(spot_finder: SpotFinder, grey):
    points = np.repeat(scene(3, 1).points[:, :1], 3, axis=1)
    image = grey(paint_spots((200, 200), points, 8)[..., 0])
    poses = PoseEstimator(spot_finder, Forbidden(), "cpu")(image, scene(3, 1).boxes)
    assert np.abs(poses.keypoints - points).max() < 0.4
    assert poses.draw().shape == (200, 200, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, a link to one of them, a video and a text."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.png", "deep/a.png")):
        Image.fromarray(scene(seed, 1).image).save(tmp_path / "in" / name)
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "clip.mp4").write_bytes(b"")
    (tmp_path / "in" / "notes.txt").write_text("")
    return tmp_path / "in"


def test_many_images(spot_finder: SpotFinder, folder: Path):
    estimator = PoseEstimator(spot_finder, "whole-image", "cpu")
    images = [np.asarray(Image.open(folder / name)) for name in ("a.png", "b.png", "deep/a.png")]
    names = [str(folder / name) for name in ("a.png", "b.png", "deep/a.png")]
    expected = [poses.keypoints for poses in estimator(images)]
    batch = np.stack(images)
    with pytest.warns(UserWarning, match=r"2 videos and links in .*clip\.mp4, link\.png"):
        below = estimator(folder)
    many: list[Any] = [
        below, estimator(tuple(images)), estimator(image for image in images), estimator(batch),
        estimator(torch.from_numpy(batch).permute(0, 3, 1, 2)), estimator([f"{folder}/[ab].png", folder / "deep"]),
    ]  # fmt: skip
    for found in many:
        assert isinstance(found, list)
        assert all((poses.keypoints == points).all() for poses, points in zip(found, expected, strict=True))
    assert [poses.image_name for poses in below] == names
    assert [poses.image_name for poses in estimator(str(folder / "*" / "*.png"))] == names[2:]
    assert estimator([]) == []


def test_a_stream_reads_as_it_is_read(spot_finder: SpotFinder, folder: Path):
    estimator = PoseEstimator(spot_finder, "whole-image", "cpu", batch_size=1)
    given = []

    def images():
        for seed in range(12):
            given.append(seed)
            yield scene(seed, 1).image

    found = estimator(images(), stream=True)
    assert isinstance(found, Iterator)
    next(found)
    assert len(given) <= 4  # no more than a block ahead
    assert len(list(found)) == 11
    assert [len(poses) for poses in estimator(folder / "a.png", stream=True)] == [1]


def test_folders_have_no_boxes(spot_finder: SpotFinder, folder: Path, tmp_path: Path):
    estimator = PoseEstimator(spot_finder, "whole-image", "cpu")
    box = np.array([[0, 0, 10, 10]])
    sources: list[Any] = [folder, [folder], iter([])]
    for source in sources:
        with pytest.raises(LeanposeError, match="not for a folder"):
            estimator(source, [box])
    (tmp_path / "empty").mkdir()
    with pytest.raises(LeanposeError, match="no images"):
        estimator(tmp_path / "empty")


def test_results_remember_their_image(spot_finder: SpotFinder, folder: Path):
    estimator = PoseEstimator(spot_finder, "whole-image", "cpu")
    image = scene(0, 1).image
    poses = estimator(image)
    assert poses.image is image  # no copy
    of_file = estimator(folder / "a.png")
    assert of_file.image == folder / "a.png"  # read again where it is needed
    assert of_file[:0].image == of_file.image
    assert (of_file.draw() == poses.draw(image)).all()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((10, 10, 3), np.uint16), "uint8"),
        (np.zeros((3, 10, 10), np.uint8), r"\(height, width, 3\)"),
        (np.zeros((10, 10, 3), bool), "bool"),
        (np.full((10, 10, 3), 200.0), "between 200 and 200"),
        (np.full((10, 10, 3), np.nan), "between nan and nan"),
        (torch.full((3, 10, 10), -1.2), "between -1.2"),
        (torch.zeros((3, 10, 10), dtype=torch.int64), "An image tensor"),
        (io.StringIO("text"), "mode 'rb'"),
        ("https://a.org/x.jpg", "is an address"),
        ("clip.mp4", "leanpose predict"),
        (np.zeros((0, 10, 3), np.uint8), "RGB"),
        (7, "int"),
        ("absent.jpg", r"absent\.jpg"),
        (b"nothing like an image", "not an image"),
    ],
)
def test_images_that_cannot_be_used(spot_finder: SpotFinder, image, words: str):
    with pytest.raises(LeanposeError, match=words):
        PoseEstimator(spot_finder, "whole-image", "cpu", "torch")(image)


def test_a_pillow_image_that_is_cut_off(spot_finder: SpotFinder):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)).save(buffer, "JPEG")
    half = Image.open(io.BytesIO(buffer.getvalue()[:9000]))
    with pytest.raises(LeanposeError, match="cannot be decoded"):
        PoseEstimator(spot_finder, "whole-image", "cpu", "torch")(half)


@pytest.mark.unshaped
@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (np.zeros(4), "shape"),
        (np.zeros((2, 5)), "shape"),
        ([[0, 0, 10, "wide"]], "numbers"),
        ([[0, 0, 10, np.nan]], "Box 0"),
        ([[0, 0, 10, 10], [5, 5, 5, 9]], "Box 1"),
    ],
)
def test_boxes_that_cannot_be_used(spot_finder: SpotFinder, boxes, words: str):
    with pytest.raises(LeanposeError, match=words):
        PoseEstimator(spot_finder, "whole-image", "cpu", "torch")(scene(0, 1).image, boxes)


def test_a_list_of_images_wants_a_list_of_boxes(spot_finder: SpotFinder):
    given = scene(0, 1)
    wrong: list[Any] = [given.boxes, [given.boxes] * 2]
    for boxes in wrong:
        with pytest.raises(LeanposeError, match="list of 1"):
            PoseEstimator(spot_finder, "whole-image", "cpu", "torch")([given.image], boxes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"backend": "onnxruntme"}, "did you mean 'onnxruntime'"),
        ({"backend": "onnxruntime", "precision": "bf16"}, "not in bf16"),
        ({"skeleton": "coco17"}, "has its own"),
        ({"backend": "torhc"}, "did you mean 'torch'"),
        ({"precision": "int8"}, "precision"),
        ({"device": "toaster"}, "toaster"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"detector": "absent.onnx"}, r"absent\.onnx"),
        ({"model": "absent.safetensors"}, r"absent\.safetensors"),
        ({"batch_size": 0}, "batch"),
        ({"person_threshold": 1.5}, "person threshold"),
    ],
)
def test_settings_that_do_not_exist(spot_finder: SpotFinder, arguments: dict, words: str):
    with pytest.raises(LeanposeError, match=words):
        PoseEstimator(**{"model": spot_finder, "detector": "whole-image", **arguments})


@pytest.mark.parametrize("detector", ["auto", "rtmdet-nano"])
def test_the_detector_of_the_package(spot_finder: SpotFinder, detector: str):
    chosen = PoseEstimator(spot_finder, detector, "cpu", "torch").detector
    assert chosen.name == "rtmdet_nano_person.onnx (RTMDet)"
    assert isinstance(PoseEstimator(spot_finder, "whole-image", "cpu", "torch").detector, WholeImage)
    with pytest.raises(LeanposeError, match="did you mean 'whole-image'"):
        PoseEstimator(spot_finder, "whole_image", "cpu", "torch")


def test_of_detected_people_the_certain_ones_stay_once():
    given = scene(0, 3)
    again, nobody = given.boxes[1:2] + np.array([3.0, 2, 5, 1]), np.array([[0.0, 0, 30, 30]])
    twice = np.concatenate([given.boxes, again, nobody])
    everybody = PoseEstimator(SpotFinder(), Forbidden(), "cpu", "torch")
    assert len(everybody(given.image, twice)) == 5  # boxes of the caller all stay
    estimator = PoseEstimator(SpotFinder(), FixedBoxes(twice, given.boxes[:1]), "cpu", "torch", batch_size=2)
    found, other = estimator([given.image, given.image])
    assert (estimator.uncertain, estimator.duplicates) == (1, 1)
    assert len(other) == 1
    assert np.abs(np.sort(found.boxes[:, 0]) - given.boxes[:, 0]).max() <= 3
    assert np.abs(found.keypoints[np.argsort(found.boxes[:, 0])] - given.points).max() < 0.5
    lenient = PoseEstimator(SpotFinder(), FixedBoxes(twice), "cpu", "torch", person_threshold=0)
    assert len(lenient(given.image)) == 4
    assert (lenient.uncertain, lenient.duplicates) == (0, 1)
    strict = PoseEstimator(SpotFinder(), FixedBoxes(twice), "cpu", "torch", person_threshold=0.99)
    assert len(strict(given.image)) == 0


class Columns(SpotFinder):
    """Finds its keypoints in the first, the third and the middle column of the map, whatever it sees."""

    def read(self, images: torch.Tensor) -> PoseOutput:
        heatmaps = torch.zeros(len(images), 3, 32, 24)
        for keypoint, column in enumerate((0, 2, 12)):
            heatmaps[:, keypoint, 16, column] = 0.9
        return PoseOutput(Heatmaps(heatmaps))


@pytest.mark.parametrize("two_pass", [False, True])
def test_keypoints_outside_the_image_keep_their_place_and_lose_their_score(two_pass: bool):
    estimator = PoseEstimator(Columns(), "whole-image", "cpu", "torch", two_pass=two_pass)
    image, box = np.zeros((200, 200, 3), np.uint8), np.array([[0.0, 40, 90, 160]])
    right, corner = np.array([50.0, 0, 50, 0]), np.array([110.0, 38, 110, 38])
    inside, cut = estimator(image, box + right), estimator(image, box)
    assert np.allclose(inside.keypoint_scores, 0.9)
    assert np.allclose(cut.keypoints, inside.keypoints - [50, 0], atol=1e-3)
    beyond = -0.5 - cut.keypoints[0, :, 0]
    assert beyond[0] > 6 > beyond[1] > 0 > beyond[2]  # 6 pixels are 5 % of the box's 120
    assert cut.keypoint_scores[0] == pytest.approx([0, 0.9 * (1 - beyond[1] / 6), 0.9], abs=1e-4)
    low = estimator(image, box + corner)  # truncated at the right and the bottom: nothing falls outside there
    assert np.allclose(low.keypoint_scores, 0.9)
    assert (estimator(image, np.array([[110.0, 150, 290, 390]])).keypoint_scores[0] == 0).all()


def test_scores_are_calibrated_before_they_fall_outside_the_image():
    model = Columns()
    model.codec = model.codec.with_calibration(ScoreCalibration(1.0, (-2.0,) * len(model.skeleton)))
    raw, calibrated = (PoseEstimator(m, "whole-image", "cpu") for m in (Columns(), model))
    image, box = np.zeros((200, 200, 3), np.uint8), np.array([[0.0, 40, 90, 160]])
    inside = calibrated(image, box + np.array([50.0, 0, 50, 0]))
    assert inside.calibrated
    assert inside[:1].calibrated
    assert inside.keypoint_scores == pytest.approx(
        np.full(inside.keypoint_scores.shape, 9 / (9 + np.exp(2.0))), abs=1e-4
    )
    factor = raw(image, box).keypoint_scores / 0.9  # 0, between, and 1
    assert calibrated(image, box).keypoint_scores == pytest.approx(factor * inside.keypoint_scores, abs=1e-4)


def test_two_pass_looks_again_where_the_person_is(monkeypatch: pytest.MonkeyPatch):
    points = np.array([[[700.0, 400], [820, 560], [620, 700]]])
    image = paint_spots((900, 1200), points, 25)  # narrower than a map pixel of the first pass
    monkeypatch.setattr(estimator_file, "SECOND_PASS_POINTS", 3)
    plain, refined = (
        PoseEstimator(SpotFinder(), "whole-image", "cpu", "torch", two_pass=r)(image) for r in (False, True)
    )
    low, high = refined.boxes[0, :2], refined.boxes[0, 2:]
    assert (low > 300).all()
    assert (high < 900).all()
    before, after = (np.abs(poses.keypoints - points).max() for poses in (plain, refined))
    assert after < 1
    assert after < before


def test_two_pass_changes_nothing_where_nothing_is_found():
    image = np.zeros((300, 300, 3), np.uint8)
    plain, refined = (
        PoseEstimator(SpotFinder(), "whole-image", "cpu", "torch", two_pass=r)(image) for r in (False, True)
    )
    assert (plain.keypoints == refined.keypoints).all()
    assert (refined.keypoint_scores == 0).all()


def test_a_stream_reads_only_what_it_needs(spot_finder: SpotFinder):
    given = scene(0, 1)
    taken = 0

    def endless() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal taken
        while True:
            taken += 1
            # Every other image is empty, so that batches fill slowly.
            yield given.image, given.boxes if taken % 2 else np.zeros((0, 4))

    estimator = PoseEstimator(spot_finder, Forbidden(), "cpu", "torch", batch_size=4)
    found = list(itertools.islice(estimator.stream(endless()), 10))
    assert [len(poses) for poses in found] == [1, 0] * 5
    assert taken <= 10 + 4


def test_large_images_do_not_pile_up(spot_finder: SpotFinder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimator_file, "HELD_PIXELS", 100_000)
    given = scene(0, 1)
    list(
        PoseEstimator(spot_finder, Forbidden(), "cpu", "torch", batch_size=64).stream([(given.image, given.boxes)] * 7)
    )
    assert spot_finder.passes == [3, 3, 1]


def test_half_precision_agrees():
    given = scene(0, 2)
    full, half = (
        PoseEstimator(LayeredSpotFinder(), Forbidden(), "cpu", precision=precision)(given.image, given.boxes)
        for precision in ("fp32", "bf16")
    )
    assert np.abs(full.keypoints - given.points).max() < 0.4
    assert 0 < np.abs(full.keypoints - half.keypoints).max() < 2


def test_public_names():
    assert leanpose.PoseEstimator is PoseEstimator
    assert leanpose.PoseResult.__module__ == "leanpose.inference.results"
