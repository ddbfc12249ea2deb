"""Images that are in both the training and the validation set, which inflate all results."""

from __future__ import annotations

import json
from pathlib import Path

from leanpose.data.annotations import PoseDataset
from leanpose.data.duplicates import ImageHash, hash_image, near_pairs
from leanpose.data.prefetch import threaded_map
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, load_json

FILE = "leaks.json"


def check_leaks(people: PoseDataset, val: PoseDataset, folder: Path) -> list[str]:
    """Check that no image is in both the training and the validation set, whatever its name, and warn of similar ones.

    Unreadable images are ignored here.

    Args:
        people, val: the training and validation sets.
        folder: keeps the result; every image is decoded once.

    Returns:
        A list with one warning, or none.

    Raises:
        LeanposeError: a file is in both sets.
    """
    path = folder / FILE
    if path.is_file():
        pairs = [tuple(pair) for pair in load_json(path, "list of similar images")["alike"]]
    else:
        pairs = _alike(people, val)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"alike": pairs}, indent=1))
    if not pairs:
        return []
    measured = len({person.image for person in val.people})
    shown = "; ".join(f"{seen} like {trained}" for trained, seen in pairs[:3])
    return [
        f"{len(pairs)} of the {measured} validation images look like training images ({shown}"
        f"{' …' if len(pairs) > 3 else ''}): if they are copies, the results are inflated; all pairs are in {FILE}."
    ]


def _alike(people: PoseDataset, val: PoseDataset) -> list[tuple[str, str]]:
    """Pairs of a training and a validation image that look alike.

    Raises:
        LeanposeError: two are the same file, byte by byte.
    """
    trained, measured = (list(dict.fromkeys(person.image for person in each.people)) for each in (people, val))
    found = dict(threaded_map(hash_image, list(dict.fromkeys([*trained, *measured]))))
    hashes = {image: value for image, value in found.items() if isinstance(value, ImageHash)}
    readable = [image for image in trained if image in hashes], [image for image in measured if image in hashes]
    pairs = near_pairs(*readable, hashes)
    same = [b for a, b in pairs if hashes[a].digest == hashes[b].digest]
    if same:
        raise LeanposeError(
            f"{len(same)} of the {len(measured)} validation images are also in the training set, such as {same[0]}: no "
            "result would mean anything."
        )
    return [(str(a), str(b)) for a, b in pairs]
