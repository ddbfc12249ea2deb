"""Names with line breaks and control characters: one line in summaries, escapes in reports."""

from __future__ import annotations

from pathlib import Path

from data_builders import edit, write_coco
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data_checks import check_data
from leanpose.report.page import escape
from leanpose.skeleton import COCO17

NAME = "a\nb\x1b[31m\u202e"


def test_summaries(tmp_path: Path) -> None:
    path = write_coco(tmp_path, 3)

    def name(content: dict) -> None:
        content["categories"].append({"id": 2, "name": NAME})
        content["annotations"][0] |= {"category_id": 2}

    edit(path, name)
    path = path.rename(tmp_path / f"{NAME}.json")
    data = read_people(DatasetConfig(format="auto", annotations=path), COCO17, training=True)
    (checked,) = check_data([path]).sets
    for sentences in (data.summaries[0].sentences(), checked.summary_sentences()):
        assert all(sentence.isprintable() for sentence in sentences)
        assert r"1 of another category (a\nb\x1b[31m\u202e)" in sentences[0]


def test_reports() -> None:
    assert escape(f"<b>{NAME}") == "&lt;b&gt;a\nb\\x1b[31m\\u202e"
