"""UBody: frames of videos in 15 kinds of scenes, labelled as COCO-WholeBody (Lin et al., CVPR 2023, arXiv 2303.16160).

What public readers of its files agree on: a COCO file for each scene, `annotations/SCENE/keypoint_annotation.json`,
whose people have COCO-WholeBody's fields; frames under `images/SCENE/`; a `file_name` such as
`/VIDEO_Trim3/000012.png`, with or without the first slash; lists of the videos that are for testing,
`splits/intra_scene_test_list.npy` and `inter_scene_test_list.npy`, named without what `_Trim` begins. Files that a
toolbox has already split name the scene first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.annotations import ImageRef, PoseAnnotation, PoseDataset
from leanpose.data.coco import collect_people
from leanpose.data.coco_file import CocoFile, load_coco
from leanpose.data.ground_truth import coco_content
from leanpose.data.image_folder import ImageFolder
from leanpose.data.readers import DatasetConfig, in_split
from leanpose.data.records import as_id
from leanpose.data.summary import start_summary
from leanpose.errors import LeanposeError
from leanpose.files import open_regular, read_errors, read_regular
from leanpose.skeleton import WHOLEBODY133, Skeleton

ANNOTATIONS_NAME = "keypoint_annotation.json"
_LOOKED_FOR = 50  # frames of a scene that are looked for to find out where its images are


def read_ubody(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read one scene's file, or the scenes of a folder; see `leanpose.data.readers.read_people`.

    Images and people get new numbers where there are several scenes, since each file counts from the start.
    """
    path, image_path = config.annotation_path(root), config.image_path(root)
    scenes = scene_files(path)
    val_videos = None if config.split_list is None else read_split_list(root / config.split_list)
    people: list[PoseAnnotation] = []
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ignored: list[np.ndarray] = []
    first_image = first_person = 0
    summary = start_summary(config.title, skeleton, WHOLEBODY133, config.split)
    for scene in scenes:
        file = _renumbered(load_coco(scene, in_parts=True), first_image, first_person)
        chosen = _chosen_frames(file, config, val_videos)
        image_ref = _find_frames(image_path, scene.parent.name, file, config.title)
        found = collect_people(file, chosen, image_ref, skeleton, summary)
        people += found.people
        annotations += found.annotations
        ignored.append(found.ignored)
        images += chosen.values()
        if len(scenes) > 1:
            first_image = max(file.images, default=first_image) + 1
            first_person = max((record["id"] for record in file.annotations), default=first_person) + 1
    content = coco_content(images, annotations, skeleton)
    return PoseDataset(config.title, people, content, (summary,), ignored=np.concatenate(ignored))


def scene_files(path: Path) -> list[Path]:
    """The annotation files that a path means: itself, or those of the scenes' folders in it.

    Raises:
        LeanposeError: the folder holds none.
    """
    if not path.is_dir():
        return [path]
    files = sorted(path.glob(f"*/{ANNOTATIONS_NAME}")) or [p for p in [path / ANNOTATIONS_NAME] if p.is_file()]
    if not files:
        raise LeanposeError(f"The folder {path} holds no UBody scene: no folder in it has a {ANNOTATIONS_NAME}.")
    return files


def video_of(file_name: str) -> str:
    """The name of a frame's video as the split lists spell it: `/talk_Trim3/000012.png` is a frame of `talk`."""
    folders = file_name.strip("/").split("/")[:-1]
    return folders[-1].split("_Trim")[0] if folders else ""


def read_split_list(path: Path) -> set[str]:
    """The names of the videos in a `.npy` array of strings, or in a text file with one a line.

    Raises:
        LeanposeError: the file is missing, corrupt, or holds no names; or Python objects, which are never loaded.
    """
    kind = (
        "corrupt or holds pickled Python objects, which may run code and are not loaded; write the names of the videos "
        "into a text file, one a line"
    )
    with read_errors("split list", path, Exception, kind=kind):
        open_regular(path).close()
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)  # no more than the file holds
            names = array.astype(str).reshape(-1).tolist() if array.dtype.kind in "US" else []
        else:
            names = read_regular(path).decode().split("\n")
    names = {name.strip() for name in names} - {""}
    if not names:
        raise LeanposeError(f"The split list {path} holds no names of videos.")
    return names


def _renumbered(file: CocoFile, first_image: int, first_person: int) -> CocoFile:
    """The file with its numbers moved up, the names of its images without the slash in front, and nobody without a
    box."""
    lowest_image = min(file.images, default=0) if first_image else 0
    lowest_person = min((record["id"] for record in file.annotations), default=0) if first_person else 0
    by_image, by_person = first_image - lowest_image, first_person - lowest_person
    images = {
        image_id + by_image: {**record, "id": image_id + by_image, "file_name": str(record["file_name"]).lstrip("/")}
        for image_id, record in file.images.items()
    }
    people = [
        {**record, "id": record["id"] + by_person, "image_id": record["image_id"] + by_image}
        for record in file.annotations
        if record.get("bbox") is not None  # nobody can be cropped without
    ]
    without = [(r["image_id"] + by_image, "without a box") for r in file.annotations if r.get("bbox") is None]
    left_out = [(as_id(image_id) + by_image, reason) for image_id, reason in file.left_out] + without
    return replace(file, images=images, annotations=people, left_out=left_out)


def _chosen_frames(file: CocoFile, config: DatasetConfig, val_videos: set[str] | None) -> dict[int, dict[str, Any]]:
    """Every so many frames of the videos that are in the split."""
    videos = {image_id: video_of(str(record["file_name"])) for image_id, record in file.images.items()}
    if val_videos is None:
        val_videos = {video for position, video in enumerate(sorted({*videos.values()})) if in_split(position, "val")}
    wanted = (True, False) if config.split == "all" else (config.split == "val",)
    frames = islice(file.images.items(), 0, None, config.frame_stride)
    return {image_id: record for image_id, record in frames if (videos[image_id] in val_videos) in wanted}


def _find_frames(path: Path, scene: str, file: CocoFile, title: str) -> Callable[[str], ImageRef]:
    """From the file names of one scene to references, whether they begin with the scene or not.

    Raises:
        LeanposeError: the folder or archive is not there, or holds none of the frames that were looked for.
    """
    folder = ImageFolder(path, title, whole_names=True)  # every video has a frame 000001
    names = [str(record["file_name"]) for record in file.images.values()]
    some = names[:: max(1, len(names) // _LOOKED_FOR)]
    for prefix in (f"{scene}/", ""):
        if any(prefix + name in folder for name in some):
            return lambda name, prefix=prefix: folder(prefix + name)
    example = f", such as {scene}/{some[0]}" if some else ""
    raise LeanposeError(f"{path} holds none of the frames of {file.path} that were looked for{example}.")
