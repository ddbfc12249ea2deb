"""Images that are both trained and measured on, which make every figure too good."""

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
    """See that no image is both trained and measured on, whatever its name, and warn of those that look alike.

    Images that cannot be read are left to those who need them.

    Args:
        people, val: to train and to measure on.
        folder: keeps what was found; every image is decoded once.

    Returns:
        What is to be said: a sentence, or none.

    Raises:
        LeanposeError: a file is trained and measured on.
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
        f"{len(pairs)} of the {measured} images to measure on look like images that are trained on ({shown}"
        f"{' …' if len(pairs) > 3 else ''}): if they are copies, the figures are too good; all pairs are in {FILE}."
    ]


def _alike(people: PoseDataset, val: PoseDataset) -> list[tuple[str, str]]:
    """Pairs of a trained and a measured image that look alike.

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
            f"{len(same)} of the {len(measured)} images to measure on are trained on too, such as {same[0]}: no figure would "
            "mean anything."
        )
    return [(str(a), str(b)) for a, b in pairs]
