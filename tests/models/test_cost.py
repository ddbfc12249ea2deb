"""Parameters and multiply-accumulates are the papers'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leanpose.losses.rle import RealNVP
from leanpose.models.cost import Cost, model_cost, table_row
from leanpose.models.registry import list_models, model_table
from models.test_every_model import WITH_EVERY_PART

OUT_OF_DATE = "regenerate the table: python -m leanpose.models.cost"


def test_the_stored_table_is_of_todays_configurations() -> None:
    for name, row in model_table().items():
        assert table_row(name, Cost(row.parameters, row.macs, row.attention_macs)) == row, OUT_OF_DATE


COUNTED = WITH_EVERY_PART | set(list_models(task="classification"))
"""The others differ from these by their configuration alone, whose digest the table has."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in COUNTED else pytest.mark.slow) for name in list_models()]
)
def test_the_stored_table_is_what_is_counted(name: str) -> None:
    """The other tests read the table. `python -m leanpose.models.cost` writes it anew."""
    assert model_table().get(name) == table_row(name), OUT_OF_DATE


def test_the_table_has_no_model_that_is_gone() -> None:
    assert list(model_table()) == list_models()


# model, reference file with the same layout
SAME = [
    ("sdpose_t", "sdpose_t"),
    ("sdpose_s_v1", "sdpose_s_v1"),
    ("sdpose_s_v2", "sdrepo_tokenpose_s_v2"),
    ("sdpose_b", "sdrepo_tokenpose_b"),
    ("tokenpose_t", "sdrepo_tokenpose_t"),
    ("tokenpose_s_v1", "tokenpose_s_v1"),
    ("tokenpose_s_v2", "sdrepo_tokenpose_s_v2"),
    ("tokenpose_b", "tokenpose_b"),
    ("tokenpose_l_d6", "sdrepo_tokenpose_l_d6"),
    ("ppt_s", "ppt_s"),
    ("sdpose_s_v1_ppt", "ppt_s"),
    ("tokenpose_hrnet_w48", "distilpose_teacher_hr48"),
    ("distilpose_s", "distilpose_s"),
    ("simplebaseline_r50", "simplebaseline_res50_256x192"),
    ("hrnet_w32", "hrnet_w32_256x192"),
    ("rtmpose_t", "rtmpose_t_body17_256x192"),
    ("rtmpose_s", "rtmpose_s_body17_256x192"),
    ("rtmpose_m", "rtmpose_m_body17_256x192"),
    ("rtmpose_l", "rtmpose_l_body17_256x192"),
    ("simcc_r50", "simcc_res50_256x192"),
    ("hourglass_8", "hourglass52_8stack_256x256"),
    ("mspn50_1", "mspn50_1stage_256x192"),
    ("mspn50_4", "mspn50_4stage_256x192"),
]


@pytest.mark.parametrize(("name", "file"), SAME)
def test_cost_is_what_the_official_code_counts(shared: Path, name: str, file: str) -> None:
    facts = json.loads((shared / "golden" / "models" / f"{file}.json").read_text())
    flops = facts.get("flops_one_image_cycle_num_1", facts["flops_one_image"])
    cost = model_table()[name]
    assert cost.parameters == facts["n_params_requires_grad"]
    papers = next(count for tool, count in flops.items() if "fvcore" not in tool)
    assert cost.macs == pytest.approx(papers, rel=0.01)
    assert cost.macs + cost.attention_macs == pytest.approx(flops["fvcore.FlopCountAnalysis"], rel=0.01)


# TransPose (ICCV 2021), Table 1 and 2: millions of parameters and GFLOPs as printed. Its counter, unlike this one, has the
# one transposed convolution of the R models at the size of its output, which is four times its cost.
@pytest.mark.parametrize(
    ("name", "millions", "gflops"),
    [
        ("transpose_r_a3", 5.2, 8.0),
        ("transpose_r_a4", 6.0, 8.9),
        ("transpose_h_s", 8.0, 10.2),
        ("transpose_h_a4", 17.3, 17.5),
        ("transpose_h_a6", 17.5, 21.8),
    ],
)
def test_transpose_costs_what_the_paper_prints(name: str, millions: float, gflops: float) -> None:
    cost = model_table()[name]
    assert cost.parameters / 1e6 == pytest.approx(millions, abs=0.05)
    enlarging = 3 * 256 * 256 * 16 * 32 * 24 if "_r_" in name else 0
    assert (cost.macs + cost.attention_macs + enlarging) / 1e9 == pytest.approx(gflops, rel=0.025)


# With 133 tokens the products of attention, which mmpose's counter has here, are no longer small.
@pytest.mark.parametrize("size", ["t", "s", "m", "l"])
def test_cost_of_whole_bodies_is_what_the_official_code_counts(shared: Path, size: str) -> None:
    facts = json.loads((shared / "golden" / "models" / f"rtmpose_{size}_wholebody133_256x192.json").read_text())
    cost = model_table()[f"dwpose_{size}"]
    assert cost.parameters == facts["n_params_requires_grad"]
    for flops in facts["flops_one_image"].values():
        assert cost.macs + cost.attention_macs == pytest.approx(flops, rel=0.01)


# SDPose (CVPR 2024), tables 1, 2, 6 and 8, and DistilPose (CVPR 2023): millions of parameters and GMACs as printed, to the digits printed.
@pytest.mark.parametrize(
    ("name", "millions", "gmacs"),
    [
        ("sdpose_t", 4.4, 1.8),
        ("sdpose_s_v1", 6.6, 2.4),
        ("sdpose_s_v2", 6.2, 4.7),
        ("sdpose_b", 13.2, 5.2),
        ("ppt_s", 6.6, 2.0),
        ("sdpose_s_v1_ppt", 6.6, 2.0),
        ("sdpose_reg", 5.4, 2.4),
        ("distilpose_s", 5.4, 2.38),
        ("distilpose_l", 21.3, 10.33),
    ],
)
def test_cost_is_what_the_paper_prints(name: str, millions: float, gmacs: float) -> None:
    cost = model_table()[name]
    assert cost.parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert cost.macs / 1e9 == pytest.approx(gmacs, rel=0.01)


# TFPose (2021), tables 1 to 5: GMACs as printed. The settings of tables 1 and 2 are not: 2 encoder and 4 decoder layers
# are what their figures fit.
SMALL = {"encoder_layers": 2, "decoder_layers": 4}


@pytest.mark.parametrize(
    ("name", "overrides", "gmacs"),
    [
        ("tfpose_r50", {"encoder_layers": 4}, 7.68),
        ("tfpose_r50", {}, 9.15),
        ("tfpose_r50", {"input_size": (384, 288)}, 20.4),
        ("tfpose_r18", {"decoder_layers": 1}, 6.32),
        *(
            pytest.param("tfpose_r18", {"decoder_layers": n}, 6.23 + 0.09 * n, marks=pytest.mark.slow)
            for n in range(2, 7)
        ),
        ("tfpose_r18", SMALL, 3.61),
        ("tfpose_r18", {**SMALL, "embed_dim": 128}, 2.28),
    ],
)
def test_cost_of_tfpose_is_what_the_paper_prints(name: str, overrides: dict, gmacs: float) -> None:
    cost = model_cost(name, **overrides)
    assert cost.macs / 1e9 == pytest.approx(gmacs, rel=0.01)
    assert (cost.macs + cost.attention_macs) / 1e9 == pytest.approx(gmacs, rel=0.03)


# Poseur (ECCV 2022), as its code and the papers that compare with it count: with the densities of its loss, one for the
# rough points and one for the decoder, and without the products of attention.
@pytest.mark.parametrize(
    ("name", "millions", "gmacs"), [("poseur_mobilenetv2", 11.36, 0.49), ("poseur_r50", 33.3, 4.6)]
)
def test_cost_of_poseur_is_what_is_published(name: str, millions: float, gmacs: float) -> None:
    cost, density = model_table()[name], sum(p.numel() for p in RealNVP().parameters())
    assert cost.parameters / 1e6 == pytest.approx(millions, rel=0.02)
    assert (cost.parameters + 2 * density) / 1e6 == pytest.approx(millions, rel=0.002)
    assert cost.macs / 1e9 == pytest.approx(gmacs, rel=0.02)


def test_what_deformable_attention_samples_is_counted() -> None:
    one, two = (model_cost("tfpose_r18", decoder_layers=1, encoder_layers=n) for n in (1, 2))
    # 1,008 features read 3 levels x 4 points in each of 256 channels, each mixed from 4 neighbours and weighed.
    assert two.attention_macs - one.attention_macs == 1008 * 3 * 4 * 256 * 5
    few = {"encoder_layers": 0, "decoder_layers": 2}
    with_queries, without = (model_cost("tfpose_r18", **few, query_attention=on) for on in (True, False))
    assert with_queries.attention_macs - without.attention_macs == 2 * 2 * 17 * 17 * 256


def test_overrides_change_the_cost() -> None:
    small, usual = model_cost("sdpose_t", input_size=(128, 96)), model_table()["sdpose_t"]
    assert small.parameters < usual.parameters  # the head writes a smaller map
    assert small.macs == pytest.approx(usual.macs / 4, rel=0.1)  # there are as many keypoint tokens as before
