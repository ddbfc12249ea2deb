"""Files of strangers: each of these readers answers damage with a value that can be right, or with one sentence."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fuzz.readers import SECONDS, TARGETS, attempt


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.few])
def test_damaged_files_cost_a_sentence(name: str, tmp_path: Path):
    target = TARGETS[name]
    path = target.seed(tmp_path)
    valid = path.read_bytes()
    target.read(path)  # so that the sentences are about the damage
    sentences, longest = 0, 0.0
    for number in range(target.few):
        began = time.perf_counter()
        try:
            sentences += attempt(target, valid, path, f"{name} {number}") is not None
        except Exception as error:
            raise AssertionError(f"repeat it by python tests/fuzz/campaign.py '{name}' {number}") from error
        longest = max(longest, time.perf_counter() - began)
    assert longest < SECONDS
    assert sentences, "some of the damage is found"
