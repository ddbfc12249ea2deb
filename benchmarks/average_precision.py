"""How fast AP is: `leanpose.evaluation.ap` against pycocotools on the same people, and the same figures.

    python benchmarks/average_precision.py                # 5,000 images of 20 labelled and 20 found people
    python benchmarks/average_precision.py --images 500 --repeats 5

What is timed is everything between a result in memory and the ten figures: for pycocotools `loadRes` on a results
list, `evaluate` and `grad_accum_steps` (the index of the annotations is built before); for leanpose one call, which takes
the annotations as the dictionary that the JSON file holds. No suppression of duplicates, since pycocotools has none.
The two alternate, so that a busy machine slows both; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import resource
import statistics
import time

import numpy as np

from leanpose.evaluation import PosePredictions, average_precision
from leanpose.skeleton import COCO17

NAMES = ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")


def random_people(images: int, people: int, seed: int) -> tuple[dict, PosePredictions]:
    """A COCO keypoint dictionary with some crowds and unlabelled people, and people found in it: near and far ones."""
    rng = np.random.Generator(np.random.PCG64(seed))
    count, keypoints = images * people, len(COCO17)
    image_ids = np.repeat(np.arange(1, images + 1), people)
    corners = rng.uniform(0, 500, (count, 1, 2))
    sizes = np.exp(rng.uniform(np.log(24), np.log(300), (count, 1, 1))) * np.array([0.6, 1.0])
    points = corners + sizes * rng.uniform(0, 1, (count, keypoints, 2))
    visibility = rng.choice([0, 1, 2], (count, keypoints), p=[0.2, 0.2, 0.6])
    visibility[rng.random(count) < 0.1] = 0
    areas = 0.5 * sizes.prod(axis=-1)[:, 0]
    crowds = rng.random(count) < 0.03
    triplets = np.concatenate([points * (visibility > 0)[..., None], visibility[..., None]], axis=2)
    annotations = [
        {
            "id": number + 1,
            "image_id": int(image_ids[number]),
            "category_id": 1,
            "iscrowd": int(crowds[number]),
            "num_keypoints": int((visibility[number] > 0).sum()),
            "area": float(areas[number]),
            "bbox": [*corners[number, 0].tolist(), *sizes[number, 0].tolist()],
            "keypoints": triplets[number].reshape(-1).tolist(),
        }
        for number in range(count)
    ]
    ground_truth = {
        "images": [{"id": number, "width": 640, "height": 480} for number in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO17.keypoints), "skeleton": []}],
    }
    error = rng.normal(0, 1, points.shape) * np.sqrt(areas)[:, None, None] * rng.uniform(0.01, 0.3, (count, 1, 1))
    found = points + error
    results = PosePredictions(
        image_ids=image_ids,
        keypoints=found,
        keypoint_scores=rng.uniform(0.1, 1, (count, keypoints)),
        boxes=np.concatenate([found.min(axis=1), found.max(axis=1)], axis=1),
        box_scores=rng.uniform(0.1, 1, count),
        areas=areas,
    )
    return ground_truth, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ground_truth, results = random_people(options.images, options.people, options.seed)
    found = results.to_coco()
    seconds: dict[str, list[float]] = {"pycocotools": [], "leanpose": []}
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        labelled = COCO()
        labelled.dataset = ground_truth  # pyright: ignore[reportAttributeAccessIssue]
        labelled.createIndex()
    for _ in range(options.repeats):
        own = copy.deepcopy(found)  # loadRes writes into the list
        with contextlib.redirect_stdout(io.StringIO()):
            start = time.perf_counter()
            evaluation = COCOeval(labelled, labelled.loadRes(own), "keypoints")  # pyright: ignore[reportArgumentType]
            evaluation.evaluate()
            evaluation.accumulate()
            seconds["pycocotools"].append(time.perf_counter() - start)
            evaluation.summarize()
        theirs = dict(zip(NAMES, evaluation.stats.tolist(), strict=True))
        del evaluation
        start = time.perf_counter()
        ours = average_precision(ground_truth, results, COCO17.sigmas, nms=None)
        seconds["leanpose"].append(time.perf_counter() - start)
    difference = max(abs(ours[name] - theirs[name]) for name in NAMES)
    print(f"{options.images} images × {options.people} people, median (all) of {options.repeats} alternated runs")
    for tool, taken in seconds.items():
        print(f"{tool:>12}: {statistics.median(taken):7.2f} s  ({', '.join(f'{t:.2f}' for t in taken)})")
    ratio = statistics.median(seconds["pycocotools"]) / statistics.median(seconds["leanpose"])
    print(f"{'ratio':>12}: {ratio:7.2f} ×")
    print(f"{'AP':>12}: {ours['AP']:7.4f}, largest difference of the ten figures {difference:.1e}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if os.uname().sysname == "Darwin" else 1024)
    print(f"{'peak memory':>12}: {peak / 1024:7.1f} GiB, both tools and the data")
    if difference > 1e-6:
        raise SystemExit("The two do not agree.")


if __name__ == "__main__":
    main()
