"""A video's people for ControlNet: its frames as conditioning images, and OpenPose's JSON, a file per frame, or
ComfyUI's, a list.

OpenPose's files have the names that its own `--write_json` gives them: `NAME_000000000000_keypoints.json`, from 0 on.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import UInt8

from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, describe_os_error, staging_folder
from leanpose.inference.results import PoseResult
from leanpose.locks import lock_file
from leanpose.openpose.drawing import MAX_SIDE, conditioning_image, controlnet_size

FOLDER_ENDING = "_openpose"
"""Suffix of the folder's name, after the video's name."""
_FILE_ENDING = "_keypoints.json"
COMFYUI_ENDING = "_comfyui.json"

Size = tuple[int, int]
Pixels = UInt8[np.ndarray, "H W 3"]


class FrameWriter(ABC):
    """Draws frame after frame, and writes each one's people.

    Attributes:
        place: where the people are, once all is written.
        holds: what that is.

    Args:
        name: of the video, for messages.
        resolution: of the shorter side of the canvas (`controlnet_size`); None: the frames' own size.
        keypoint_threshold: keypoints below this score are left out.
    """

    place: Path
    holds: str

    def __init__(self, name: str, *, resolution: int | None = None, keypoint_threshold: float = 0.3) -> None:
        self.name, self.resolution, self.keypoint_threshold = name, resolution, keypoint_threshold
        self.written = 0

    def canvas(self, size: Size) -> Size:
        """Height and width of the conditioning images of frames of this size.

        Raises:
            LeanposeError: with this resolution they are too long.
        """
        canvas = size if self.resolution is None else controlnet_size(size, self.resolution)
        if max(canvas) > max(MAX_SIDE, *size):
            raise LeanposeError(
                f"With a shorter side of {self.resolution} the frames of {self.name} are {max(canvas)} pixels long; "
                "choose a lower --resolution."
            )
        return canvas

    def __call__(self, pixels: Pixels, poses: PoseResult) -> Pixels:
        """The conditioning image of the next frame, whose people are written.

        Raises:
            LeanposeError: they cannot be written.
        """
        size = (pixels.shape[0], pixels.shape[1])
        canvas = self.canvas(size)
        scaled = poses.resized(size, canvas)
        try:
            self.write(scaled, canvas)
        except OSError as error:
            raise describe_os_error(self.place, error) from error
        self.written += 1
        return conditioning_image(scaled, canvas, keypoint_threshold=self.keypoint_threshold)

    @abstractmethod
    def write(self, poses: PoseResult, canvas: Size) -> None:
        """Write the people of the next frame, which has this number: `written`."""


class OpenPoseWriter(FrameWriter):
    """OpenPose's JSON, a file per frame.

    Args:
        folder: that is there, for the files.
        video: the copy, beside which the folder will be.
        options: see `FrameWriter`.
    """

    holds = "OpenPose JSON a frame"

    def __init__(
        self, folder: Path, video: Path, *, resolution: int | None = None, keypoint_threshold: float = 0.3
    ) -> None:
        super().__init__(video.stem, resolution=resolution, keypoint_threshold=keypoint_threshold)
        self.folder, self.place = folder, frames_folder(video)

    def write(self, poses: PoseResult, canvas: Size) -> None:
        content = poses.to_openpose(image_size=canvas, keypoint_threshold=self.keypoint_threshold, controlnet=True)
        path = self.folder / f"{self.name}_{self.written:012d}{_FILE_ENDING}"
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")


class ComfyUIWriter(FrameWriter):
    """ComfyUI's `POSE_KEYPOINT`: one list with a frame a line.

    Args:
        file: for the list.
        video: the copy, beside which the file will be.
        options: see `FrameWriter`.
    """

    holds = "POSE_KEYPOINT, all frames"

    def __init__(
        self, file: TextIO, video: Path, *, resolution: int | None = None, keypoint_threshold: float = 0.3
    ) -> None:
        super().__init__(video.stem, resolution=resolution, keypoint_threshold=keypoint_threshold)
        self.file, self.place = file, frames_file(video)

    def write(self, poses: PoseResult, canvas: Size) -> None:
        frame = json.dumps(poses.to_comfyui(image_size=canvas, keypoint_threshold=self.keypoint_threshold))
        self.file.write(f",\n{frame}" if self.written else f"[\n{frame}")


@contextmanager
def open_openpose(
    video: Path, *, resolution: int | None = None, keypoint_threshold: float = 0.3
) -> Iterator[OpenPoseWriter]:
    """A writer whose files appear all at once at the end, in a folder next to a video's copy; after an error what was
    there before is still there.

    Args:
        video: the copy; the folder has its name with `FOLDER_ENDING`.
        resolution, keypoint_threshold: see `FrameWriter`.

    Raises:
        LeanposeError: the folder holds other files, another process writes there, or something cannot be written.
    """
    folder = frames_folder(video)
    if folder.exists() and not (folder.is_dir() and all(path.name.endswith(_FILE_ENDING) for path in folder.iterdir())):
        raise LeanposeError(
            f"{folder} already exists and contains other files than OpenPose's JSON; choose another --out."
        )
    with lock_file(folder), staging_folder(folder) as staging:
        (staging / "frames").mkdir()
        yield OpenPoseWriter(staging / "frames", video, resolution=resolution, keypoint_threshold=keypoint_threshold)
        if folder.exists():
            os.replace(folder, staging / "earlier")
        os.replace(staging / "frames", folder)


@contextmanager
def open_comfyui(
    video: Path, *, resolution: int | None = None, keypoint_threshold: float = 0.3
) -> Iterator[ComfyUIWriter]:
    """A writer whose file appears at the end, next to a video's copy; after an error what was there before is still
    there.

    Args:
        video: the copy; the file has its name with `COMFYUI_ENDING`.
        resolution, keypoint_threshold: see `FrameWriter`.

    Raises:
        LeanposeError: another process writes the file, or it cannot be written.
    """
    path = frames_file(video)
    with lock_file(path), atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        writer = ComfyUIWriter(file, video, resolution=resolution, keypoint_threshold=keypoint_threshold)
        yield writer
        file.write("\n]\n" if writer.written else "[]\n")


def frames_file(video: Path) -> Path:
    """Where the list of frames of a video's copy goes."""
    return video.with_name(f"{video.stem}{COMFYUI_ENDING}")


def frames_folder(video: Path) -> Path:
    """Where the JSON files of a video's copy go."""
    return video.with_name(f"{video.stem}{FOLDER_ENDING}")
