"""How much of the views lies outside of packed crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_builders import encoded, pack, person, write_coco
from leanpose.data.annotations import PoseAnnotation
from leanpose.data.augmentation import Augmentation
from leanpose.data.crop_coverage import coarser_share, outside_share, require_whole_views
from leanpose.data.dataset import TopDownDataset
from leanpose.data.pack_file import CropLookup, PackConfig
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17

SIZE = (64, 48)


@pytest.fixture
def people(tmp_path: Path) -> list[PoseAnnotation]:
    """Two people in the middle of white images, and one whose views reach over the image's edge."""
    write_coco(tmp_path, 3, [person(1, 1, x=130, y=100), person(2, 2, x=120, y=90), person(3, 3, x=0, y=0)])
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(encoded(np.full((300, 300, 3), 255, np.uint8)))
    text = (tmp_path / "annotations.json").read_text()
    (tmp_path / "annotations.json").write_text(
        text.replace('"width": 160, "height": 120', '"width": 300, "height": 300')
    )
    source = DatasetConfig(format="coco", images=tmp_path / "images", annotations=tmp_path / "annotations.json")
    return read_people(source, COCO17, training=True).people


@pytest.mark.parametrize("margin", [1.0, 2.5])
def test_the_share_is_that_of_the_pixels_that_turn_black(
    people: list[PoseAnnotation], tmp_path: Path, margin: float
) -> None:
    """In white images a pixel is black in a view from the image where the image ends, and in one from the crop also outside."""
    cache = pack(people, PackConfig(SIZE, margin=margin), tmp_path / "people.pack")
    augmentation = Augmentation()
    share = outside_share(people, CropLookup(people, cache), augmentation, COCO17, SIZE)
    plain, packed = (TopDownDataset(people, COCO17, SIZE, augmentation=augmentation, cache=c) for c in (None, cache))
    lost = []
    for epoch in range(30):
        for dataset in (plain, packed):
            dataset.set_epoch(epoch)
        for i in range(len(people)):
            lost.append((plain.read(i).image[..., 0] > 127).mean() - (packed.read(i).image[..., 0] > 127).mean())
    assert share == pytest.approx(np.mean(lost), abs=0.03)
    assert (share < 0.005) == (margin == 2.5)


def test_a_pack_that_shows_less_than_the_model_sees_is_not_measured_on(
    people: list[PoseAnnotation], tmp_path: Path
) -> None:
    crops = CropLookup(people, pack(people, PackConfig(SIZE, margin=1.0), tmp_path / "people.pack"))
    require_whole_views(people, crops, SIZE)
    require_whole_views(people, crops, SIZE, 1.15)
    assert coarser_share(people, crops, SIZE) == 0
    for size, padding in (((128, 96), 1.25), ((64, 64), 1.25), (SIZE, 1.6), (SIZE, 1.1)):
        with pytest.raises(LeanposeError, match=r"was made for 64×48 crops with padding 1.25, which are smaller or"):
            require_whole_views(people, crops, size, padding)
    assert coarser_share(people, crops, (128, 96)) == 1
    require_whole_views(people, CropLookup(people), (128, 96))
