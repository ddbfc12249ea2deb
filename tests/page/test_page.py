"""`leanpose page`: what it writes and refuses, and its JavaScript beside the Python that it repeats (where node is installed)."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from onnx import TensorProto

from leanpose import PoseEstimator
from leanpose.backends.base import ModelSpec
from leanpose.backends.exported import ExportCard
from leanpose.codecs import HeatmapCodec
from leanpose.codecs.calibration import ScoreCalibration
from leanpose.errors import LeanposeError
from leanpose.geometry import Warp, bbox_to_center_scale, warp_image, warp_matrix
from leanpose.inference.detector_outputs import Detections
from leanpose.inference.detector_pixels import PADDING, RTMDET_PIXELS, place
from leanpose.inference.detectors import Detector
from leanpose.inference.results import PoseResult
from leanpose.page import runtime, write_page
from leanpose.page.page import STATIC, page_settings
from leanpose.skeleton import COCO17
from leanpose.video.smoothing import PoseSmoother
from pose_files import constant_file

SCRIPTS = sorted(STATIC.glob("*.js"))
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def card(*, decoding: bool = True, calibrated: bool = False) -> ExportCard:
    calibration = ScoreCalibration(1.0, (0.0,) * 17) if calibrated else None
    codec = HeatmapCodec((64, 48), (16, 12), encoding="udp", decoding="dark", calibration=calibration)
    spec = ModelSpec("tiny", COCO17, codec, (64, 48), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    return ExportCard(spec, True, decoding, "fp32", {"licence": "CC0", "training_data": ["noise"]})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file of `leanpose export --include-decoding` that finds everybody in the corner."""
    answers = {"keypoints": np.zeros((1, 17, 2)), "scores": np.ones((1, 17))}
    path, shape = tmp_path / "tiny.onnx", ["batch", 64, 48, 3]
    return constant_file(path, shape, answers, TensorProto.UINT8, {"leanpose": card().to_json()})


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """onnxruntime-web's unpacked folder, made up, with the checksums that go with it."""
    folder = tmp_path / "package"
    (folder / "dist").mkdir(parents=True)
    contents = {name: f"content of {name}".encode() for name in runtime.SHA256}
    for name, content in contents.items():
        (folder / "dist" / name).write_bytes(content)
    monkeypatch.setattr(runtime, "SHA256", {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()})
    return folder


@pytest.fixture
def archive(dist: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as npm packs it."""
    path = dist.with_name("onnxruntime-web.tgz")
    with tarfile.open(path, "w:gz") as file:
        file.add(dist, "package")
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    monkeypatch.setattr(runtime, "INTEGRITY", f"sha512-{digest}")
    return path


def fake_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of that name that does this with the folder to write to, `$4`."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_command_writes_a_folder_that_needs_nothing_else(
    command: Callable[..., Any], model: Path, dist: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    ended = command("page", model, "-o", site, "--runtime", dist)
    assert ended.returncode == 0, ended.stderr
    assert "python -m http.server" in ended.stdout
    settings = json.loads((site / "settings.json").read_text())
    assert settings["name"] == "tiny"
    assert settings["licence"] == "CC0"
    assert gzip.decompress((site / settings["models"]["pose"]).read_bytes()) == model.read_bytes()
    for backend, files in settings["runtime"].items():
        original = dist / "dist" / runtime.RUNTIMES[backend].binary
        assert gzip.decompress((site / files["binary"]).read_bytes()) == original.read_bytes()
        assert (site / files["module"]).is_file()
        assert (site / files["loader"]).is_file()
    page = (site / "index.html").read_text()
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    imported = [name for script in SCRIPTS for name in re.findall(r'from "\./([^"]+)"', script.read_text())]
    assert {"app.js", "style.css", "geometry.js"} <= {*named, *imported}
    for name in (*named, *imported):
        assert (site / name).is_file()


def test_nothing_of_another_host_is_named_or_allowed() -> None:
    for file in STATIC.iterdir():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", file.read_text()), file.name
    policy = re.findall(r'Content-Security-Policy" content="([^"]+)"', (STATIC / "index.html").read_text())[0]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    assert rules["connect-src"] == "'self'"
    for sources in rules.values():
        assert set(sources.split()) <= {"'self'", "'none'", "blob:", "'wasm-unsafe-eval'"}


def test_an_earlier_page_is_replaced_without_the_files_that_it_no_longer_needs(
    model: Path, dist: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    both = write_page(model, site, runtime=dist)
    smaller = write_page(model, site, runtime=dist, webgpu=False)
    left = {path.name for path in site.iterdir() if not path.name.startswith(".")}
    assert left == smaller.sizes.keys()
    assert both.sizes.keys() - left == {
        "ort.webgpu.min.mjs",
        *(f"ort-wasm-simd-threaded.asyncify.{e}" for e in ("mjs", "bin")),
    }
    assert smaller.bytes == sum((site / name).stat().st_size for name in left)


def test_other_folders_and_models_that_the_page_cannot_decode_are_refused(
    model: Path, dist: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(LeanposeError, match="no earlier page"):
        write_page(model, tmp_path / "mine", runtime=dist)
    answers, metadata = {"heatmaps": np.zeros((1, 17, 16, 12))}, {"leanpose": card(decoding=False).to_json()}
    raw = constant_file(tmp_path / "raw.onnx", ["batch", 64, 48, 3], answers, TensorProto.UINT8, metadata)
    with pytest.raises(LeanposeError, match="--include-decoding"):
        write_page(raw, tmp_path / "site", runtime=dist)
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(("calibrated", "threshold"), [(False, 0.2), (True, 0.4)])
def test_settings_follow_the_model(calibrated: bool, threshold: float) -> None:
    settings = page_settings(card(calibrated=calibrated), "mine", ["wasm"])
    assert settings["scores"]["keypoint"] == threshold
    assert settings["crop"] == {"height": 64, "width": 48, "padding": 1.25, "warp": "udp"}
    assert list(settings["runtime"]) == ["wasm"]
    typed = (STATIC / "estimator.js").read_text()
    assert set(re.findall(r"@property \{.+\} (\w+)", typed)) >= settings.keys()


def test_npm_fetches_the_runtime_once(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANPOSE_CACHE", str(tmp_path / "cache"))
    fake_npm(
        tmp_path / "bin", f'test "$1 $2" = "pack onnxruntime-web@{runtime.VERSION}" && cp {archive} "$4"', monkeypatch
    )
    files = runtime.runtime_files()
    assert files.keys() == runtime.SHA256.keys()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.runtime_files() == files
    next((tmp_path / "cache").glob("*/*.wasm")).write_bytes(b"corrupt")
    with pytest.raises(LeanposeError, match="npm, which is not installed"):
        runtime.runtime_files()


def test_a_runtime_that_is_not_the_pinned_one_or_cannot_be_fetched_is_one_sentence(
    archive: Path, dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEANPOSE_CACHE", str(tmp_path / "cache"))
    fake_npm(
        tmp_path / "bin", 'echo "npm error code ENOTFOUND" >&2; echo "npm error no network" >&2; exit 1', monkeypatch
    )
    with pytest.raises(LeanposeError, match=r"could not fetch onnxruntime-web@.+ \(no network\); offline"):
        runtime.runtime_files()
    archive.write_bytes(archive.read_bytes() + b" ")
    with pytest.raises(LeanposeError, match="its sha512 differs"):
        runtime.runtime_files(archive)
    (dist / "dist" / "ort.wasm.min.mjs").write_text("alert(1)")
    with pytest.raises(LeanposeError, match=r"ort\.wasm\.min\.mjs in .+ its sha256 differs"):
        runtime.runtime_files(dist)
    with pytest.raises(LeanposeError, match=r"nowhere\.tgz"):
        runtime.runtime_files(tmp_path / "nowhere.tgz")


def test_the_javascript_stays_small() -> None:
    comment = re.compile(r"\s*(/\*\*|\*|//|$)")
    lines = [line for script in SCRIPTS for line in script.read_text().splitlines()]
    assert sum(not comment.match(line) for line in lines) <= 500


def node(script: str, given: dict[str, Any]) -> Any:
    """What a module gives back by `answer(value)`; it finds the page's files in `page` and what is handed to it in `given`."""
    head = f"""
      import {{ readFileSync }} from "node:fs";
      const page = (name) => import({json.dumps(STATIC.as_uri())} + "/" + name);
      const given = JSON.parse(readFileSync(0, "utf8"));
      const answer = (value) => console.log(JSON.stringify(value));
    """
    command = ["node", "--input-type=module", "--eval", head + script]
    ended = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@needs_node
def test_crops_and_detector_input_are_those_of_python() -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (40, 30, 3), np.uint8), np.ones((3, 3, 1), np.uint8))
    boxes = [[-20.3, 30.7, 60.4, 110.2], [5, 5, 80, 20], [30, 20, 30.2, 20.1]]
    detector = {"size": RTMDET_PIXELS.size, "padding": PADDING, "mean": RTMDET_PIXELS.mean, "std": RTMDET_PIXELS.std}
    rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    given = {"width": 90, "height": 120, "data": rgba.ravel().tolist(), "boxes": boxes, "detector": detector}
    found = node(
        """
        const { cropMatrix, placeImage, warpImage } = await page("geometry.js");
        const crops = ["msra", "udp"].flatMap((warp) => given.boxes.map((box) => {
          const out = new Uint8Array(64 * 48 * 3);
          warpImage(given, cropMatrix(box, 64, 48, 1.25, warp), 64, 48, out);
          return [...out];
        }));
        const { pixels, factor } = placeImage(given, given.detector);
        answer({ crops, pixels: [...pixels], factor });
        """,
        given,
    )
    centers, scales = bbox_to_center_scale(np.array(boxes), (64, 48))
    pairs = [(warp, *region) for warp in get_args(Warp) for region in zip(centers, scales, strict=True)]
    for (warp, center, scale), crop in zip(pairs, found["crops"], strict=True):
        expected = warp_image(image, warp_matrix(center, scale, (64, 48), warp=warp), (64, 48)).astype(int)
        difference = np.abs(np.array(crop).reshape(expected.shape) - expected)
        assert difference.max() <= 1
        assert difference.mean() < 0.01
    placed, factors, _ = place(image, RTMDET_PIXELS, RTMDET_PIXELS.size)
    np.testing.assert_allclose(np.reshape(found["pixels"], (3, 320, 320)).transpose(1, 2, 0), placed, atol=1e-4)
    assert found["factor"] == factors[0]


class Fixed(Detector):
    """Finds the same boxes in every image."""

    def __init__(self, boxes: np.ndarray, scores: np.ndarray) -> None:
        self.found = boxes, scores

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        return [self.found for _ in images]


@needs_node
@pytest.mark.parametrize("calibrated", [False, True])
def test_poses_scores_and_duplicates_are_those_of_python(tmp_path: Path, calibrated: bool) -> None:
    """Of five boxes the second is the first again, the third reaches out of the image, the last one is below all thresholds."""
    rng = np.random.default_rng(2)
    boxes = np.array([[40, 30, 90, 150], [42, 31, 91, 149], [150, 80, 200, 200], [100, 5, 140, 90], [10, 10, 60, 60]])
    detections = boxes.astype(np.float64), np.array([0.9, 0.8, 0.7, 0.6, 0.1])
    answers = {"keypoints": rng.uniform(0, 48, (1, 17, 2)), "scores": rng.uniform(0.1, 1, (1, 17))}
    asked, metadata = ["batch", 64, 48, 3], {"leanpose": card(calibrated=calibrated).to_json()}
    path = constant_file(tmp_path / "tiny.onnx", asked, answers, TensorProto.UINT8, metadata)
    estimator = PoseEstimator(path, Fixed(*detections), batch_size=1)
    expected = estimator(np.zeros((160, 180, 3), np.uint8))
    given = {
        "settings": page_settings(card(calibrated=calibrated), "mine", ["wasm"]),
        "people": [{"box": box, "score": score} for box, score in zip(boxes.tolist(), detections[1], strict=True)],
        "keypoints": answers["keypoints"].ravel().tolist(),
        "scores": answers["scores"].ravel().tolist(),
    }
    found = node(
        """
        const { PoseEstimator } = await page("estimator.js");
        class Tensor { constructor(type, data, dims) { Object.assign(this, { data, dims }); } }
        const repeated = (values, count) => ({ data: Array.from({ length: count }, () => values).flat() });
        const model = { run: async ({ images: { dims: [count] } }) =>
          ({ keypoints: repeated(given.keypoints, count), scores: repeated(given.scores, count) }) };
        const estimator = new PoseEstimator(given.settings, { Tensor }, null, model);
        estimator.detect = async () => given.people;
        answer(await estimator.estimate({ width: 180, height: 160, data: new Uint8Array(4 * 160 * 180) }));
        """,
        given,
    )
    assert estimator.duplicates == 1
    assert estimator.uncertain == 1
    assert len(found) == len(expected) == 3
    points = np.array([[[point["x"], point["y"], point["score"]] for point in pose["keypoints"]] for pose in found])
    assert (points[..., 2] == 0).any()  # outside the image
    np.testing.assert_allclose(points[..., :2], expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(points[..., 2], expected.keypoint_scores, atol=1e-5)
    np.testing.assert_allclose([pose["score"] for pose in found], expected.person_scores, atol=1e-5)
    names = ("xMin", "yMin", "xMax", "yMax")
    np.testing.assert_array_equal([[pose["box"][name] for name in names] for pose in found], expected.boxes)


@needs_node
def test_people_are_followed_and_smoothed_as_in_python() -> None:
    """Two people walk; one is lost for a frame, and a third box of the detector is a duplicate."""
    rng = np.random.default_rng(1)
    settings = page_settings(card(), "mine", ["wasm"])
    shape = rng.uniform(0.1, 0.9, (17, 2)) * (40, 100)
    walks = np.array([[10, 20], [200, 20]]), np.array([[3, 0], [-2, 0]])
    places = [(walks[0] + t * walks[1])[:, None] for t in range(24)]
    frames = [shape[None] + place + rng.normal(0, 1, (2, 17, 2)) for place in places]
    given = {"settings": settings, "frames": [frame.tolist() for frame in frames], "lost": 15}
    found = node(
        """
        const { PoseEstimator } = await page("estimator.js");
        const { PoseTracker } = await page("tracking.js");
        let frame = 0;
        const keypoints = (one) => given.frames[frame][one];
        const boxOf = (one) => [keypoints(one)[0][0] - 20, 10, keypoints(one)[0][0] + 40, 130];
        class Tensor { constructor(type, data, dims) { Object.assign(this, { data, dims }); } }
        const detector = { run: async () => {
          const rows = [[...boxOf(0), 0.9], [...boxOf(1), 0.8], [...boxOf(1).map((v) => v + 3), 0.5]];
          const factor = 320 / 400;
          return { dets: { data: rows.flatMap((row) => row.map((v, i) => (i < 4 ? v * factor : v))) }, labels: { data: [0, 0, 0] } };
        } };
        const estimator = new PoseEstimator(given.settings, { Tensor }, detector, null);
        // The model knows by the box's place whom it sees.
        estimator.posesIn = async (image, people) => people.map(({ box, score }) => {
          const middle = (box[0] + box[2]) / 2;
          const one = Math.abs(middle - keypoints(0)[0][0]) < Math.abs(middle - keypoints(1)[0][0]) ? 0 : 1;
          const score2 = one === 1 && frame === given.lost ? 0.1 : 0.9;
          const points = keypoints(one).map(([x, y], k) => ({ x, y, score: score2, name: given.settings.skeleton.keypoints[k] }));
          return { score, keypoints: points, box: { xMin: 0, yMin: 0, xMax: 60, yMax: 120, width: 60, height: 120 } };
        });
        const tracker = new PoseTracker(estimator), image = { width: 400, height: 400, data: new Uint8Array(400 * 400 * 4) };
        const result = [];
        for (; frame < given.frames.length; frame++) result.push(await tracker.next(image, frame / 30));
        answer(result);
        """,
        given,
    )
    ids = [[pose["id"] for pose in poses] for poses in found]
    assert ids[:15] == [[1, 2]] * 15
    assert ids[15] == [1]
    assert ids[16:] == [[1, 3]] * 8  # a new person to the page, which forgets those whom it loses
    smoother, boxes = PoseSmoother(), np.array([[0, 0, 60, 120]] * 2, np.float64)
    for t in range(15):
        poses = PoseResult(frames[t], np.full((2, 17), 0.9), boxes, np.ones(2), COCO17, track_ids=np.array([1, 2]))
        expected = smoother(poses, t / 30).keypoints
        points = np.array([[[point["x"], point["y"]] for point in pose["keypoints"]] for pose in found[t]])
        np.testing.assert_allclose(points, expected, atol=1e-3)
