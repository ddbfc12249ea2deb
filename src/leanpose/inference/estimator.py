"""From images to poses: detector, crops, model, codec, in batches across people and images."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, overload

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from leanpose.backends import FILE_SUFFIXES, open_exported
from leanpose.backends.base import Backend, KeypointArrays, ModelSpec
from leanpose.backends.exported import NO_PREDICTION
from leanpose.backends.model import OWN_SKELETON, say_what_it_is
from leanpose.data.inputs import ImageInput, ImageSource, are_many, as_rgb, each_image, stream_content
from leanpose.data.prefetch import mapped_ahead
from leanpose.device import choose_device, limit_threads
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.geometry import apply_affine, box_area, boxes_from_keypoints, invert_affine
from leanpose.inference.choice import BACKENDS, benchmark_backends, open_backend, remember
from leanpose.inference.detectors import Detections, Detector, WholeImage
from leanpose.inference.results import PoseResult
from leanpose.nms import oks_between, oks_nms
from leanpose.skeleton import FLIP_TEST, Skeleton, get_skeleton
from leanpose.weights import load_model

if TYPE_CHECKING:
    import torch

    from leanpose.models.base import PoseModel

Boxes = Shaped[np.ndarray, "_ 4"]  # integers too
Pixels = UInt8[np.ndarray, "_ _ 3"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]

DEFAULT_MODEL = "leanpose-body-s"
CPU_BATCH, GPU_BATCH = 8, 64  # on a CPU larger batches gain nothing and only hold more images in memory
HELD_PIXELS = 100_000_000  # a batch is not waited for beyond so many pixels of images (300 MB)
PERSON_THRESHOLD = 0.1
DUPLICATE_OKS, DUPLICATE_SCORE = 0.5, 0.2  # poses more alike are one person; keypoints from this score on are compared
BODY_SHARE = 0.53  # of a box is the person, as in COCO's labels
SECOND_PASS_SCORE, SECOND_PASS_POINTS, SECOND_PASS_MARGIN = 0.3, 4, 0.1
OUTSIDE_MARGIN = 0.05  # of a box's longer side: so far outside the image a keypoint's score has fallen to 0
BOX_FORM = "Boxes are an array of numbers of shape (people, 4): x1, y1, x2, y2 in pixels."
BLOCK = 4  # images that one thread processes at a time
LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class _Request:
    """An image being processed: its results, filled person by person, and the number of pending people.

    `detected`: whether the boxes come from the estimator's detector, not from the caller.
    """

    image: Pixels
    poses: PoseResult
    left: int
    detected: bool


_Opened = tuple[ImageInput, Pixels, "Boxes | None"]
"""An image as given, its pixels, and its boxes."""


class PoseEstimator:
    """Estimates the poses of all people in images. It may be called from many threads at once.

    Args:
        model: a model, a released name, a weights file, or an exported file (`.onnx`, or OpenVINO's `.xml`): one of
            `leanpose export`, or an RTMPose as MMDeploy and rtmlib have it.
        detector: `"auto"` (RTMDet-nano of the package, `"rtmdet-nano"`), an ONNX file, `"torchvision:NAME"`, a
            `Detector`, or `"whole-image"` (each image is one person).
        device: `"auto"` (a GPU if there is one), `"cpu"`, `"cuda"`, …
        backend: `"torch"`, `"onnxruntime"`, `"openvino"`, or `"auto"`: the fastest that agrees with torch, if `tune` or
            `leanpose bench` has benchmarked this model on this machine; until then onnxruntime on a CPU, for which the
            model is exported once (torch if it cannot be exported), and torch on a GPU.
        batch_size: crops per batch; 8 on a CPU and 64 on a GPU by default.
        flip_test: average with the mirrored crop: twice the work, slightly more accurate.
        two_pass: run a second pass on the box around the keypoints of the first; the result with the higher score is
            kept. For boxes that are far too large, as the whole image often is.
        precision: `"fp32"`, `"bf16"` (torch, OpenVINO), `"fp16"` (OpenVINO), or `"auto"`: single precision, or lower if
            the benchmark showed that keypoints agree.
        skeleton: skeleton of an exported file that does not name its keypoints.
        person_threshold: minimum `PoseResult.person_scores` of detected people; 0.1 by default, and 0 with
            `"whole-image"`. Of two detections of one person the one with the higher score is kept. Boxes given by the
            caller are all kept.
        advance: called with a description of steps that take longer than usual, such as the export.

    Attributes:
        backend: the backend; `str(estimator.backend)` is its name and precision.
        backend_reason: why it was chosen.

    Raises:
        LeanposeError: the model, detector, device or backend is unknown or cannot be opened.

    Example:
        >>> estimator = PoseEstimator("leanpose-body-s")  # doctest: +SKIP
        >>> poses = estimator("photo.jpg")  # doctest: +SKIP
        >>> poses.keypoints.shape  # doctest: +SKIP
        (3, 19, 2)
    """

    def __init__(
        self,
        model: PoseModel | str | Path = DEFAULT_MODEL,
        detector: Detector | str | Path = "auto",
        device: str | torch.device = "auto",
        backend: str = "auto",
        *,
        batch_size: int | None = None,
        flip_test: bool = False,
        two_pass: bool = False,
        precision: PrecisionChoice = "auto",
        skeleton: str | Path | Skeleton | None = None,
        person_threshold: float | None = None,
        advance: Callable[[str], None] = LOG.info,
    ) -> None:
        known_names = {"backend": (backend, ("auto", *BACKENDS)), "precision": (precision, get_args(PrecisionChoice))}
        for option, (value, known) in known_names.items():
            if value not in known:
                raise LeanposeError(f"Unknown {option} '{value}'; {did_you_mean(value, known)}")
        if batch_size is not None and batch_size < 1:
            raise LeanposeError(f"batch_size must be at least 1, not {batch_size}.")
        limit_threads()
        self.device = choose_device(str(device))
        self.detector = Detector.load(detector, device=str(device))
        self._asked = (backend, precision)
        self.model, self.backend, self.backend_reason = _open(model, self.device, backend, precision, skeleton, advance)
        if flip_test:
            if self.backend.includes_decoding:
                raise LeanposeError(NO_PREDICTION)
            self.skeleton.require_pairs(FLIP_TEST)
        self.batch_size = batch_size or (GPU_BATCH if self.device.type == "cuda" else CPU_BATCH)
        self.flip_test, self.two_pass = flip_test, two_pass
        if person_threshold is None:
            person_threshold = 0.0 if isinstance(self.detector, WholeImage) else PERSON_THRESHOLD
        if not 0 <= person_threshold <= 1:
            raise LeanposeError(f"A person threshold must be between 0 and 1, not {person_threshold}.")
        self.person_threshold = person_threshold
        self._counts: dict[str, float] = defaultdict(float)  # in whichever threads
        self._counting = threading.Lock()
        self._worker: PoseEstimator | None = None  # see `for_callers`
        self._opening = threading.Lock()

    @property
    def model_seconds(self) -> float:
        """How long model and codec have computed so far, on whichever device; of calls in several threads the sum."""
        return self._counts["model_seconds"]

    @property
    def uncertain(self) -> int:
        """Number of detected people dropped so far because their scores are below `person_threshold`."""
        return int(self._counts["uncertain"])

    @property
    def duplicates(self) -> int:
        """Number of duplicate detections dropped so far."""
        return int(self._counts["duplicates"])

    def _count(self, **more: float) -> None:
        with self._counting:
            for name, number in more.items():
                self._counts[name] += number

    def tune(self, *, advance: Callable[[str], None] = lambda _: None) -> None:
        """Benchmark every installed backend, use the fastest that agrees with torch from now on, and remember it.

        The first time for a model this exports it, which takes ten seconds or more. Only with `backend="auto"`: a named
        backend and an exported file are not changed.

        Args:
            advance: called with a description of each step.
        """
        backend, precision = self._asked
        if backend != "auto" or isinstance(self.model, ModelSpec):
            return
        results = benchmark_backends(self.model, self.device, precision=precision, advance=advance)
        remember(self.model, self.device, results, precision)
        self.backend, self.backend_reason = open_backend(self.model, self.device, "auto", precision)
        self._worker = None

    @property
    def skeleton(self) -> Skeleton:
        """The keypoints that the model predicts."""
        return self.model.skeleton

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # bytes and arrays are iterable too
        self, image: ImageInput, boxes: Boxes | None = None, *, stream: Literal[False] = False
    ) -> PoseResult: ...

    @overload
    def __call__(
        self,
        image: Iterable[ImageInput],
        boxes: Sequence[Boxes | None] | None = None,
        *,
        stream: Literal[False] = False,
    ) -> list[PoseResult]: ...

    @overload
    def __call__(
        self, image: ImageSource, boxes: Boxes | Sequence[Boxes | None] | None = None, *, stream: Literal[True]
    ) -> Iterator[PoseResult]: ...

    def __call__(
        self, image: ImageSource, boxes: Boxes | Sequence[Boxes | None] | None = None, *, stream: bool = False
    ) -> PoseResult | list[PoseResult] | Iterator[PoseResult]:
        """The poses in one image, or in each of many.

        A keypoint outside its image keeps its position, but its score falls to 0 within 5 % of the longer side of the
        person's box, so that it is neither drawn nor counted.

        Args:
            image: a path, bytes, an opened file (`BytesIO`), a Pillow image, an array or a tensor (see `ImageInput`),
                or many of
                these: a list, a generator, a folder (with all below it), a glob pattern, or a batch of four dimensions.
            boxes: (P, 4) xyxy in pixels, to skip the detector; for a list of images a list of such arrays, with None
                for images on which the detector should run.
            stream: return an iterator, which reads images as needed and holds few of them, instead of a list.

        Returns:
            The result of one image; the list, or with `stream` the iterator, of those of many. Results remember their
            image, see `PoseResult.image`.

        Raises:
            LeanposeError: an image cannot be read, or the boxes do not have that form.
        """
        if not are_many(image):
            results = self._in_turn(_read([(image, boxes)]))  # pyright: ignore[reportArgumentType]
            return results if stream else next(results)
        if boxes is not None:
            if not isinstance(image, (list, tuple)) or any(are_many(one) for one in image):
                raise LeanposeError("Boxes can be given for a list of images, not for a folder or a generator.")
            if not isinstance(boxes, (list, tuple)) or len(boxes) != len(image):
                raise LeanposeError(f"{len(image)} images need a list of {len(image)} box arrays.")
            pairs = zip(image, boxes, strict=True)
        else:
            pairs = ((one, None) for one in each_image(image))
        return self.stream(pairs) if stream else list(self.stream(pairs))

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """Boxes xyxy and scores of the people detected in each of these RGB images."""
        return self.detector(images)

    def stream(self, images: Iterable[tuple[ImageInput, Boxes | None]]) -> Iterator[PoseResult]:
        """The poses of (image, boxes or None) pairs, in their order, as soon as their batch is done.

        People of consecutive images share batches, and images are read only as needed, so that any number
        of them can be processed. On a CPU with several cores, images are processed in parallel, by as many threads as
        torch has; not with the backend torch and torchvision's detectors, which use all threads for one image, nor with
        a `Detector` that has no `for_callers`.

        Raises:
            LeanposeError: as for a call.
        """
        import torch

        threads, opened = torch.get_num_threads(), _read(images)
        first = list(_until_full(opened))
        worker = None if threads == 1 or len(first) < BLOCK else self.for_callers(threads)
        if worker is None:
            yield from self._in_turn(chain(first, opened))
        else:
            yield from worker._side_by_side(chain(first, opened), threads)

    def for_callers(self, threads: int) -> PoseEstimator | None:
        """A copy of this estimator for this many concurrent threads, each call computing on its caller's thread
        (`single_threads`).

        Results are bit-identical. None if its backend or detector gains nothing from it; then it may also be called from
        many threads, but each call uses all of torch's threads.
        """
        if self.device.type != "cpu":
            return None
        with self._opening:
            if self._worker is None:
                backend, detector = self.backend.for_callers(threads), self.detector.for_callers(threads)
                if backend is None or detector is None:
                    return None
                self._worker = copy.copy(self)  # with the same counts
                self._worker.backend, self._worker.detector = backend, detector
            return self._worker

    def _side_by_side(self, images: Iterator[_Opened], threads: int) -> Iterator[PoseResult]:
        """The poses of images processed by threads in blocks, in the images' order."""
        blocks = iter(lambda: list(_until_full(images)), [])
        with single_threads(threads) as pool:
            for results in mapped_ahead(lambda block: list(self._in_turn(block)), blocks, pool, threads):
                yield from results

    def _in_turn(self, images: Iterable[_Opened]) -> Iterator[PoseResult]:
        """The poses of images in the calling thread."""
        requests: deque[_Request] = deque()
        waiting: deque[tuple[_Request, int]] = deque()  # people not yet processed
        for image, pixels, boxes in images:
            request = self._request(image, pixels, boxes)
            requests.append(request)
            waiting.extend((request, person) for person in range(request.left))
            while len(waiting) >= self.batch_size:
                self._run([waiting.popleft() for _ in range(self.batch_size)])
            held = sum(pending.image.shape[0] * pending.image.shape[1] for pending in requests)
            if waiting and (len(requests) >= self.batch_size or held > HELD_PIXELS):
                self._run([waiting.popleft() for _ in range(len(waiting))])
            while requests and requests[0].left == 0:
                yield self._finished(requests.popleft())
        if waiting:
            self._run(list(waiting))
        for request in requests:
            yield self._finished(request)

    def _request(self, image: ImageInput, pixels: Pixels, boxes: Boxes | None) -> _Request:
        detected = boxes is None
        boxes, box_scores = self.detect([pixels])[0] if boxes is None else _with_scores(boxes)
        shape = (len(boxes), len(self.skeleton))
        poses = PoseResult(
            np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32), np.array(boxes, np.float32),
            np.array(box_scores, np.float32), self.skeleton, image=image, image_size=(pixels.shape[0], pixels.shape[1]),
            calibrated=self.backend.spec.codec.calibration is not None,
        )  # fmt: skip
        return _Request(pixels, poses, len(boxes), detected)

    def _finished(self, request: _Request) -> PoseResult:
        """The poses of a finished image: of detected people, those above the threshold, without duplicates."""
        poses = request.poses
        if not request.detected:
            return poses
        certain = poses[np.flatnonzero(poses.person_scores >= self.person_threshold)]
        areas = BODY_SHARE * box_area(certain.boxes)
        visible, sigmas = certain.keypoint_scores >= DUPLICATE_SCORE, np.array(self.skeleton.sigmas)
        similarity = oks_between(
            certain.keypoints, areas, certain.keypoints, areas, sigmas,
            visible=(visible, visible),
        )  # fmt: skip
        distinct = certain[np.sort(oks_nms(similarity, certain.person_scores, DUPLICATE_OKS))]
        self._count(uncertain=len(poses) - len(certain), duplicates=len(certain) - len(distinct))
        return distinct

    def _run(self, people: Sequence[tuple[_Request, int]]) -> None:
        """Process one batch of people and write the results into their requests."""
        images = [request.image for request, _ in people]
        boxes = np.stack([request.poses.boxes[person] for request, person in people]).astype(np.float64)
        found = self._look(images, boxes)
        if self.two_pass:
            found, boxes = self._look_again(images, found, boxes)
        for (request, person), keypoints, scores, box in zip(people, *found, boxes, strict=True):
            poses = request.poses
            poses.keypoints[person], poses.keypoint_scores[person], poses.boxes[person] = keypoints, scores, box
            request.left -= 1

    def _look(self, images: Sequence[Pixels], boxes: Float[np.ndarray, "B 4"]) -> KeypointArrays:
        """One pass: keypoints in image pixels, and scores, for one box in each of these images."""
        crops, matrices = self.backend.spec.crop(images, boxes)
        begun = time.perf_counter()
        in_crop, scores = self.backend.predict_keypoints(crops, flip_test=self.flip_test)
        self._count(model_seconds=time.perf_counter() - begun)
        keypoints = apply_affine(invert_affine(matrices), in_crop.astype(np.float64))
        return keypoints, scores * _inside_factor(keypoints, images, boxes).astype(scores.dtype)

    def _look_again(
        self, images: Sequence[Pixels], found: KeypointArrays, boxes: Float[np.ndarray, "B 4"]
    ) -> tuple[KeypointArrays, Float[np.ndarray, "B 4"]]:
        """A second pass around the predicted keypoints; the pass with the higher mean score is kept."""
        keypoints, scores, boxes = found[0].copy(), found[1].copy(), boxes.copy()
        certain = scores >= SECOND_PASS_SCORE
        rows = np.flatnonzero(certain.sum(axis=1) >= SECOND_PASS_POINTS)
        if len(rows):
            closer = boxes_from_keypoints(np.concatenate([keypoints, certain[..., None]], axis=2)[rows])
            # A label's box is wider than its points.
            margin = SECOND_PASS_MARGIN * (closer[:, 2:] - closer[:, :2]).max(axis=1, keepdims=True)
            closer = closer + np.concatenate([-margin, -margin, margin, margin], axis=1)
            again, again_scores = self._look([images[row] for row in rows.tolist()], closer)
            better = again_scores.mean(axis=1) > scores[rows].mean(axis=1)
            rows = rows[better]
            keypoints[rows], scores[rows], boxes[rows] = again[better], again_scores[better], closer[better]
        return (keypoints, scores), boxes


def _read(images: Iterable[tuple[ImageInput, Boxes | None]]) -> Iterator[_Opened]:
    """Each image with its pixels, read as it is needed."""
    for image, boxes in images:
        content = stream_content(image)
        yield content, as_rgb(content), boxes


def _until_full(images: Iterator[_Opened]) -> Iterator[_Opened]:
    """The next `BLOCK` images, or fewer large ones."""
    held = 0
    for number, (image, pixels, boxes) in enumerate(images, 1):
        yield image, pixels, boxes
        held += pixels.shape[0] * pixels.shape[1]
        if number == BLOCK or held > HELD_PIXELS / BLOCK:
            return


@contextmanager
def single_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads in each of which torch (the codec) uses one thread; other threads keep their setting."""
    import torch

    before, started = torch.get_num_threads(), threading.Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)  # holds for this thread, and for those that begin before the line below
        started.wait()

    with ThreadPoolExecutor(count, "poses") as pool:
        try:
            for _ in range(count):
                pool.submit(start)
            started.wait()
        except BaseException:
            started.abort()  # or they would wait for ever
            raise
        torch.set_num_threads(before)
        yield pool


def _inside_factor(
    keypoints: Float[np.ndarray, "B K 2"], images: Sequence[Pixels], boxes: Float[np.ndarray, "B 4"]
) -> Float[np.ndarray, "B K"]:
    """The score factor of each keypoint: 1 inside its image, falling to 0 at a margin outside it.

    A keypoint outside the image is invisible: its predicted position is a guess and must not get a high score.
    """
    ends = np.array([image.shape[1::-1] for image in images], np.float64)[:, None] - 0.5
    beyond = np.maximum(-0.5 - keypoints, keypoints - ends).max(axis=2)
    margin = OUTSIDE_MARGIN * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    return np.clip(1 - beyond / margin, 0, 1)


def _with_scores(boxes: Boxes) -> Detections:
    """Boxes that are given, each with the score 1."""
    try:
        array = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise LeanposeError(BOX_FORM) from error
    if array.size == 0:
        return np.zeros((0, 4)), np.zeros(0)
    if array.ndim != 2 or array.shape[1] != 4:
        raise LeanposeError(BOX_FORM)
    proper = np.isfinite(array).all(axis=1) & (array[:, 2:] > array[:, :2]).all(axis=1)
    if not proper.all():
        wrong = int(proper.argmin())
        raise LeanposeError(f"Box {wrong} ({array[wrong]}) is not x1, y1, x2, y2 with x1 < x2 and y1 < y2.")
    return array, np.ones(len(array))


def _open(
    model: PoseModel | str | Path,
    device: torch.device,
    backend: str,
    precision: PrecisionChoice,
    skeleton: str | Path | Skeleton | None,
    advance: Callable[[str], None],
) -> tuple[PoseModel | ModelSpec, Backend, str]:
    """The model or its spec, the backend, and the reason for it."""
    if isinstance(model, (str, Path)) and Path(model).suffix in FILE_SUFFIXES:
        asked = None if precision == "auto" else precision
        named = None if skeleton is None else get_skeleton(skeleton)
        chosen = open_exported(model, backend=backend, precision=asked, cuda=device.type == "cuda", skeleton=named)
        say_what_it_is(model, chosen)
        return chosen.spec, chosen, chosen.card.origin if backend == "auto" else "as asked"
    if skeleton is not None:
        raise LeanposeError(OWN_SKELETON)
    if isinstance(model, (str, Path)):
        model = load_model(model)
    if model.task != "pose":
        raise LeanposeError(f"'{model.name}' is a classifier, not a pose model.")
    model = model.to(device).eval()
    return model, *open_backend(model, device, backend, precision, advance)
