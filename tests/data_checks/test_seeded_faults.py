"""Twenty generated sets of different things: each seeded fault is found, and nothing is found in the clean ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faulty_sets import FAULTS, DrawnSet, Fault, another_annotator, draw_set, write_pool, write_set
from leanpose.data_checks import CheckReport, check_data

SETS, EVERY = 20, 10


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[DrawnSet]:
    images = write_pool(tmp_path_factory.mktemp("pool") / "images")
    return [draw_set(seed, images) for seed in range(SETS)]


def checked(drawn: DrawnSet, fault: Fault | None, folder: Path) -> CheckReport:
    return check_data(write_set(drawn, folder, fault), images=drawn.images)


@pytest.mark.parametrize("number", range(SETS))
def test_clean_sets_have_no_findings(number: int, sets: list[DrawnSet], tmp_path: Path) -> None:
    findings = checked(sets[number], None, tmp_path).findings
    assert [(finding.kind, finding.text) for finding in findings] == []


def require_found(fault: Fault, drawn: DrawnSet, folder: Path) -> None:
    found = {finding.kind for finding in checked(drawn, fault, folder).findings}
    assert fault.kind in found, f"{fault.kind} is not among {found} of a set of {drawn.names}"


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[f"{i} {fault.kind}" for i, fault in enumerate(FAULTS)])
def test_seeded_faults_are_found(number: int, sets: list[DrawnSet], tmp_path: Path) -> None:
    fitting = [drawn for drawn in sets if FAULTS[number].fits(drawn)]
    for drawn in fitting[number % EVERY :: EVERY]:
        require_found(FAULTS[number], drawn, tmp_path)


@pytest.mark.slow
def test_every_seeded_fault_is_found_in_every_set(sets: list[DrawnSet], tmp_path: Path) -> None:
    for fault in FAULTS:
        for drawn in filter(fault.fits, sets):
            require_found(fault, drawn, tmp_path)


def test_sigmas_are_estimated_from_two_annotators(sets: list[DrawnSet], tmp_path: Path) -> None:
    report = checked(sets[0], Fault("", another_annotator(0.05, 0.1)), tmp_path)
    spreads = report.sets[1].spreads
    assert spreads["left_hip"].repeats > 30
    assert spreads["left_hip"].against == tmp_path / "things.json"
    others = [spread.sigma for name, spread in spreads.items() if name != "nose"]
    assert np.mean(others) == pytest.approx(0.05, rel=0.1)
    assert spreads["nose"].sigma == pytest.approx(0.1, rel=0.3)
    assert "things.json" not in report.sets[0].spreads
    assert "sigma (of so many people labelled twice): nose 0." in report.sets[1].summary_sentences()[-1]
