"""`leanpose predict`: estimate poses in images and videos."""

from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Exit, Option

from leanpose.cli.exit_codes import exit_if_skipped, stopped_code
from leanpose.cli.options import (
    BackendOption,
    DetectorOption,
    DeviceOption,
    ForeignSkeletonOption,
    counted,
    print_some,
    progress,
)
from leanpose.console import printable
from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import numpy as np
    from jaxtyping import UInt8
    from rich.progress import Progress

    from leanpose.data.inputs import Clip, Inputs
    from leanpose.inference.estimator import PoseEstimator
    from leanpose.inference.folders import Outcome
    from leanpose.inference.results import PoseResult
    from leanpose.openpose.frames import FrameWriter
    from leanpose.video.predict import VideoOutcome
    from leanpose.video.tracking import PoseTracker

PEOPLE = "{task.fields[people]} people"
KNOWN_DETECTORS = ("auto", "rtmdet-nano")  # these need no description
LISTED = 50  # skipped images named one by one


def predict(
    inputs: Annotated[
        list[str],
        Argument(help="Images, videos, folders, glob patterns, video URLs, a camera index, or - (stdin)."),
    ],
    model: Annotated[
        str, Option(help="A released name, a .safetensors, .onnx or .xml file, or hf://USER/NAME.")
    ] = "leanpose-body-s",
    skeleton: ForeignSkeletonOption = None,
    out: Annotated[Path, Option("--out", "-o", help="Output folder.")] = Path("predictions"),
    detector: DetectorOption = "auto",
    bbox_file: Annotated[
        Path | None, Option(help="Person boxes from COCO annotations or detections, instead of a detector.")
    ] = None,
    bbox_file_images: Annotated[
        Path | None,
        Option(
            help="COCO file that maps the image ids of --bbox-file to names. [default: match names or their numbers]"
        ),
    ] = None,
    box_threshold: Annotated[float, Option(min=0, max=1, help="Minimum detection score.")] = 0.3,
    person_threshold: Annotated[
        float | None,
        Option(min=0, max=1, help="Minimum person score. [default: 0.1; 0 with --bbox-file or whole-image]"),
    ] = None,
    draw: Annotated[bool, Option(help="Write annotated copies.")] = True,
    style: Annotated[
        Literal["overlay", "openpose", "comfyui"],
        Option(help="openpose: ControlNet conditioning images, one JSON per image or frame; comfyui: POSE_KEYPOINT."),
    ] = "overlay",
    resolution: Annotated[
        int | None,
        Option(min=64, help="Shorter side of the output with --style openpose or comfyui. [default: the image's]"),
    ] = None,
    coco: Annotated[Path | None, Option(help="COCO results file. [default: OUT/poses.json]")] = None,
    csv: Annotated[Path | None, Option(help="CSV table, one row per person. [default: OUT/poses.csv]")] = None,
    as_labels: Annotated[
        Path | None, Option(help="Also write the poses as annotations, for training or correction.")
    ] = None,
    label_format: Annotated[
        str, Option(help="Format of --as-labels: coco, yolo, cvat, labelstudio, csv or dlc.")
    ] = "coco",
    keypoint_threshold: Annotated[
        float, Option(min=0, max=1, help="Minimum keypoint score for drawing and --as-labels.")
    ] = 0.3,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    batch_size: Annotated[int | None, Option(min=1, help="Crops per batch. [default: 8; 64 on a GPU]")] = None,
    flip_test: Annotated[bool, Option(help="Average with the mirrored crop (slower, a little better).")] = False,
    two_pass: Annotated[bool, Option(help="Run a second pass on the box around the keypoints of the first.")] = False,
    detect_every: Annotated[int, Option(min=1, help="Videos: run the detector every N frames.")] = 5,
    smooth: Annotated[bool, Option(help="Videos: smooth the keypoints over time.")] = True,
    audio: Annotated[bool, Option(help="Videos: keep the audio.")] = True,
    duration: Annotated[
        float | None, Option(min=0, help="Videos: stop after this many seconds (a camera otherwise runs until Ctrl-C).")
    ] = None,
    allow_url: Annotated[bool, Option("--allow-url", help="Allow image URLs.")] = False,
) -> None:
    """Estimate the poses of all people in images and videos.

    Writes annotated copies, COCO results and a CSV table; for videos, JSON lines.
    """
    from leanpose.data.convert import require_writer
    from leanpose.data.inputs import find_inputs
    from leanpose.inference.box_file import BoxFile
    from leanpose.inference.detectors import Detector
    from leanpose.inference.estimator import PoseEstimator
    from leanpose.inference.folders import paint_overlay, predict_images, require_readable, target_names
    from leanpose.openpose.drawing import ENDINGS, paint_openpose
    from leanpose.openpose.frames import open_comfyui, open_openpose
    from leanpose.video.reader import looks_like_video

    require_writer(label_format)
    openpose = style != "overlay"
    files = find_inputs(inputs, besides=out, is_video=looks_like_video, allow_url=allow_url)
    videos, only_videos = bool(files.clips), not files.images
    mistakes = {
        "Give --bbox-file or --detector, not both.": bbox_file and detector != "auto",
        "--bbox-file-images needs --bbox-file.": bbox_file_images and not bbox_file,
        f"--style {style} cannot be combined with --no-draw.": openpose and not draw,
        "--resolution needs --style openpose or comfyui.": resolution and not openpose,
        "--bbox-file is for images; people in videos are detected by --detector.": videos and bbox_file,
        "--coco, --csv and --as-labels are for images; poses in videos are written as JSON lines.": only_videos
        and (coco or csv or as_labels),
        f"--out {out} is a file; give a folder.": out.exists() and not out.is_dir(),
    }
    for sentence, made in mistakes.items():
        if made:
            raise LeanposeError(sentence)
    ending = ENDINGS.get(style)
    if draw:
        target_names(files.images, out, ending=ending)
    clips = _readable_clips(files, out, draw=draw)
    unread = [clip for clip in files.clips if clip not in clips]
    if not clips:  # before a model is loaded
        with _listing_skipped():
            require_readable(files.images)
    boxes = None if bbox_file is None else BoxFile(bbox_file, bbox_file_images, threshold=box_threshold)
    if boxes is not None:
        boxes.require_numbers(files.images)
    source = "whole-image" if bbox_file is not None else detector
    chosen = Detector.load(source, threshold=box_threshold, device=device)
    estimator = PoseEstimator(
        model, chosen, device, backend, batch_size=batch_size, flip_test=flip_test, two_pass=two_pass,
        person_threshold=person_threshold, skeleton=skeleton, advance=lambda step: print(f"Backend:  {step} …", flush=True),
    )  # fmt: skip
    _introduce(estimator, model, str(bbox_file) if bbox_file is not None else chosen.name, detector, files)
    if clips:
        from leanpose.video.tracking import PoseTracker

        def draw_frame(pixels: "UInt8[np.ndarray, 'H W 3']", poses: "PoseResult") -> "UInt8[np.ndarray, 'H W 3']":
            return poses.draw(pixels, keypoint_threshold=keypoint_threshold)

        tracker = PoseTracker(estimator, detect_every=detect_every, smooth=smooth)
        opened = open_comfyui if style == "comfyui" else open_openpose
        frames = partial(opened, resolution=resolution, keypoint_threshold=keypoint_threshold) if openpose else None
        drawn = draw_frame if draw else None
        unread += _predict_clips(tracker, clips, out, drawn, frames, duration=duration, audio=audio)
    if only_videos:
        exit_if_skipped(unread, files.unreadable)
        return
    for doubt in [] if boxes is None else boxes.doubts(files.images):
        print(f"Note:     {doubt}")
    coco, csv = coco or out / "poses.json", csv or out / "poses.csv"
    paint = partial(paint_openpose, resolution=resolution, comfyui=style == "comfyui") if openpose else paint_overlay
    with (
        _labels_in(label_format, as_labels, files.root) as labels,
        progress("images", PEOPLE) as bar,
        _listing_skipped(bar),
    ):
        task = bar.add_task("images", total=len(files.images), people=0)
        outcome = predict_images(
            estimator, files.images, boxes=boxes, drawings=out if draw else None, coco=coco, table=csv,
            labels=labels, keypoint_threshold=keypoint_threshold, paint=partial(paint, keypoint_threshold=keypoint_threshold), ending=ending,
            advance=lambda so_far: bar.update(task, completed=so_far.looked_at, people=so_far.people),
        )  # fmt: skip
    _summarise(outcome, len(files.images), estimator.person_threshold)
    kinds = {
        "openpose": "conditioning images and OpenPose JSON",
        "comfyui": "conditioning images and POSE_KEYPOINT",
    }
    drawn = kinds.get(style, "annotated images")
    print(f"Results:  {coco} (COCO), {csv} (CSV)" + (f", {drawn} in {out}" if draw else ""))
    if as_labels is not None:
        below = f"; its images lie below {files.root}" if files.root else ""
        kind = "COCO annotations" if label_format == "coco" else label_format
        print(f"Labels:   {as_labels} ({kind}{below})")
    if outcome.stopped:
        raise Exit(stopped_code())
    exit_if_skipped(unread, outcome.skipped, files.unreadable)


@contextmanager
def _labels_in(kind: str, path: Path | None, root: Path | None) -> "Iterator[Path | None]":
    """Where to write COCO annotations, which are converted to `path` at the end.

    Args:
        root: the folder of the images.
    """
    if path is None or kind == "coco":
        yield path
        return
    from tempfile import TemporaryDirectory

    from leanpose.data.convert import convert_labels

    with TemporaryDirectory() as folder:
        yield Path(folder) / f"{path.stem}.json"
        done = convert_labels(Path(folder) / f"{path.stem}.json", path, kind, images=root or Path(), wait=True)
    print(f"Lost in {kind}: {'; '.join([*done.lost, 'scores'])}")


def _readable_clips(files: "Inputs", out: Path, *, draw: bool) -> "list[Clip]":
    """The videos that can be opened; the others are named.

    Raises:
        LeanposeError: nothing that was given can be read, or a copy would replace a video.
    """
    from leanpose.video.animation import require_source
    from leanpose.video.predict import clip_targets
    from leanpose.video.reader import VideoError

    clip_targets(files.clips, out, drawn=draw)
    readable, errors = [], []
    for clip in files.clips:
        try:
            require_source(clip.source)
            readable.append(clip)
        except VideoError as error:
            errors.append(error)
    nothing = errors and not files.images and not readable
    if nothing and len(errors) == 1:
        raise errors[0]
    for error in errors:
        print(f"Skipped:  {error}")
    if nothing:
        raise LeanposeError("No video could be read, so nothing was written.")
    return readable


@contextmanager
def _listing_skipped(bar: "Progress | None" = None) -> "Iterator[None]":
    """List the images that could not be read if none could; the bar is stopped before."""
    from leanpose.inference.folders import NothingReadError

    try:
        yield
    except NothingReadError as error:
        if bar is not None:
            bar.stop()
        _list_skipped(error.outcome)
        raise


def _introduce(estimator: "PoseEstimator", model: str, source: str, detector: str, files: "Inputs") -> None:
    net = estimator.model
    size = "×".join(map(str, net.input_size))
    print(f"Model:    {model} ({net.name}, {len(net.skeleton)} keypoints, {size}) on {estimator.device}")
    print(f"Backend:  {estimator.backend}, {estimator.backend_reason}")
    print(f"People:   from {source}")
    if detector not in KNOWN_DETECTORS and source == estimator.detector.name and estimator.detector.description:
        print(f"          ({estimator.detector.description})")
    for title, given in (("Images", files.images), ("Videos", files.clips)):
        if given:
            print(f"{title}:   {len(given)}")
    if files.others:
        print(f"Ignored:  unknown file extensions: {_some(files.others)}")
    if files.links:
        links = counted(len(files.links), "link")
        print(f"Skipped:  {links} to files already in the list, or to folders: {_some(files.links)}")
    if files.unreadable:
        print(f"Skipped:  {counted(len(files.unreadable), 'unreadable folder')}: {_some(files.unreadable)}")


def _some(names: list[str]) -> str:
    """The first three names, and how many there are besides."""
    return ", ".join(map(printable, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _summarise(outcome: "Outcome", count: int, person_threshold: float) -> None:
    if outcome.stopped:
        print(f"Stopped after {outcome.looked_at} of {counted(count, 'image')}; partial results are kept.")
    nobody = f", {outcome.empty} without people" if outcome.empty else ""
    print(f"Done:     {counted(outcome.done, 'image')}, {counted(outcome.people, 'person', 'people')}{nobody}")
    _say_hidden(outcome.uncertain, person_threshold, outcome.duplicates)
    _list_skipped(outcome)
    for sentence, names in outcome.notices.items():
        print(f"Notice:   {sentence.removesuffix('.')}: {_some(names)}")
    print_some([reason for _, reason in outcome.undrawn], LISTED)


def _say_hidden(uncertain: int, person_threshold: float, duplicates: int = 0, where: str = "") -> None:
    hidden = {
        f"{counted(uncertain, 'person', 'people')} {where}with a score below {person_threshold:g} "
        "(see --person-threshold)": uncertain,
        f"{counted(duplicates, 'second detection')} of the same people": duplicates,
    }
    title = "Hidden:  "
    for sentence, number in hidden.items():
        if number:
            print(f"{title} {sentence}")
            title = " " * len(title)


def _list_skipped(outcome: "Outcome") -> None:
    if outcome.skipped:
        print(f"Skipped:  {len(outcome.skipped)} that could not be read:")
        print_some([reason for _, reason in outcome.skipped], LISTED)


def _predict_clips(
    tracker: "PoseTracker",
    clips: "list[Clip]",
    out: Path,
    draw: "Callable[..., np.ndarray] | None",
    frames: "Callable[[Path], AbstractContextManager[FrameWriter]] | None",
    **options: Any,
) -> "list[Clip]":
    """Process videos one after the other; one that becomes unreadable is named.

    Args:
        draw: the annotated image of a frame.
        frames: for ControlNet: opens the writer of a video's conditioning frames and their JSON.
        options: for `predict_video`.

    Returns:
        Those that could not be read.

    Raises:
        LeanposeError: the only video cannot be read, or something cannot be written.
        typer.Exit: the user stopped a file; a camera is meant to be stopped.
    """
    from leanpose.video.predict import clip_targets, predict_video
    from leanpose.video.reader import VideoError

    targets, unread = clip_targets(clips, out, drawn=draw is not None), []
    for clip, target in zip(clips, targets, strict=True):
        lines = target.with_suffix(".jsonl")
        try:
            with progress("frames", PEOPLE) as bar, nullcontext() if frames is None else frames(target) as writer:
                task = bar.add_task(clip.name, total=None, visible=False, people=0)

                def advance(so_far: "VideoOutcome", update: "Callable[..., None]" = partial(bar.update, task)) -> None:
                    update(completed=so_far.frames, total=so_far.expected, visible=True, people=len(so_far.track_ids))

                outcome = predict_video(
                    tracker, clip.source, drawing=target if draw else None, lines=lines, draw=writer or draw,
                    canvas=None if writer is None else writer.canvas, advance=advance, **options,
                )  # fmt: skip
        except VideoError as error:
            if len(clips) == 1:
                raise
            print(f"Skipped:  {error}")
            unread.append(clip)
            continue
        _summarise_clip(clip, outcome, tracker.estimator.person_threshold)
        print(f"Results:  {lines} (JSON lines)" + (f", {target} (annotated)" if draw else ""))
        if writer is not None:
            print(f"          {writer.place} ({writer.holds})")
        if outcome.stopped and not clip.live:
            raise Exit(stopped_code())
    return unread


def _summarise_clip(clip: "Clip", outcome: "VideoOutcome", person_threshold: float) -> None:
    if outcome.stopped:
        print(f"Stopped:  {clip.name} after {outcome.seconds:.1f} s; partial results are kept.")
    found = f"{counted(outcome.frames, 'frame')}, {counted(len(outcome.track_ids), 'person', 'people')}"
    busy = f"the pose model was busy {outcome.busy:.0%} of the time"
    print(f"Done:     {clip.name}, {found}, in {outcome.elapsed:.1f} s ({outcome.speed:.1f} frames/s; {busy})")
    _say_hidden(outcome.uncertain, person_threshold, where="in all frames ")
    notes = {
        f"The file ends after {outcome.seconds:.1f} s, before its declared end; it is truncated.": outcome.cut_off,
        f"{outcome.damaged} corrupt frames were skipped, or decoded as far as possible.": outcome.damaged,
        f"{outcome.dropped} of the camera's frames came too fast and were dropped.": outcome.dropped,
    }
    print_some([*(sentence for sentence, holds in notes.items() if holds), *outcome.notices])
