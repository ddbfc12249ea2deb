"""Checkpoints of every family, in the layout that its code writes, become files that give the official numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from golden_rules import OUTPUT_TOLERANCE, Golden
from leanpose.weights import describe
from official_files import converted, deviation, official_weights

SLOW = pytest.mark.slow
SIZE = (256, 192)

# reference file, the name it must get, input size, keypoints, what convert is told next to the file
FAMILIES: list[Any] = [
    ("rtmpose_t_body17_256x192", "rtmpose_t", SIZE, "coco17", {}),
    ("rtmpose_s_body17_256x192", "rtmpose_s", SIZE, "coco17", {}),
    pytest.param("rtmpose_m_wholebody133_256x192", "rtmpose_m", SIZE, "coco_wholebody133", {}, marks=SLOW),
    ("rtmpose_t_wholebody133_256x192", "rtmpose_t", SIZE, "coco_wholebody133", {}),
    pytest.param("rtmpose_l_wholebody133_384x288", "rtmpose_l", (384, 288), "coco_wholebody133", {}, marks=SLOW),
    pytest.param("rtmpose_x_wholebody133_256x192", "rtmpose_x", SIZE, "coco_wholebody133", {}, marks=SLOW),
    pytest.param("simcc_res50_256x192", "simcc_r50", SIZE, "coco17", {}, marks=SLOW),
    pytest.param("simplebaseline_res50_256x192", "simplebaseline_r50", SIZE, "coco17", {}, marks=SLOW),
    pytest.param("simplebaseline_res101_256x192", "simplebaseline_r101", SIZE, "coco17", {}, marks=SLOW),
    pytest.param("simplebaseline_res152_256x192", "simplebaseline_r152", SIZE, "coco17", {}, marks=SLOW),
    pytest.param("hrnet_w32_256x192", "hrnet_w32", SIZE, "coco17", {}, marks=SLOW),
    pytest.param("deeppose_res50_256x192", "deeppose_r50", SIZE, "coco17", {}, marks=SLOW),
    pytest.param("deeppose_res101_256x192", "deeppose_r101", SIZE, "coco17", {}, marks=SLOW),
    pytest.param("deeppose_res152_256x192", "deeppose_r152", SIZE, "coco17", {}, marks=SLOW),
    ("rle_res50_256x192", "rle_r50", SIZE, "coco17", {}),
    ("vitpose_s_256x192", "vitpose_s", SIZE, "coco17", {}),
    ("vitpose_s_simple_256x192", "vitpose_s_simple", SIZE, "coco17", {}),
    ("tokenpose_t", "tokenpose_t", SIZE, "coco17", {}),
    ("tokenpose_s_v1", "tokenpose_s_v1", SIZE, "coco17", {}),
    ("tokenpose_s_v2", "tokenpose_s_v2", SIZE, "coco17", {"grid": (32, 24)}),
    pytest.param("tokenpose_b", "tokenpose_b", SIZE, "coco17", {}, marks=SLOW),
    pytest.param("tokenpose_l_d24_256x192", "tokenpose_l_d6", SIZE, "coco17", {}, marks=SLOW),
    pytest.param("tokenpose_l_d6_mpii_256x256", "tokenpose_l_d6", (256, 256), "mpii16", {}, marks=SLOW),
    ("sdrepo_tokenpose_t", "tokenpose_t", SIZE, "coco17", {}),
    ("sdrepo_tokenpose_s_v1", "tokenpose_s_v1", SIZE, "coco17", {}),
    ("sdrepo_tokenpose_s_v2", "tokenpose_s_v2", SIZE, "coco17", {"grid": (32, 24)}),
    pytest.param("sdrepo_tokenpose_b", "tokenpose_b", SIZE, "coco17", {}, marks=SLOW),
    pytest.param("sdrepo_tokenpose_l_d6", "tokenpose_l_d6", SIZE, "coco17", {}, marks=SLOW),
    ("ppt_s", "ppt_s", SIZE, "coco17", {"model": "ppt_s"}),
    pytest.param("ppt_l_d6", "ppt_b", SIZE, "coco17", {"model": "ppt_b"}, marks=SLOW),
    pytest.param("pptrepo_tokenpose_l_d6", "tokenpose_l_d6", SIZE, "coco17", {"model": "tokenpose_l_d6"}, marks=SLOW),
    ("sdpose_t", "sdpose_t", SIZE, "coco17", {}),
    ("sdpose_s_v1", "sdpose_s_v1", SIZE, "coco17", {}),
    ("sdpose_reg_d12_h64", "sdpose_reg", SIZE, "coco17", {}),
    ("sdpose_reg_d12_h384", "sdpose_reg", SIZE, "coco17", {}),
    ("sdpose_reg_d6_h64", "sdpose_reg", SIZE, "coco17", {}),
    ("distilpose_s", "distilpose_s", SIZE, "coco17", {}),
    ("distilpose_reg_stemnet", "distilpose_s", SIZE, "coco17", {}),
    ("distilpose_teacher_stemnet", "tokenpose_s_v1", SIZE, "coco17", {}),
    pytest.param("distilpose_teacher_hr48", "tokenpose_hrnet_w48", SIZE, "coco17", {}, marks=SLOW),
    pytest.param("hourglass52_1stack_256x256", "hourglass_1", (256, 256), "coco17", {}, marks=SLOW),
    pytest.param("mspn50_1stage_256x192", "mspn50_1", SIZE, "coco17", {}, marks=SLOW),
]


@pytest.mark.parametrize(("file", "name", "size", "skeleton", "more"), FAMILIES)
def test_every_family_is_told_and_gives_the_official_numbers(
    shared: Path, tmp_path: Path, file: str, name: str, size: tuple[int, int], skeleton: str, more: dict[str, Any]
) -> None:
    golden = Golden.load(shared, file)
    weights = official_weights(golden, more.get("grid", (16, 16)))
    done = converted(weights, tmp_path, model=more.get("model"))
    assert (done.model, done.input_size, done.skeleton) == (name, size, skeleton)
    assert deviation(golden, done.path) < OUTPUT_TOLERANCE
    card = describe(done.path)
    assert card["training_data"] == ["unspecified"]
    assert card["licence"] == "unspecified"
    assert "Converted from official.pth (SHA-256 " in card["notes"]
