"""Writing a synthetic data set: a tar archive of JPEG pictures and a COCO annotation file."""

from __future__ import annotations

import io
import json
import multiprocessing
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from leanpose.data.wholebody import split_parts
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write
from leanpose.skeleton import COCO17, WHOLEBODY133, Skeleton
from leanpose.synthetic.camera import Framing
from leanpose.synthetic.scene import Scene, render_scene, resolve_skeleton

IMAGES_NAME = "images.tar"
ANNOTATIONS_NAME = "annotations.json"
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class SyntheticFiles:
    """What `write_synthetic` wrote: the archive, the COCO file, and how many pictures and labelled people they hold."""

    images: Path
    annotations: Path
    count: int
    people: int


def annotations_of(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    """The COCO annotations of a scene; keypoints outside the picture are written as 0, 0, 0.

    With the 133 keypoints of COCO-WholeBody they have that data set's fields, a part in each.
    """
    result = []
    for keypoints, box, area in zip(scene.keypoints, scene.boxes, scene.areas, strict=True):
        labelled = keypoints[:, 2] > 0
        values = np.where(labelled[:, None], np.round(keypoints, 2), 0.0)
        x1, y1, x2, y2 = box.tolist()
        points = {
            "num_keypoints": int(labelled.sum()),
            "keypoints": [int(v) if k % 3 == 2 else v for k, v in enumerate(values.reshape(-1).tolist())],
        }
        result.append(
            {
                "id": first_id + len(result),
                "image_id": image_id,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(area),
                **(split_parts(values) if scene.skeleton == WHOLEBODY133 else points),
            }
        )
    return result


def _render(
    index: int,
    seed: int,
    size: tuple[int, int],
    people: tuple[int, int],
    skeleton: Skeleton,
    framing: Framing | None,
    poses: Sequence[str],
) -> tuple[bytes, list[dict]]:
    scene = render_scene(seed, index, size, people=people, skeleton=skeleton, framing=framing, poses=poses)
    done, data = cv2.imencode(".jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise LeanposeError(f"Scene {index} could not be encoded as JPEG.")
    return data.tobytes(), annotations_of(scene, index + 1, 0)


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _rendered(
    work: Callable[[int], tuple[bytes, list[dict]]], count: int, workers: int
) -> Iterator[tuple[bytes, list[dict]]]:
    if workers <= 1:
        yield from map(work, range(count))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _one_thread) as pool:
        yield from pool.map(work, range(count), chunksize=16)


def write_synthetic(
    folder: Path | str,
    count: int,
    seed: int = 0,
    size: tuple[int, int] = (256, 192),
    skeleton: str | Path | Skeleton = "coco_wholebody133",
    people: tuple[int, int] = (1, 3),
    *,
    framing: Framing | None = None,
    poses: Sequence[str] = (),
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SyntheticFiles:
    """Render `count` scenes into `folder`: `images.tar` and `annotations.json` in COCO's format (or COCO-WholeBody's).

    The files are the same, byte for byte, for the same arguments and any number of workers.

    Args:
        folder: is made if missing; each file in it is replaced whole or not at all.
        count, seed: scenes (seed, 0) to (seed, count - 1).
        size: height and width of the pictures in pixels.
        skeleton: which keypoints to write.
        people: least and greatest number of people in a scene.
        framing, poses: see `render_scene`.
        workers: processes that render.
        progress: called after every picture with the number of those that are done and `count`.

    Raises:
        LeanposeError: an argument makes no sense, or a file cannot be written.
    """
    if count < 1:
        raise LeanposeError(f"A data set of {count} pictures cannot be drawn; ask for at least one.")
    chosen = resolve_skeleton(skeleton)
    folder = Path(folder)
    work = partial(_render, seed=seed, size=size, people=people, skeleton=chosen, framing=framing, poses=tuple(poses))
    images: list[dict] = []
    annotations: list[dict] = []
    with atomic_write(folder / IMAGES_NAME) as temporary, tarfile.open(temporary, "w") as archive:
        for index, (data, found) in enumerate(_rendered(work, count, workers)):
            name = f"{index:06d}.jpg"
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            images.append({"id": index + 1, "file_name": name, "height": size[0], "width": size[1]})
            for annotation in found:
                annotations.append(annotation | {"id": len(annotations) + 1})
            if progress is not None:
                progress(index + 1, count)
    named = COCO17 if chosen == WHOLEBODY133 else chosen  # COCO-WholeBody's category names the body's points alone
    category = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(named.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in named.limbs],
    }
    description = f"leanpose synthetic people: {count} pictures, seed {seed}, skeleton {chosen.name}"
    content = {
        "info": {"description": description, "count": count, "seed": seed, "size": size, "poses": list(poses)},
        "images": images,
        "annotations": annotations,
        "categories": [category],
    }
    with atomic_write(folder / ANNOTATIONS_NAME) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")))
    return SyntheticFiles(folder / IMAGES_NAME, folder / ANNOTATIONS_NAME, count, len(annotations))
