"""The page on student–teacher compatibility matches the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from leanpose.distillation.pairs import STUDENTS, TEACHERS, page, refusal

PAGE = Path(__file__).parents[2] / "docs" / "who-can-teach-whom.md"


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == page(), (
        "write it anew: python -m leanpose.distillation.pairs > docs/who-can-teach-whom.md"
    )


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("student", STUDENTS)
def test_auto_teaches_everybody(student: str, teacher: str) -> None:
    assert refusal("auto", student, teacher, size=(64, 32), skeleton="body19") == ""


def test_a_refusal_says_what_would_fit() -> None:
    words = refusal("dwpose", "SimCC", "ONNX SimCC")
    assert "distillation.feature_weight=0" in words
    assert "rtmpose_t" not in words, "it holds for all models of the kind"
    assert "must predict coordinates" in refusal("distilpose", "SimCC", "token heatmaps")
    assert refusal("distilpose", "token coordinates", "token heatmaps") == ""
