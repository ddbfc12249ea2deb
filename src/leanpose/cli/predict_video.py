"""What `leanpose predict` does with videos and cameras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from leanpose.inference.pictures import Clip
    from leanpose.inference.poses import Style
    from leanpose.inference.tracking import PoseTracker
    from leanpose.inference.video import VideoOutcome
    from leanpose.inference.video_input import VideoError


def predict_clips(
    tracker: PoseTracker,
    clips: list[Clip],
    out: Path,
    *,
    draw: bool,
    style: Style,
    threshold: float,
    seconds: float | None,
    sound: bool,
) -> list[VideoError]:
    """Look at videos one after the other. Returns why some could not be read.

    Raises:
        LeanposeError: something cannot be written.
        typer.Exit: the user stopped a file; a camera is meant to be stopped.
    """
    from leanpose.inference.pictures import clip_targets
    from leanpose.inference.video import predict_video
    from leanpose.inference.video_input import VideoError

    targets = clip_targets(clips, out, drawn=draw)
    unread: list[VideoError] = []
    for clip, target in zip(clips, targets, strict=True):
        lines = target.with_suffix(".jsonl")
        with _progress() as progress:
            task = progress.add_task(clip.name, total=None, visible=False, people=0, speed=0.0)

            def advance(so_far: VideoOutcome, progress: Progress = progress, task: TaskID = task) -> None:
                progress.update(
                    task, completed=so_far.frames, total=so_far.expected, visible=True,
                    people=len(so_far.ids), speed=so_far.speed,
                )  # fmt: skip

            try:
                outcome = predict_video(
                    tracker, clip.source, drawing=target if draw else None, lines=lines, seconds=seconds, sound=sound,
                    draw=lambda pixels, poses: poses.draw(pixels, style=style, threshold=threshold), advance=advance,
                )  # fmt: skip
            except VideoError as error:
                unread.append(error)
                continue
        _summarise(clip, outcome)
        print(f"Results:  {lines} (JSON lines)" + (f", {target} (annotated)" if draw else ""))
        if outcome.stopped and isinstance(clip.source, Path):
            raise typer.Exit(130)
    return unread


def _summarise(clip: Clip, outcome: VideoOutcome) -> None:
    if outcome.stopped:
        print(f"Stopped:  {clip.name} after {outcome.seconds:.1f} s; what was found until then is kept.")
    people = f"{len(outcome.ids)} people" if len(outcome.ids) != 1 else "1 person"
    print(
        f"Done:     {clip.name}, {outcome.frames} frames, {people}, in {outcome.elapsed:.1f} s "
        f"({outcome.speed:.1f} frames/s; the pose model was busy {outcome.busy:.0%} of the time)"
    )
    if outcome.cut_off:
        print(f"          The file ends after {outcome.seconds:.1f} s, before the end it names; it was cut off.")
    if outcome.damaged:
        print(f"          {outcome.damaged} damaged frames were left out or are shown as far as they could be read.")
    if outcome.dropped:
        print(f"          {outcome.dropped} of the camera's frames came too fast and were left out.")
    for notice in outcome.notices:
        print(f"          {notice}")


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed} frames  {task.fields[speed]:.1f} frames/s  {task.fields[people]} people"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
    )
