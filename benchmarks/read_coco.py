"""Reading a COCO keypoint file of many people: seconds of processor time, and peak memory.

    python benchmarks/read_coco.py
    python benchmarks/read_coco.py --against OTHER/src     # the same with another copy of this library, in turns

The file is written for it: 17 keypoints a person, two people an image, a polygon each, as in COCO's own files. Each run
is a process of its own; the median of the rounds is shown, and with `--against` the median of the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

NAMES = [
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
]  # fmt: skip
SCRIPT = """
import json, resource, sys, time
from pathlib import Path
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.skeleton import COCO17
import leanpose.data.coco
import leanpose.files
import numpy
config = DatasetConfig(format="coco", images=Path("."), annotations=Path(sys.argv[1]))
start = time.process_time()
people = read_people(config, COCO17, training=True).people
seconds = time.process_time() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(people)]))
"""


def write_file(path: Path, people: int) -> None:
    """A COCO file of so many people."""
    rng = np.random.default_rng(0)
    images = [
        {
            "id": n,
            "file_name": f"{n:012d}.jpg",
            "width": 640,
            "height": 480,
            "license": 1,
            "coco_url": f"http://x/{n}.jpg",
        }
        for n in range(people // 2)
    ]
    annotations = []
    for number in range(people):
        flags = rng.choice([0, 1, 2], 17, p=[0.4, 0.1, 0.5])
        points = np.column_stack([rng.integers(1, 470, (17, 2)) * (flags > 0)[:, None], flags])
        polygon = [[round(float(v), 2) for v in rng.uniform(0, 470, 40)]]
        annotations.append(
            {
                "segmentation": polygon, "num_keypoints": int((flags > 0).sum()), "area": 20000.5, "iscrowd": 0,
                "keypoints": points.reshape(-1).tolist(), "image_id": number // 2, "bbox": [20.5, 30.25, 200.0, 300.5],
                "category_id": 1, "id": number,
            }
        )  # fmt: skip
    category = {"id": 1, "name": "person", "keypoints": NAMES, "skeleton": []}
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))


def read(file: Path, source: Path) -> tuple[float, float]:
    """Seconds and MB of one process that reads the file with the library in `source`."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(file)], env=environment, capture_output=True, text=True, check=True
    )
    seconds, megabytes, _ = json.loads(done.stdout.splitlines()[-1])
    return seconds, megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="The folder `src` of another copy of this library.")
    arguments = parser.parse_args()
    own = Path(__file__).resolve().parent.parent / "src"
    sources = [own, *([arguments.against] if arguments.against else [])]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "people.json"
        write_file(file, arguments.people)
        rounds = [[read(file, source) for source in sources] for _ in range(arguments.rounds)]
        print(f"{arguments.people} people, {file.stat().st_size / 1e6:.0f} MB of JSON")
    for number, source in enumerate(sources):
        seconds, megabytes = (statistics.median(each[number][part] for each in rounds) for part in (0, 1))
        print(f"{source}: {seconds:.2f} s, {megabytes:.0f} MB at most")
    if arguments.against:
        ratio = statistics.median(other[0] / own_[0] for own_, other in rounds)
        print(f"The other takes {ratio:.2f} times as long.")


if __name__ == "__main__":
    main()
