"""SLEAP's `.slp` projects, through the package `sleap-io`: user-labelled frames of videos, of image sequences, or of a
package that holds them."""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.image_sources import video_names
from leanpose.data.keypoints import skeleton_of_names
from leanpose.data.label_set import LabelledImage, LabelledPerson, LabelSet
from leanpose.data.sleap_package import package_frame_name
from leanpose.data.sniffing import FileContent
from leanpose.data.video_frames import video_frame_name
from leanpose.errors import LeanposeError
from leanpose.files import read_errors

_FILES, _PACKAGE, _VIDEO = "image files", "frames in the project", "frames of videos"


def is_sleap(file: FileContent) -> bool:
    """Whether a file is a project of SLEAP."""
    return file.path.suffix == ".slp"


def load_sleap(path: Path) -> LabelSet:
    """The labels of a project. Its symmetries are the pairs that change places in the mirror.

    Raises:
        LeanposeError: `sleap-io` is not installed, the file is corrupt, or its frames are of several kinds.
    """
    if importlib.util.find_spec("sleap_io") is None:
        raise LeanposeError(
            f"{path} is a project of SLEAP; reading it needs `sleap-io` (pip install 'leanpose[sleap]')."
        )
    import sleap_io  # pyright: ignore[reportMissingImports]  # an extra, and heavy

    with read_errors("project", path, Exception, kind="corrupt or not a project of SLEAP"):
        project = sleap_io.load_slp(str(path), open_videos=False)
    if not project.skeletons:
        raise LeanposeError(f"{path} has no skeleton.")
    used = Counter(id(instance.skeleton) for frame in project.labeled_frames for instance in frame.instances)
    graph = max(project.skeletons, key=lambda skeleton: used[id(skeleton)])
    nodes = list(graph.node_names)
    pairs: list[tuple[int, int]] = []
    for symmetry in graph.symmetries:
        first, second = sorted(nodes.index(node.name) for node in symmetry.nodes)
        pairs.append((first, second))
    limbs = [(int(a), int(b)) for a, b in graph.edge_inds]
    skeleton = skeleton_of_names(nodes, path.stem, limbs, pairs or None)
    frames: list[Any] = []
    people: list[LabelledPerson] = []
    left_out: Counter[str] = Counter()
    for frame in project.labeled_frames:
        labelled = [instance for instance in frame.instances if type(instance).__name__ == "Instance"]
        left_out["predicted, not labelled"] += len(frame.instances) - len(labelled)
        if not labelled and not getattr(frame, "is_negative", False):
            continue  # not annotated
        frames.append(frame)
        for instance in labelled:
            if instance.skeleton is not graph:
                left_out[f"of another skeleton ({', '.join(instance.skeleton.node_names[:3])} …)"] += 1
                continue
            xy = np.asarray(instance.numpy(), np.float64)[:, :2]
            labelled_points = np.asarray(np.isfinite(xy).all(axis=1))
            points = np.concatenate(
                [np.where(labelled_points[:, None], xy, 0.0), np.where(labelled_points, 2.0, 0.0)[:, None]], axis=1
            )
            people.append(LabelledPerson(len(frames) - 1, points))
    kinds = sorted({_kind(frame.video) for frame in frames})
    if len(kinds) > 1:
        raise LeanposeError(
            f"{path} labels images of several kinds ({', '.join(kinds)}); export them in one package (.pkg.slp)."
        )
    files = dict.fromkeys(str(frame.video.filename) for frame in frames) if kinds == [_VIDEO] else {}
    names = dict(zip(files, video_names(list(files)), strict=True))
    images = [_image(frame, names) for frame in frames]
    videos = {name: file for file, name in names.items()}
    return LabelSet(path, skeleton, images, people, left_out, located=kinds == [_PACKAGE], videos=videos)


def _kind(video: Any) -> str:
    """The kind of a project's `video`."""
    if isinstance(video.filename, list):
        return _FILES
    return _PACKAGE if (video.backend_metadata or {}).get("has_embedded_images") else _VIDEO


def _image(frame: Any, names: Mapping[str, str]) -> LabelledImage:
    """An image of a project: a file, a frame of a package, or a frame of a video.

    Args:
        names: of videos by their files.
    """
    video, number = frame.video, int(frame.frame_idx)
    if isinstance(video.filename, list):
        return LabelledImage(str(video.filename[number]))
    if video.filename not in names:
        return LabelledImage(package_frame_name(video.backend_metadata["dataset"], number))
    _, height, width, _ = video.backend_metadata.get("shape") or [math.nan] * 4
    return LabelledImage(video_frame_name(names[video.filename], number), width, height)
