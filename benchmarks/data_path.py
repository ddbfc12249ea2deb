"""The data path, in crops a second on one core: this library against a plain per-sample OpenCV pipeline.

    python benchmarks/data_path.py
    python benchmarks/data_path.py --images coco/images --annotations coco/person_keypoints_train.json

The plain pipeline does what the papers' toolbox does for each sample: decode, mirror, warp, turn to float, normalize,
draw the target heatmaps. Here a worker decodes what is needed of the JPEG, warps once with everything folded into the
map, and hands out uint8; normalization and targets are made in batches on the training device, and the line "with
normalization and targets" shows what they would cost on the same core. All are run in turns and timed by the processor
time that they use, so that other work disturbs little; the ratio of each round is taken, and the median of the ratios
is shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from leanpose.codecs.heatmap import HeatmapCodec
from leanpose.data.annotations import PoseAnnotation, PoseDataset
from leanpose.data.augmentation import Augmentation
from leanpose.data.dataset import TopDownDataset
from leanpose.data.ground_truth import coco_category
from leanpose.data.pack_file import PackConfig
from leanpose.data.pack_writer import pack_people
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.skeleton import COCO17

SIZE = (256, 192)
HEATMAP = (64, 48)
SIGMA = 2.0
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
BATCH = 32


def plain_sample(person: PoseAnnotation, rng: np.random.Generator) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """One sample as the papers' toolbox makes it, step by step: float image, heatmaps, weights."""
    image = cv2.imread(person.image.path, cv2.IMREAD_COLOR)
    assert image is not None
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    center, scale, rotation, flip = Augmentation().sample(rng, person, COCO17, SIZE)
    points = person.keypoints.astype(np.float64).copy()
    if flip:
        image = np.ascontiguousarray(image[:, ::-1])
        points[:, 0] = image.shape[1] - 1 - points[:, 0]
        points = points[list(COCO17.flip_indices)]
        center = np.array([image.shape[1] - 1 - center[0], center[1]])
    angle = np.deg2rad(rotation)
    up = np.array([np.sin(angle), -np.cos(angle)]) * scale[0] / 2
    source = np.array([center, center + up, center + up + [up[1], -up[0]]], np.float32)
    middle = np.array([SIZE[1], SIZE[0]]) / 2
    above = middle - np.array([0, SIZE[1] / 2])
    target = np.array([middle, above, above - np.array([SIZE[1] / 2, 0])], np.float32)
    matrix = cv2.getAffineTransform(source, target)
    crop = cv2.warpAffine(image, matrix, (SIZE[1], SIZE[0]), flags=cv2.INTER_LINEAR)
    for k in range(len(points)):
        if points[k, 2] > 0:
            points[k, :2] = matrix @ [points[k, 0], points[k, 1], 1.0]
    tensor = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))).float().div(255)
    tensor = (tensor - torch.tensor(MEAN, dtype=torch.float32)[:, None, None]) / torch.tensor(STD, dtype=torch.float32)[
        :, None, None
    ]
    maps = np.zeros((len(points), *HEATMAP), np.float32)
    weights = (points[:, 2] > 0).astype(np.float32)
    stride = np.array([SIZE[1] / HEATMAP[1], SIZE[0] / HEATMAP[0]])
    x, y = np.arange(HEATMAP[1], dtype=np.float32), np.arange(HEATMAP[0], dtype=np.float32)[:, None]
    for k in range(len(points)):
        mu = points[k, :2] / stride
        low, high = mu - 3 * SIGMA, mu + 3 * SIGMA + 1
        if low[0] >= HEATMAP[1] or low[1] >= HEATMAP[0] or high[0] < 0 or high[1] < 0:
            weights[k] = 0
        if weights[k] > 0:
            maps[k] = np.exp(-((x - mu[0]) ** 2 + (y - mu[1]) ** 2) / (2 * SIGMA**2))
    return tensor, maps, weights


def plain(people: list[PoseAnnotation]) -> Callable[[], int]:
    """The plain pipeline over all people; returns how many there were."""

    def run() -> int:
        for start in range(0, len(people), BATCH):
            part = people[start : start + BATCH]
            samples = [plain_sample(p, np.random.default_rng([0, start + i])) for i, p in enumerate(part)]
            torch.stack([sample[0] for sample in samples])
            torch.from_numpy(np.stack([sample[1] for sample in samples]))
            torch.from_numpy(np.stack([sample[2] for sample in samples]))
        return len(people)

    return run


def ours(dataset: TopDownDataset, *, device_part: bool = False) -> Callable[[], int]:
    """Our pipeline over all people; with `device_part` also normalization and targets, as the training device does."""
    codec = HeatmapCodec(input_size=SIZE, heatmap_size=HEATMAP, sigma=SIGMA)
    mean = torch.tensor(MEAN * 255, dtype=torch.float32)[:, None, None]
    std = torch.tensor(STD * 255, dtype=torch.float32)[:, None, None]

    def run() -> int:
        for start in range(0, len(dataset), BATCH):
            batch = dataset.collate([dataset[i] for i in range(start, min(start + BATCH, len(dataset)))])
            if device_part:
                _ = (batch.images.permute(0, 3, 1, 2).float() - mean) / std
                codec.encode(batch.keypoints, batch.weights)
        return len(dataset)

    return run


def write_images(folder: Path, count: int) -> DatasetConfig:
    """Images with the spectrum of photographs (amplitude 1 / frequency), and people as large as COCO's."""
    rng = np.random.default_rng(0)
    height, width = 480, 640
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    images, annotations = [], []
    for i in range(1, count + 1):
        noise = np.fft.fft2(rng.standard_normal((3, height, width))) / frequency**1.1
        image = np.fft.ifft2(noise).real
        image = (image - image.mean()) / image.std() * 50 + 118
        pixels = np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        cv2.imwrite(str(folder / f"{i}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
        images.append({"id": i, "file_name": f"{i}.jpg", "width": width, "height": height})
        h = float(np.clip(np.exp(rng.normal(5.2, 0.6)), 60, 460))
        w = h * rng.uniform(0.35, 0.9)
        x, y = rng.uniform(0, max(width - w, 1)), rng.uniform(0, height - h)
        points = np.concatenate([rng.uniform([x, y], [x + w, y + h], (17, 2)), np.full((17, 1), 2)], axis=1)
        annotations.append(
            {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "bbox": [x, y, w, h], "area": w * h * 0.53,
             "num_keypoints": 17, "keypoints": points.reshape(-1).tolist()}
        )  # fmt: skip
    content = {"images": images, "annotations": annotations, "categories": [coco_category(COCO17)]}
    (folder / "annotations.json").write_text(json.dumps(content))
    return DatasetConfig(format="coco", images=folder, annotations=folder / "annotations.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of JPEGs [default: generated images]")
    parser.add_argument("--annotations", type=Path, help="their COCO JSON")
    parser.add_argument("--people", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.images is not None:
            source = DatasetConfig(format="coco", images=arguments.images, annotations=arguments.annotations)
        else:
            source = write_images(Path(temporary), arguments.people)
        people = read_people(source, COCO17, training=True).people
        order = np.random.default_rng(0).permutation(len(people))[: arguments.people]
        people = [people[i] for i in order]
        full = TopDownDataset(people, COCO17, SIZE, augmentation=Augmentation(), reduced_decoding=False)
        reduced = TopDownDataset(people, COCO17, SIZE, augmentation=Augmentation())
        pipelines: dict[str, Callable[[], int]] = {
            "plain per-sample OpenCV, float and heatmaps": plain(people),
            "leanpose, JPEGs never at reduced size": ours(full),
            "leanpose": ours(reduced),
            "leanpose, with normalization and targets": ours(reduced, device_part=True),
        }
        for encoding in ("jpeg", "raw"):
            config, path = PackConfig(SIZE, encoding=encoding), Path(temporary) / f"{encoding}.pack"
            cache = pack_people([PoseDataset("people", people)], COCO17, config, path)
            cached = TopDownDataset(people, COCO17, SIZE, augmentation=Augmentation(), cache=cache)
            pipelines[f"leanpose, {encoding} pack"] = ours(cached)
        for run in pipelines.values():
            run()
        speeds: dict[str, list[float]] = {name: [] for name in pipelines}
        for _ in range(arguments.rounds):
            for name, run in pipelines.items():
                began = time.process_time()
                count = run()
                speeds[name].append(count / (time.process_time() - began))
    base = speeds[next(iter(pipelines))]
    print(f"{len(people)} people, {SIZE[0]}x{SIZE[1]}, one core, median of {arguments.rounds} rounds")
    for name, values in speeds.items():
        ratio = statistics.median(v / b for v, b in zip(values, base, strict=True))
        print(f"{name:46s} {statistics.median(values):7.0f} crops/s   {ratio:5.2f} ×")


if __name__ == "__main__":
    main()
