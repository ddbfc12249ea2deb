"""SLEAP's `.slp` projects, through the package `sleap-io`: user-labelled frames of image sequences, or of a package
that holds them."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.annotations import PoseDataset
from leanpose.data.label_set import LabelledImage, LabelledPerson, LabelSet, dataset_of, skeleton_of_names
from leanpose.data.readers import DatasetConfig
from leanpose.data.sleap_package import frame_name
from leanpose.data.sniffing import FileContent
from leanpose.errors import LeanposeError
from leanpose.files import read_errors
from leanpose.skeleton import Skeleton


def is_sleap(file: FileContent) -> bool:
    """Whether a file is a project of SLEAP."""
    return file.path.suffix == ".slp"


def read_sleap(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read a project of SLEAP; see `leanpose.data.readers.read_people`."""
    assert config.annotations is not None
    return dataset_of(load_sleap(root / config.annotations), config, skeleton, root)


def load_sleap(path: Path) -> LabelSet:
    """The labels of a project. Its symmetries are the pairs that change places in the mirror.

    Raises:
        LeanposeError: `sleap-io` is not installed, the file is corrupt, or its frames are those of videos.
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
    names = list(graph.node_names)
    pairs: list[tuple[int, int]] = []
    for symmetry in graph.symmetries:
        first, second = sorted(names.index(node.name) for node in symmetry.nodes)
        pairs.append((first, second))
    limbs = [(int(a), int(b)) for a, b in graph.edge_inds]
    skeleton = skeleton_of_names(names, path.stem, limbs, pairs or None)
    images: list[LabelledImage] = []
    people: list[LabelledPerson] = []
    left_out: Counter[str] = Counter()
    frames = []
    for frame in project.labeled_frames:
        labelled = [instance for instance in frame.instances if type(instance).__name__ == "Instance"]
        left_out["predicted, not labelled"] += len(frame.instances) - len(labelled)
        if not labelled and not getattr(frame, "is_negative", False):
            continue  # nobody has looked at it
        frames.append(frame)
        images.append(LabelledImage(_image_name(frame, path)))
        for instance in labelled:
            if instance.skeleton is not graph:
                left_out[f"of another skeleton ({', '.join(instance.skeleton.node_names[:3])} …)"] += 1
                continue
            xy = np.asarray(instance.numpy(), np.float64)[:, :2]
            seen = np.asarray(np.isfinite(xy).all(axis=1))
            points = np.concatenate([np.where(seen[:, None], xy, 0.0), np.where(seen, 2.0, 0.0)[:, None]], axis=1)
            people.append(LabelledPerson(len(images) - 1, points))
    packed = {_is_packed(frame.video) for frame in frames}
    if len(packed) > 1:
        raise LeanposeError(
            f"{path} holds some of its frames and names files of others; export all of them in one package."
        )
    return LabelSet(path, skeleton, images, people, left_out, located=True in packed)


def _is_packed(video: Any) -> bool:
    """Whether the project holds the frames of a video itself."""
    return not isinstance(video.filename, list) and bool((video.backend_metadata or {}).get("has_embedded_images"))


def _image_name(frame: Any, path: Path) -> str:
    """The file of a frame, or what a package calls it.

    Raises:
        LeanposeError: it is a frame of a video.
    """
    files = frame.video.filename
    if isinstance(files, list):
        return str(files[frame.frame_idx])
    if _is_packed(frame.video):
        return frame_name(frame.video.backend_metadata["dataset"], int(frame.frame_idx))
    raise LeanposeError(
        f"The frames of {path} are those of the video {files}, which labels are not read with: in SLEAP, export a "
        "package (.pkg.slp), which holds the labelled frames."
    )
