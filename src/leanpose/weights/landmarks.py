"""Which keypoints an official checkpoint finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17, CROWDPOSE14, MPII16, WHOLEBODY133, Skeleton
from leanpose.weights.checkpoint import StoredArray

_BY_COUNT = {len(skeleton): skeleton for skeleton in (COCO17, CROWDPOSE14, MPII16, WHOLEBODY133)}
# mmpose's names of data sets.
_BY_DATASET = {"coco": 17, "humanart": 17, "crowdpose": 14, "mpii": 16, "coco_wholebody": 133, "ubody2d": 133}


def skeleton_of(keypoints: int, dataset: Mapping[str, Any]) -> tuple[Skeleton, str]:
    """The skeleton of a checkpoint, and a sentence on how it is known.

    Args:
        keypoints: how many the network finds.
        dataset: what mmpose has noted of its data; empty where it has not.

    Raises:
        LeanposeError: nothing tells what the keypoints are.
    """
    if _BY_DATASET.get(str(dataset.get("dataset_name", ""))) == keypoints:
        known = _BY_COUNT[keypoints]
        return known, f"keypoints: {known.name}, as the file says"
    described = _described(keypoints, dataset)
    if described is not None:
        return described, f"keypoints: {described.name}, as the file describes them"
    if keypoints not in _BY_COUNT:
        raise LeanposeError(
            f"The checkpoint finds {keypoints} keypoints and does not say which; give a skeleton (--skeleton NAME or FILE.yaml)."
        )
    guess = _BY_COUNT[keypoints]
    return guess, f"keypoints: {guess.name}, going by their number alone (--skeleton says otherwise)"


def _described(keypoints: int, dataset: Mapping[str, Any]) -> Skeleton | None:
    """From the names, links and constants that mmpose stores."""
    names, links, sigmas = (dataset.get(key) for key in ("keypoint_id2name", "skeleton_links", "sigmas"))
    if not isinstance(names, Mapping) or set(names) != set(range(keypoints)):
        return None
    stored = sigmas.numbers() if isinstance(sigmas, StoredArray) else None
    fits = stored is not None and stored.shape == (keypoints,)
    values = {
        "name": str(dataset.get("dataset_name", "unnamed")) + str(keypoints),
        "keypoints": [str(names[i]) for i in range(keypoints)],
        "limbs": [[a, b] for a, b in links] if isinstance(links, list) else [],
        "sigmas": [round(float(s), 6) for s in stored] if fits and stored is not None else None,
    }
    try:
        return Skeleton.from_dict(values)
    except (LeanposeError, TypeError, ValueError):
        return None
