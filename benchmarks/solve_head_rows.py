"""Solve some keypoints' rows of a heatmap model's last layer by least squares, with everything else as it is.

A keypoint that few sets label learns slowly beside those that the model could find from the start. With the features as they
are, its row of the last 1×1 convolution that has the least squared error over all pixels is the solution of a linear system.

    python benchmarks/solve_head_rows.py MODEL.safetensors OUT.safetensors DATA neck head_top

`DATA` is a folder with the sets that the recipe `body/tinypose_body_s` names; LSP's held-out tenth is not used. With
`--empty-unlabelled` the model learns where a keypoint is not, from people who show no such keypoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn.functional import pixel_unshuffle

from leanpose.data.dataset import TopDownDataset
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.models.heatmap_model import HeatmapModel
from leanpose.weights import describe, load_model, save_model

SETS = {
    "lsp": DatasetConfig(format="lsp", images=Path("lsp/images"), annotations=Path("lsp/joints.mat"), split="train"),
    "lspet": DatasetConfig(
        format="coco",
        images=Path("lspet_crops/images.tar"),
        annotations=Path("lspet_crops/person_keypoints_lspet.json"),
    ),
    "coco_crops": DatasetConfig(
        format="coco",
        images=Path("coco_crops/images.tar"),
        annotations=Path("coco_crops/person_keypoints_crops.json"),
    ),
}
RIDGE = 1e-3  # of the features' mean square
BATCH = 32


@torch.no_grad()
def solve(
    model: HeatmapModel, root: Path, names: list[str], sets: list[str], limit: int, *, empty_unlabelled: bool
) -> None:
    """Put the solution into the model."""
    rows = [model.skeleton.keypoint_names.index(name) for name in names]
    size, factor = model.head.in_channels + 1, model.config.head_upsample
    gram = torch.zeros(len(rows), size, size).double()
    moment = torch.zeros(len(rows), size, factor**2).double()  # a column for each pixel of a feature
    for config in (SETS[name] for name in sets):
        people = read_people(config, model.skeleton, root, training=True).people[:limit]
        dataset = TopDownDataset(
            people, model.skeleton, model.input_size, warp=model.codec.warp, padding=model.codec.padding
        )
        for first in range(0, len(people), BATCH):
            batch = dataset.collate([dataset[i] for i in range(first, min(first + BATCH, len(people)))])
            images, keypoints, weights = batch.inputs
            features = model.deconvolutions(model.backbone(model.normalize(images))).permute(0, 2, 3, 1).flatten(1, 2)
            features = torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)
            target = model.codec.encode(keypoints, weights)
            for place, row in enumerate(rows):
                seen = (target.weights[:, row] > 0) | empty_unlabelled
                pixels = pixel_unshuffle(target.heatmaps[seen, row][:, None], factor).permute(0, 2, 3, 1)
                x, y = features[seen].flatten(0, 1).double(), pixels.flatten(0, 2).double()
                gram[place] += x.T @ x
                moment[place] += x.T @ y
        print(f"{config.title}: {len(people)} people", flush=True)
    for place, row in enumerate(rows):
        ridge = RIDGE * gram[place].diagonal().mean() * torch.eye(size).double()
        solution = torch.linalg.solve(gram[place] + ridge, moment[place]).float()
        own = slice(row * factor**2, (row + 1) * factor**2)
        model.head.weight[own, :, 0, 0] = solution[:-1].T
        assert model.head.bias is not None
        model.head.bias[own] = solution[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("data", type=Path)
    parser.add_argument("keypoints", nargs="+")
    parser.add_argument("--limit", type=int, default=10**9, help="people of each set")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=["lsp", "lspet"])
    parser.add_argument(
        "--empty-unlabelled", action="store_true", help="the map of a keypoint without a label is to be empty"
    )
    options = parser.parse_args()
    model, card = load_model(options.model), describe(options.model)
    assert isinstance(model, HeatmapModel), "only models with one linear layer behind their features"
    how = {"empty_unlabelled": options.empty_unlabelled}
    solve(model, options.data, options.keypoints, options.sets, options.limit, **how)
    kept = {key: card[key] for key in ("training_data", "licence", "metrics", "notes")}
    save_model(model, options.out, **kept)


if __name__ == "__main__":
    main()
