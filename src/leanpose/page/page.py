"""Write the page: its static files, the networks as ONNX, onnxruntime-web, and the constants that both sides share."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanpose.backends import open_exported
from leanpose.backends.exported import ExportCard
from leanpose.codecs.calibration import PROBABILITY_THRESHOLD, RAW_THRESHOLD
from leanpose.errors import LeanposeError
from leanpose.export import export_model
from leanpose.files import describe_os_error, require_own_folder, staging_folder
from leanpose.inference import estimator
from leanpose.inference.detector_pixels import PADDING, RTMDET_PIXELS
from leanpose.inference.detectors import DEFAULT, PACKAGED, THRESHOLD
from leanpose.locks import lock_folder
from leanpose.page.runtime import PACKAGE, RUNTIMES, VERSION, runtime_files
from leanpose.skeleton import Skeleton
from leanpose.video import tracks
from leanpose.video.smoothing import OneEuro

STATIC = Path(__file__).parent / "static"
SETTINGS = "settings.json"
MODELS = {"pose": "pose.bin", "detector": "detector.bin"}
"""Files that the page unpacks itself: hosts that compress nothing serve them small all the same. They are not called
`.gz`, since some hosts let the browser unpack files of that name."""

DETECT_EVERY = 10  # frames; as often as `leanpose.video.tracking.PoseTracker` (5) would make the webcam stutter
START_SCORE, LOST_SCORE = 0.4, 0.3  # as there
LICENCES = "licences.txt"


@dataclass(frozen=True)
class PageReport:
    """What was written.

    Attributes:
        folder: the page's.
        sizes: bytes of each file, by name.
        card: what the pose model's file says of itself.
    """

    folder: Path
    sizes: dict[str, int]
    card: ExportCard

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(self.sizes.values())


def write_page(
    model: str | Path,
    folder: Path | str,
    *,
    runtime: Path | None = None,
    webgpu: bool = True,
    advance: Callable[[str], None] = lambda _: None,
) -> PageReport:
    """Write a folder that any static host can serve: a page that finds people and their poses in the browser.

    Args:
        model: a released name, a weights file, or an `.onnx` file of `leanpose export --include-decoding`.
        folder: new, empty, or an earlier page's, which is replaced.
        runtime: the archive of onnxruntime-web or its unpacked folder; None: fetched with npm once.
        webgpu: with the files that compute on the browser's GPU.
        advance: told what is under way.

    Raises:
        LeanposeError: the folder holds something else, onnxruntime-web cannot be had, or the model does not decode its
            prediction inside of its ONNX file.
    """
    folder = Path(folder)
    require_own_folder(folder, SETTINGS, "page")
    backends = [name for name in RUNTIMES if webgpu or name != "webgpu"]
    with lock_folder(folder), staging_folder(folder / "page") as staging:
        advance(f"getting {PACKAGE} {VERSION}")
        browser = runtime_files(runtime)
        advance("exporting the pose model")
        path, card = _pose_model(model, staging)
        advance("packing")
        contents = {file.name: file.read_bytes() for file in sorted(STATIC.iterdir()) if file.is_file()}
        contents[MODELS["pose"]] = _packed(path.read_bytes())
        contents[MODELS["detector"]] = _packed(PACKAGED[DEFAULT].read_bytes())
        for backend in backends:
            module, loader, binary = RUNTIMES[backend].names
            contents |= {
                module: browser[module],
                loader: browser[loader],
                _packed_name(binary): _packed(browser[binary]),
            }
        contents[LICENCES] = _licences(card, Path(model).stem).encode()
        contents["apache-2.0.txt"] = PACKAGED[DEFAULT].with_name("LICENSE-Apache-2.0.txt").read_bytes()
        contents[SETTINGS] = json.dumps(
            page_settings(card, Path(model).stem, backends), indent=1
        ).encode()  # the last: the page is whole
        try:
            for name, content in contents.items():
                (staging / name).write_bytes(content)
                os.replace(staging / name, folder / name)
            for name in RUNTIMES["webgpu"].names:  # an earlier page's
                if _packed_name(name) not in contents:
                    (folder / _packed_name(name)).unlink(missing_ok=True)
        except OSError as error:
            raise describe_os_error(folder, error) from error
    return PageReport(folder, {name: len(content) for name, content in contents.items()}, card)


def page_settings(card: ExportCard, name: str, backends: list[str]) -> dict[str, Any]:
    """The constants that the page's JavaScript takes from Python, as its type `Settings` says.

    Args:
        card: of the pose model's file.
        name: of the model, for people.
        backends: of `RUNTIMES` that the page has.
    """
    spec, smoothing = card.spec, OneEuro()
    calibrated = spec.codec.calibration is not None
    follows = tracks.spans_a_person(spec.skeleton)  # else keypoints do not say where the person is
    licence = (card.weights or {}).get("licence") or "not stated"
    return {
        "name": name,
        "licence": licence,
        "skeleton": _skeleton(spec.skeleton),
        "crop": {
            "height": spec.input_size[0], "width": spec.input_size[1], "padding": spec.codec.padding,
            "warp": spec.codec.warp,
        },
        "detector": {
            "size": RTMDET_PIXELS.size, "padding": PADDING, "mean": RTMDET_PIXELS.mean, "std": RTMDET_PIXELS.std,
            "threshold": THRESHOLD,
        },
        "scores": {
            "calibrated": calibrated, "keypoint": PROBABILITY_THRESHOLD if calibrated else RAW_THRESHOLD,
            "person": estimator.PERSON_THRESHOLD, "outsideMargin": estimator.OUTSIDE_MARGIN,
        },
        "duplicates": {
            "oks": estimator.DUPLICATE_OKS, "score": estimator.DUPLICATE_SCORE, "bodyShare": estimator.BODY_SHARE,
        },
        "tracking": {
            "detectEvery": DETECT_EVERY if follows else 1, "startScore": START_SCORE, "lostScore": LOST_SCORE,
            "covered": tracks.COVERED, "unconfirmed": tracks.UNCONFIRMED, "certain": tracks.CERTAIN,
            "margin": tracks.MARGIN, "shrink": tracks.SHRINK,
            "smoothing": {
                "minCutoff": smoothing.min_cutoff, "beta": smoothing.beta,
                "derivativeCutoff": smoothing.derivative_cutoff, "minScore": smoothing.min_score,
            },
        },
        "runtime": {
            backend: dict(zip(("module", "loader", "binary"), map(_packed_name, RUNTIMES[backend].names), strict=True))
            for backend in backends
        },
        "models": MODELS,
    }  # fmt: skip


def _skeleton(skeleton: Skeleton) -> dict[str, Any]:
    return {"keypoints": skeleton.keypoints, "limbs": skeleton.limbs, "sigmas": skeleton.sigmas}


def _pose_model(model: str | Path, staging: Path) -> tuple[Path, ExportCard]:
    """An ONNX file from uint8 crops to keypoints and scores, so that the page has nothing to normalize or to decode."""
    if Path(model).suffix in (".onnx", ".xml"):
        card = open_exported(model).card
        if Path(model).suffix == ".xml" or not (card.includes_preprocessing and card.includes_decoding):
            raise LeanposeError(
                f"{model} cannot run in the page, which needs an .onnx file of `leanpose export --include-decoding`."
            )
        return Path(model), card
    report = export_model(model, staging / "pose.onnx", include_decoding=True)
    return report.path, report.card


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=9, mtime=0)


def _packed_name(name: str) -> str:
    """What a file of onnxruntime-web is called in the page."""
    return name.replace(".wasm", ".bin") if name.endswith(".wasm") else name


def _licences(card: ExportCard, name: str) -> str:
    """Whose the parts of the page are."""
    weights = card.weights or {}
    data = "; ".join(map(str, weights.get("training_data") or ())) or "not stated"
    return f"""The page: leanpose, Apache License 2.0 (apache-2.0.txt).
Person detector: RTMDet-nano, copyright OpenMMLab, Apache License 2.0 (apache-2.0.txt).
Pose model: {name} ({card.spec.name}); licence: {weights.get("licence") or "not stated"}; training data: {data}.
{PACKAGE} {VERSION}: copyright (c) Microsoft Corporation, MIT License:

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
