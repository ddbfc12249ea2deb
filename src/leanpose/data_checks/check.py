"""The whole check of a data set: files, images, people, duplicates."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from leanpose.data.images import BrokenImageError, decode_image, read_bytes
from leanpose.data.sample import ImageRef
from leanpose.data_checks.duplicates import ImagePrint, find_duplicates, image_print
from leanpose.data_checks.findings import CheckedSet, CheckReport, Finding
from leanpose.data_checks.people import check_person
from leanpose.data_checks.reading import annotation_files, exists, read_set
from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def check_data(
    paths: Sequence[Path],
    *,
    images: Path | None = None,
    skeleton: Skeleton | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Read data sets and list everything that is wrong with them.

    Args:
        paths: annotation files, or folders in which they and their images are found. Sets that are checked together
            are compared with each other: the same image in two splits is found.
        images: folder or archive of the images of all these files, where it is not found by itself.
        skeleton: what the files label, where their own keypoint names are not to decide.

    Raises:
        LeanposeError: a path is not there, or none of the files holds keypoints.
    """
    report = CheckReport()
    for path in paths:
        top = path.parent if path.is_dir() else path.parent.parent
        for file in annotation_files([path]):
            result, findings = read_set(file, top, images, skeleton)
            report.findings += findings
            if isinstance(result, CheckedSet):
                report.sets.append(result)
            elif not findings:
                report.skipped[file] = result
    if not report.sets and not report.findings:
        reasons = "; ".join(f"{file.name}: {reason}" for file, reason in list(report.skipped.items())[:3])
        raise LeanposeError(f"None of the files holds keypoints ({reasons}).")
    prints, sizes = _check_images(report, progress)
    for checked in report.sets:
        for person in checked.people:
            reference = checked.images.get(person.image_id)
            size = sizes.get(str(reference)) or checked.sizes.get(person.image_id)
            report.findings += check_person(person, checked, size)
    report.findings += find_duplicates(report.sets, prints)
    return report


def _check_images(
    report: CheckReport, progress: Progress | None
) -> tuple[dict[str, ImagePrint], dict[str, tuple[float, float]]]:
    """Decode every image once; returns prints and (width, height) by reference."""
    prints: dict[str, ImagePrint] = {}
    sizes: dict[str, tuple[float, float]] = {}
    users: dict[ImageRef, list[tuple[CheckedSet, int]]] = {}
    for checked in report.sets:
        for image_id, image in checked.images.items():
            users.setdefault(image, []).append((checked, image_id))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = _in_order(pool, users)
        for done, (image, result) in enumerate(results):
            if progress is not None:
                progress("images", done + 1, len(users))
            for checked, image_id in users[image]:
                if isinstance(result, tuple):
                    prints[str(image)], (width, height) = result
                    sizes[str(image)] = (width, height)
                    stated = checked.sizes.get(image_id)
                    if stated is not None and stated != (width, height):
                        text = f"{image} has {width} × {height} pixels, annotated are {stated[0]:g} × {stated[1]:g}"
                        report.findings.append(Finding("image size", checked.file, text, image))
                else:
                    kind = "image broken" if exists(image) else "image missing"
                    report.findings.append(Finding(kind, checked.file, result))
    return prints, sizes


_Seen = tuple[ImagePrint, tuple[int, int]] | str


def _in_order(pool: ThreadPoolExecutor, users: Iterable[ImageRef]) -> Iterator[tuple[ImageRef, _Seen]]:
    images = iter(users)
    while some := list(islice(images, 256)):
        yield from zip(some, pool.map(_look, some), strict=True)


def _look(image: ImageRef) -> _Seen:
    """An image's print and (width, height), or why it cannot be used."""
    try:
        data = read_bytes(image)
        pixels = decode_image(data, name=str(image))
    except BrokenImageError as error:
        return str(error)
    return image_print(data, pixels), (pixels.shape[1], pixels.shape[0])
