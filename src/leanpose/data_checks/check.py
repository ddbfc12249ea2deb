"""The whole check of a data set: files, images, people, duplicates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

from leanpose.data.annotations import ImageRef
from leanpose.data.duplicates import Hashes, hash_image, near_pairs
from leanpose.data.image_folder import ImageFolder, exists
from leanpose.data.prefetch import threaded_map
from leanpose.data.sets import format_of, label_files, split_of
from leanpose.data_checks.findings import CheckedSet, CheckReport
from leanpose.data_checks.people import check_person
from leanpose.data_checks.reading import read_set
from leanpose.data_checks.repeats import check_repeats
from leanpose.data_checks.sides import check_sides
from leanpose.data_checks.statistics import check_evaluation_size, check_statistics, compare_visibility
from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton

Progress = Callable[[int, int], None]
"""Called with the number of images that are decoded and how many there are."""


def check_data(
    paths: Sequence[Path],
    *,
    images: Path | None = None,
    skeleton: Skeleton | None = None,
    category: str | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Read data sets and list everything that is wrong with them.

    Args:
        paths: annotation files, or folders in which they and their images are found. Sets that are checked together
            are compared with each other: the same image in two splits is found.
        images: folder or archive of the images of all these files, where it is not found by itself.
        skeleton: of the files, instead of that of their keypoint names.
        category: the one to check if there are several.

    Raises:
        LeanposeError: a path is not there, or none of the files holds keypoints.
    """
    report = CheckReport()
    if images is not None:
        ImageFolder(images, paths[0].stem)  # raises where it is not there
    for path in paths:
        top = path.parent if path.is_dir() else path.parent.parent
        for file in _checked_files(path):
            read_set(report, file, top, images, skeleton, category)
    if not report.sets and not report.damaged:
        reasons = "; ".join(f"{file.name}: {reason}" for file, reason in list(report.skipped.items())[:3])
        raise LeanposeError(f"None of the files holds keypoints ({reasons}).")
    hashes = _check_images(report, progress)
    for checked in report.sets:
        sizes = dict(checked.sizes)
        sizes |= {number: hashes[image].size for number, image in checked.images.items() if image in hashes}
        for person in checked.people:
            check_person(person, checked, sizes.get(person.image_id))
        if not checked.in_fractions:  # which all else would repeat
            check_sides(checked)
            check_statistics(checked, sizes)
    _find_duplicates(report.sets, hashes)
    check_repeats(report.sets, hashes)
    compare_visibility(report.sets)
    check_evaluation_size(report)
    return report


def _checked_files(path: Path) -> list[Path]:
    """The files to check: those given, or those of a folder that may hold labels; a folder of Labelme's files is
    one."""
    if path.is_dir() and format_of(path) == "labelme":
        return [path]
    files = label_files(path)
    # A file of settings is not a corrupt file of labels, but where there is nothing else it is named.
    held = [file for file in files if file.suffix not in (".yaml", ".yml", ".csv") or format_of(file) is not None]
    return held or files


def _check_images(report: CheckReport, progress: Progress | None) -> Hashes:
    """Decode every image once."""
    hashes: Hashes = {}
    users: dict[ImageRef, list[tuple[CheckedSet, int]]] = defaultdict(list)
    for checked in report.sets:
        for image_id, image in checked.images.items():
            users[image].append((checked, image_id))
    for done, (image, result) in enumerate(threaded_map(hash_image, users), start=1):
        if progress is not None:
            progress(done, len(users))
        for checked, image_id in users[image]:
            if isinstance(result, str):
                checked.add("image broken" if exists(image) else "image missing", result)
                continue
            hashes[image] = result
            stated = checked.sizes.get(image_id, result.size)
            if stated != result.size:
                text = f"{image} has {result.size[0]} × {result.size[1]} pixels, annotated are {stated[0]:g} × {stated[1]:g}"
                checked.add("image size", text, image)
    return hashes


def _find_duplicates(sets: list[CheckedSet], hashes: Hashes) -> None:
    """Add images that occur twice in a set, or in two sets: a leak where these are different splits, or where the file
    itself names splits."""
    for checked in sets:
        by_digest = defaultdict(list)
        for image in checked.images.values():
            if image in hashes:
                by_digest[hashes[image].digest].append(image)
        for first, *others in by_digest.values():
            if others:
                checked.add("image twice", f"{others[0]} equals {first}", others[0])
        parts = [
            [
                image
                for number, image in checked.images.items()
                if checked.splits.get(number) == split and image in hashes
            ]
            for split in ("train", "val")
        ]
        for first, second in near_pairs(parts[0], parts[1], hashes):
            same = hashes[first].digest == hashes[second].digest
            text = f"{second} of val {'equals' if same else 'looks like'} {first} of train"
            checked.add("split leak", text, second)
    for a, b in combinations(sets, 2):
        splits = split_of(a.file), split_of(b.file)
        leak = splits[0] != splits[1] and None not in splits
        images_a, images_b = ([i for i in checked.images.values() if i in hashes] for checked in (a, b))
        for first, second in near_pairs(images_a, images_b, hashes):
            if first == second and not leak:
                continue  # two annotation files of the same images
            same = hashes[first].digest == hashes[second].digest
            text = f"{second} {'equals' if same else 'looks like'} {first} of {a.file.name}"
            b.add("split leak" if leak else "image twice", text, second)
