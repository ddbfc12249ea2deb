"""`leanpose weights`: every released file with its training data and terms."""

from __future__ import annotations

from typer.testing import CliRunner

from leanpose.cli import app
from leanpose.weights import RELEASED


def test_every_file_says_what_it_was_trained_on_and_its_terms() -> None:
    result = CliRunner().invoke(app, ["weights"])
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    for name, release in RELEASED.items():
        assert name in text
        for data in release.card["training_data"]:
            assert " ".join(data.split()[:3]) in text
        assert release.licence[:40] in text


def test_commercial_leaves_out_what_has_seen_research_data() -> None:
    result = CliRunner().invoke(app, ["weights", "--commercial"])
    assert result.exit_code == 0, result.output
    for name, release in RELEASED.items():
        assert (name in result.output) == release.commercial
    if not any(release.commercial for release in RELEASED.values()):
        assert "None of the" in result.output
