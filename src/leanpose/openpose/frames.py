"""A video's people for ControlNet: its frames as conditioning images, and OpenPose's JSON, a file a frame.

The files have the names that OpenPose's own `--write_json` gives them: `NAME_000000000000_keypoints.json`, from 0 on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from leanpose.errors import LeanposeError
from leanpose.files import describe_os_error, staging_folder
from leanpose.inference.results import PoseResult
from leanpose.locks import lock_file
from leanpose.openpose.drawing import LONGEST_SIDE, conditioning_image, controlnet_size

FOLDER_ENDING = "_openpose"
"""Of the folder's name, behind that of the video."""
_FILE_ENDING = "_keypoints.json"

Size = tuple[int, int]
Pixels = UInt8[np.ndarray, "H W 3"]


class FrameWriter:
    """Draws frame after frame, and writes each one's people to a file of its own.

    Args:
        folder: that is there.
        name: of the video, with which the files' names begin.
        resolution: of the shorter side of the canvas (`controlnet_size`); None: the frames' own size.
        threshold: keypoints below this score are left out.
    """

    def __init__(self, folder: Path, name: str, *, resolution: int | None = None, threshold: float = 0.3) -> None:
        self.folder, self.name, self.resolution, self.threshold = folder, name, resolution, threshold
        self.written = 0

    def canvas(self, size: Size) -> Size:
        """Height and width of the conditioning images of frames of this size.

        Raises:
            LeanposeError: with this resolution they are too long.
        """
        canvas = size if self.resolution is None else controlnet_size(size, self.resolution)
        if max(canvas) > max(LONGEST_SIDE, *size):
            raise LeanposeError(
                f"With a shorter side of {self.resolution} the frames of {self.name} are {max(canvas)} pixels long; choose a "
                "lower --resolution."
            )
        return canvas

    def __call__(self, pixels: Pixels, poses: PoseResult) -> Pixels:
        """The conditioning image of the next frame, whose people are written."""
        size = (pixels.shape[0], pixels.shape[1])
        canvas = self.canvas(size)
        scaled = poses.resized(size, canvas)
        content = scaled.to_openpose(image_size=canvas, threshold=self.threshold, controlnet=True)
        path = self.folder / f"{self.name}_{self.written:012d}{_FILE_ENDING}"
        try:
            path.write_text(json.dumps(content) + "\n", encoding="utf-8")
        except OSError as error:
            raise describe_os_error(path, error) from error
        self.written += 1
        return conditioning_image(scaled, canvas, threshold=self.threshold)


@contextmanager
def open_frames(video: Path, *, resolution: int | None = None, threshold: float = 0.3) -> Iterator[FrameWriter]:
    """A writer whose files appear all at once at the end, in a folder beside a video's copy; after an error what was there
    before is still there.

    Args:
        video: the copy; the folder has its name with `FOLDER_ENDING`.
        resolution, threshold: see `FrameWriter`.

    Raises:
        LeanposeError: the folder holds other files, another process writes there, or something cannot be written.
    """
    folder = frames_folder(video)
    if folder.exists() and not (folder.is_dir() and all(path.name.endswith(_FILE_ENDING) for path in folder.iterdir())):
        raise LeanposeError(
            f"{folder} is there already and holds other files than OpenPose's JSON; choose another --out."
        )
    with lock_file(folder), staging_folder(folder) as staging:
        (staging / "frames").mkdir()
        yield FrameWriter(staging / "frames", video.stem, resolution=resolution, threshold=threshold)
        if folder.exists():
            os.replace(folder, staging / "earlier")
        os.replace(staging / "frames", folder)


def frames_folder(video: Path) -> Path:
    """Where the JSON files of a video's copy go."""
    return video.with_name(f"{video.stem}{FOLDER_ENDING}")
