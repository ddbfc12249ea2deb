"""Labels in parts: equal to those of one run, whoever makes which part, and however often it is interrupted."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from leanpose.cli import app
from leanpose.cluster import ray_cluster
from leanpose.cluster.label import ClusterLabels, Labeller, Parts, label_on_cluster
from leanpose.cluster.parts import LabelledPart, LabelSettings, PartLabeller, label_part
from leanpose.cluster.ray_cluster import ClusterOptions
from leanpose.data.inputs import find_inputs
from leanpose.errors import LeanposeError
from leanpose.inference.estimator import PoseEstimator
from leanpose.inference.folders import predict_images
from spots import SpotFinder, scene

SETTINGS = LabelSettings("spots", "whole-image", keypoint_threshold=0.1)


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator(SpotFinder(), "whole-image", "cpu", "torch", batch_size=2)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(7):
        Image.fromarray(scene(seed, 1).image).save(folder / f"{seed:02}.png")
    (folder / "03.png").write_bytes((folder / "03.png").read_bytes()[:100])
    return folder


def in_turn(
    estimator: PoseEstimator, parts: Parts, settings: LabelSettings, seed: int = 0, most: int = 100
) -> Generator[tuple[int, LabelledPart], None, None]:
    """A cluster that gives parts in any order, some twice, and dies after so many."""
    for number, images in random.Random(seed).sample(parts, len(parts))[:most]:
        made = number, label_part(estimator, images, settings)
        yield made
        yield made
    if most < len(parts):
        raise KeyboardInterrupt


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestParts:
    """What needs pyarrow."""

    @pytest.fixture(autouse=True)
    def _pyarrow(self) -> None:
        pytest.importorskip("pyarrow")

    @pytest.fixture
    def label(self, estimator: PoseEstimator, photos: Path) -> Callable[..., ClusterLabels]:
        def run(out: Path, labeller: Labeller | None = None, **options: object) -> ClusterLabels:
            given = labeller or partial(in_turn, estimator)
            return label_on_cluster(str(photos), out, SETTINGS, given, part_size=2, **options)  # pyright: ignore

        return run

    def test_labels_equal_those_of_one_run(
        self, label: Callable[..., ClusterLabels], estimator: PoseEstimator, photos: Path, tmp_path: Path
    ) -> None:
        told: list[tuple[int, int]] = []
        labels = label(tmp_path / "out", progress=lambda *numbers: told.append(numbers))
        images = find_inputs([str(photos)]).images
        outcome = predict_images(estimator, images, labels=tmp_path / "one.json", keypoint_threshold=0.1)
        assert labels.file is not None
        assert labels.file.read_bytes() == (tmp_path / "one.json").read_bytes()
        assert (labels.people, labels.images, labels.empty) == (outcome.people, outcome.done, outcome.empty)
        assert (labels.people, labels.images, labels.parts, labels.resumed) == (6, 6, 4, 0)
        assert [sentence for sentence in labels.skipped if "03.png" in sentence] == labels.skipped != []
        assert (told[0], told[-1]) == ((0, 7), (7, 7))

    def test_parts_are_tables(self, label: Callable[..., ClusterLabels], tmp_path: Path) -> None:
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]

        label(tmp_path / "out", coco=False)
        rows = [
            row for path in sorted((tmp_path / "out" / "parts").iterdir()) for row in pq.read_table(path).to_pylist()
        ]
        assert [row["file_name"] for row in rows] == [f"{seed:02}.png" for seed in range(7)]
        assert [row["image_id"] for row in rows] == list(range(7))
        assert [row["file_name"] for row in rows if row["error"]] == ["03.png"]
        assert len(rows[0]["people"][0]["keypoints"]) == 3 * len(SpotFinder().skeleton)
        assert not (tmp_path / "out" / "labels.json").exists()
        assert label(tmp_path / "out").file == tmp_path / "out" / "labels.json", "made of the same parts later"

    @pytest.mark.parametrize("seed", range(3))
    def test_interruptions_change_nothing(
        self, label: Callable[..., ClusterLabels], estimator: PoseEstimator, tmp_path: Path, seed: int
    ) -> None:
        label(tmp_path / "whole")
        for most in (0, 1, 2):
            with pytest.raises(KeyboardInterrupt):
                label(tmp_path / "cut", partial(in_turn, estimator, seed=seed, most=most))
        assert label(tmp_path / "cut", partial(in_turn, estimator, seed=seed)).resumed == 3
        assert files(tmp_path / "cut") == files(tmp_path / "whole")

        def unused(parts: Parts, settings: LabelSettings) -> Generator[tuple[int, LabelledPart], None, None]:
            raise AssertionError("all is done")

        assert label(tmp_path / "cut", unused).resumed == 4
        (tmp_path / "cut" / "labels.json").write_text("corrupt")
        label(tmp_path / "cut", unused)
        assert files(tmp_path / "cut") == files(tmp_path / "whole")

    def test_what_cannot_be_right_is_refused(
        self, label: Callable[..., ClusterLabels], estimator: PoseEstimator, photos: Path, tmp_path: Path
    ) -> None:
        def of_two(parts: Parts, settings: LabelSettings) -> Generator[tuple[int, LabelledPart], None, None]:
            for number, part in in_turn(estimator, parts, settings):
                yield number, LabelledPart(part.content, {**part.known, "card": str(number)})

        def lost(parts: Parts, settings: LabelSettings) -> Generator[tuple[int, LabelledPart], None, None]:
            yield from in_turn(estimator, parts[1:], settings)

        with pytest.raises(LeanposeError, match="different files of the teacher"):
            label(tmp_path / "two", of_two)
        with pytest.raises(LeanposeError, match="without 1 of 4 parts"):
            label(tmp_path / "lost", lost)
        (photos / "99.png").write_bytes(b"")
        with pytest.raises(LeanposeError, match=r"begun otherwise \(.*images 7, now 8"):
            label(tmp_path / "lost")
        for photo in photos.iterdir():
            photo.write_bytes(b"")
        with pytest.raises(LeanposeError, match="None of the 8 images"):
            label(tmp_path / "none")
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "thesis.txt").touch()
        with pytest.raises(LeanposeError, match="no earlier labels"):
            label(tmp_path / "own")

    def test_a_worker_says_in_one_sentence_what_is_wrong(self, photos: Path) -> None:
        import pyarrow as pa  # pyright: ignore[reportMissingImports]

        table = pa.table({"part": [3], "images": [json.dumps([["a.png", 1, str(photos / "gone.png"), None, 5]])]})
        for settings, version, sentence in (
            (SETTINGS, "0.0", "install the same"),
            (LabelSettings("no-such-teacher"), ray_cluster.__version__, "no-such-teacher"),
        ):
            (row,) = PartLabeller(settings, version)(table).to_pylist()
            assert (row["part"], row["content"]) == (3, b"")
            assert sentence in row["error"]
            assert "\n" not in row["error"]


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    with pytest.raises(LeanposeError, match=r"pip install 'leanpose\[ray\]'"):
        ray_cluster.require_ray(ClusterOptions())


@pytest.mark.parametrize(("address", "sentence"), [("127.0.0.1:1", "can be reached"), ("somewhere", "host:port")])
def test_an_address_where_nothing_is(monkeypatch: pytest.MonkeyPatch, address: str, sentence: str) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: name)
    with pytest.raises(LeanposeError, match=sentence):
        ray_cluster.require_ray(ClusterOptions(address))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--workers", "2"], "--workers needs --ray"),
        (["--no-coco"], "--no-coco needs --ray"),
        (["--ray"], "--out is a folder, not labels.json"),
        (["--ray-address", "nowhere"], "host:port"),
    ],
)
def test_options_of_the_command(monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: name)
    with pytest.raises(LeanposeError, match=sentence):
        app(["data", "label", "photos", *options], standalone_mode=False)


def test_the_command_says_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    labels = ClusterLabels(
        tmp_path, tmp_path / "labels.json", 5, 9, 1, ["The image a.jpg is truncated."], {"It was turned.": 2}, {"videos": 3}, 4, 2
    )  # fmt: skip
    given: list[object] = []

    def pretend(*arguments: object, **options: object) -> ClusterLabels:
        given.extend([*arguments[:3], options["part_size"], options["coco"]])
        return labels

    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: name)
    monkeypatch.setattr("leanpose.cluster.label.label_on_cluster", pretend)
    line = f"data label s3://a/b --ray --teacher t --keypoint-threshold 0.4 --part-size 8 --no-coco --out {tmp_path / 'out'}"
    assert app(line.split(), standalone_mode=False) == 3
    assert given == ["s3://a/b", tmp_path / "out", LabelSettings("t", "auto", 0.4, None), 8, False]
    printed = capsys.readouterr().out
    assert "9 people in 5 images (1 without people, 1 that could not be read; 2 of 4 parts were done before)" in printed
    for line in ("Left out: 3 videos", "Noticed:  It was turned. (2 images)", "The image a.jpg is truncated."):
        assert line in printed
