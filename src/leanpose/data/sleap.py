"""SLEAP's `.slp` projects, through the package `sleap-io`: user-labelled frames of image sequences."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np

from leanpose.data.annotations import PoseDataset
from leanpose.data.label_set import LabelledImage, LabelledPerson, LabelSet, dataset_of, skeleton_of_names
from leanpose.data.readers import DatasetConfig
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
        LeanposeError: `sleap-io` is not installed, the file is damaged, or its frames are those of videos.
    """
    if importlib.util.find_spec("sleap_io") is None:
        raise LeanposeError(
            f"{path} is a project of SLEAP; reading it needs `sleap-io` (pip install 'leanpose[sleap]')."
        )
    import sleap_io  # pyright: ignore[reportMissingImports]  # an extra, and heavy

    with read_errors("project", path, Exception, kind="damaged or no project of SLEAP"):
        project = sleap_io.load_slp(str(path), open_videos=False)
    if not project.skeletons:
        raise LeanposeError(f"{path} has no skeleton.")
    graph = project.skeletons[0]
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
    for frame in project.labeled_frames:
        files = frame.video.filename
        if not isinstance(files, list):
            raise LeanposeError(
                f"The frames of {path} are those of the video {files}; export a package with images, or save the frames as images "
                "and give the labels of these."
            )
        images.append(LabelledImage(str(files[frame.frame_idx])))
        for instance in frame.instances:
            if type(instance).__name__ != "Instance":
                left_out["predicted, not labelled"] += 1
                continue
            xy = np.asarray(instance.numpy(), np.float64)[:, :2]
            seen = np.asarray(np.isfinite(xy).all(axis=1))
            points = np.concatenate([np.where(seen[:, None], xy, 0.0), np.where(seen, 2.0, 0.0)[:, None]], axis=1)
            people.append(LabelledPerson(len(images) - 1, points))
    return LabelSet(path, skeleton, images, people, left_out)
