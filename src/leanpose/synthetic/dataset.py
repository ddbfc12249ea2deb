"""Synthetic data sets: a tar archive of JPEG images with a COCO annotation file, and the data format `synthetic`."""

from __future__ import annotations

import io
import json
import multiprocessing
import tarfile
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from leanpose.checksums import file_checksum
from leanpose.data.annotations import PoseDataset
from leanpose.data.coco import read_coco, read_coco_wholebody
from leanpose.data.ground_truth import coco_annotation, coco_content
from leanpose.data.readers import DatasetConfig
from leanpose.data.wholebody import split_parts
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, cache_folder, load_json
from leanpose.geometry import xyxy_to_xywh
from leanpose.locks import lock_file, lock_folder
from leanpose.skeleton import COCO17, WHOLEBODY133, Skeleton
from leanpose.synthetic.scene import render_scene, resolve_skeleton

_JPEG_QUALITY = 92
CHECKSUMS = "checksums.json"
"""Checksums of the other two files; if it exists, they are checked before use."""

_RENDERER = 3  # counted up with each change of the images; names the folder that they are kept in


@dataclass(frozen=True)
class SyntheticFiles:
    """What `write_synthetic` wrote: the archive, the COCO file, and how many images and labelled people they hold."""

    images: Path
    annotations: Path
    count: int
    people: int


def _render_jpeg(index: int, seed: int, size: tuple[int, int], **options) -> tuple[bytes, list[dict]]:
    """A scene's image and its COCO annotations; keypoints outside the image are written as 0, 0, 0.

    With the 133 keypoints of COCO-WholeBody they have that data set's fields, a part in each.
    """
    scene = render_scene(seed, index, size, **options)
    _, data = cv2.imencode(".jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    labels = []
    points = np.where(scene.keypoints[..., 2:] > 0, np.round(scene.keypoints, 2), 0.0)
    for keypoints, box, area in zip(points, xyxy_to_xywh(scene.boxes).tolist(), scene.areas.tolist(), strict=True):
        parts = split_parts(keypoints) if scene.skeleton == WHOLEBODY133 else {}
        labels.append({**coco_annotation(0, index + 1, box, area, keypoints), **parts})
    return data.tobytes(), labels


def write_synthetic(
    folder: Path | str,
    count: int,
    seed: int = 0,
    size: tuple[int, int] = (256, 192),
    skeleton: str | Path | Skeleton = "coco_wholebody133",
    people: tuple[int, int] = (1, 3),
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SyntheticFiles:
    """Render `count` scenes into `folder`: `images.tar`, `annotations.json` in COCO's format (or COCO-WholeBody's),
    `checksums.json`.

    The files are the same, byte for byte, for the same arguments and any number of workers.

    Args:
        folder: is made if missing; each file in it is replaced whole or not at all.
        count, seed: scenes (seed, 0) to (seed, count - 1).
        size: height and width of the images in pixels.
        skeleton: which keypoints to write.
        people: least and greatest number of people in a scene.
        workers: processes that render.
        progress: called after every image with the number of those that are done and `count`.

    Raises:
        LeanposeError: an argument makes no sense, a file cannot be written, or another process writes there.
    """
    if count < 1:
        raise LeanposeError(f"The number of images must be at least 1, not {count}.")
    skeleton = resolve_skeleton(skeleton)
    files = SyntheticFiles(Path(folder) / "images.tar", Path(folder) / "annotations.json", count, 0)
    render = partial(_render_jpeg, seed=seed, size=size, people=people, skeleton=skeleton)
    images: list[dict] = []
    annotations: list[dict] = []
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, cv2.setNumThreads, (1,)) if workers > 1 else nullcontext()
    # They appear together, the checksums first and the annotations last: a kill between leaves checksums that differ.
    with (
        lock_folder(Path(folder)),
        atomic_write(files.annotations) as new_annotations,
        atomic_write(files.images) as new_images,
        atomic_write(files.images.with_name(CHECKSUMS)) as new_checksums,
    ):
        with tarfile.open(new_images, "w") as archive, pool as running:
            rendered = running.map(render, range(count), chunksize=16) if running else map(render, range(count))
            for index, (data, labels) in enumerate(rendered):
                member = tarfile.TarInfo(f"{index:06d}.jpg")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
                images.append({"id": index + 1, "file_name": member.name, "height": size[0], "width": size[1]})
                annotations += [{**label, "id": i} for i, label in enumerate(labels, start=len(annotations) + 1)]
                if progress is not None:
                    progress(index + 1, count)
        named = COCO17 if skeleton == WHOLEBODY133 else skeleton  # COCO-WholeBody's category names the body's points
        description = f"leanpose synthetic people: {count} images, seed {seed}, skeleton {skeleton.name}"
        info = {"description": description, "count": count, "seed": seed, "size": size}
        content = {"info": info, **coco_content(images, annotations, named)}
        new_annotations.write_text(json.dumps(content, separators=(",", ":")))
        written = {files.images.name: new_images, files.annotations.name: new_annotations}
        new_checksums.write_text(json.dumps({name: file_checksum(path) for name, path in written.items()}))
    return SyntheticFiles(files.images, files.annotations, count, len(annotations))


def read_synthetic(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read a data set of format `synthetic`; its images are drawn once, into its folder or one named after its
    settings.

    Raises:
        LeanposeError: its folder holds images drawn with other settings.
    """
    names = zlib.crc32(",".join(skeleton.keypoints).encode())
    size = f"{config.size[0]}x{config.size[1]}"
    key = f"{_RENDERER}-{config.count}-{config.seed}-{size}-{skeleton.name}-{names:08x}"
    folder = root / config.images if config.images is not None else cache_folder() / "synthetic" / key
    annotations = folder / "annotations.json"
    if not annotations.exists():
        with lock_file(annotations, wait=True):  # another training, or a process of the same one, may be drawing them
            if not annotations.exists():
                write_synthetic(folder, config.count, config.seed, config.size, skeleton)
    _check_files(folder)
    _check_settings(annotations, config)
    files = {"name": config.title, "images": folder / "images.tar", "annotations": annotations}
    read = read_coco_wholebody if skeleton == WHOLEBODY133 else read_coco
    return read(config.model_copy(update=files), skeleton, root, training=training)


def _check_files(folder: Path) -> None:
    """
    Raises:
        LeanposeError: a file is not as it was written.
    """
    path = folder / CHECKSUMS
    marks = load_json(path, "file of checksums") if path.exists() else {}
    for name in ("images.tar", "annotations.json"):
        if path.exists() and (not isinstance(marks, dict) or marks.get(name) != file_checksum(folder / name)):
            raise LeanposeError(
                f"{folder / name} is corrupt or was changed; delete {folder} to render the images again."
            )


def _check_settings(annotations: Path, config: DatasetConfig) -> None:
    """Refuse a folder whose images were drawn with other settings; they may be the user's own, so none is replaced."""
    content = load_json(annotations, "annotation file")
    present = content.get("info", {}) if isinstance(content, dict) else {}
    wanted = {"count": config.count, "seed": config.seed, "size": [*config.size]}
    different = [
        f"{name} {present.get(name, 'unknown')} instead of {wanted[name]}"
        for name in wanted
        if present.get(name) != wanted[name]
    ]
    if different:
        raise LeanposeError(
            f"{annotations.parent} holds images drawn with {', '.join(different)}; delete the folder to draw them "
            f"anew, or name another one."
        )
