"""Packs cut into shards: what is streamed is what was packed, each shard comes once, and what is wrong is said."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from data_builders import pack, person, read_coco_folder, write_coco
from leanpose.data import shards
from leanpose.data.annotations import PoseAnnotation
from leanpose.data.augmentation import Augmentation
from leanpose.data.dataset import TopDownDataset
from leanpose.data.image_files import BrokenImageError
from leanpose.data.mixing import Mixture
from leanpose.data.pack_file import PackConfig, PackFile
from leanpose.data.pack_writer import ensure_pack
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data.shard_writer import write_shards
from leanpose.data.shards import SPREAD, ShardedBytes, spread_order
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17
from leanpose.training.batches import epoch_batches
from leanpose.training.recipe import parse_recipe
from tiny import tiny_recipe

CONFIG = PackConfig((64, 48))
SMALL = 0.03  # megabytes: one or two crops a shard


@dataclass
class Streamed:
    """People in a pack, and the same in shards."""

    people: list[PoseAnnotation]
    pack: PackFile
    cache: PackFile
    bucket: str

    @property
    def data(self) -> ShardedBytes:
        assert isinstance(self.cache.data, ShardedBytes)
        return self.cache.data

    @property
    def shards(self) -> int:
        return len(set(self.data.shard_of(self.cache.index["offset"]).tolist()))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEANPOSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "_PAUSE", 0.0)
    return tmp_path / "cache" / "shards"


@pytest.fixture(params=["folder", "memory"])
def streamed(request: pytest.FixtureRequest, tmp_path: Path) -> Streamed:
    write_coco(tmp_path, 6, [person(number, 1 + number % 6, x=10 + 3 * number) for number in range(1, 19)])
    people = read_coco_folder(tmp_path)
    whole = pack(people, CONFIG, tmp_path / "people.pack")
    bucket = str(tmp_path / "bucket") if request.param == "folder" else f"memory://{tmp_path.name}"
    return Streamed(people, whole, write_shards(whole, bucket, tmp_path / "people.shards", megabytes=SMALL), bucket)


def test_what_is_streamed_is_what_was_packed_and_each_shard_comes_once(streamed: Streamed, own_cache: Path) -> None:
    assert streamed.shards > 4
    for _ in range(2):
        for row in streamed.pack.rows.tolist():
            for one, other in zip(streamed.cache.read(row), streamed.pack.read(row), strict=True):
                np.testing.assert_array_equal(one, other)
    assert streamed.data.fetched == len(list(own_cache.glob("*/*.shard"))) == streamed.shards
    again = PackFile(streamed.cache.path)  # another process, such as a loader's
    np.testing.assert_array_equal(again.read(0)[0], streamed.pack.read(0)[0])
    assert isinstance(again.data, ShardedBytes)
    assert again.data.fetched == 0
    assert (again.checksum, again.image_names) == (streamed.pack.checksum, streamed.pack.image_names)


def test_an_index_is_a_data_set_like_its_pack(streamed: Streamed, tmp_path: Path) -> None:
    sets = [
        read_people(DatasetConfig(format=form, annotations=Path(name)), COCO17, tmp_path, training=False)
        for form, name in (("pack", "people.pack"), ("auto", "people.shards"))
    ]
    for one, other in zip(*(each.people for each in sets), strict=True):
        np.testing.assert_array_equal(one.keypoints, other.keypoints)
    images = [TopDownDataset(each.people, COCO17, (64, 48)) for each in sets]
    np.testing.assert_array_equal(images[0].read(3).image, images[1].read(3).image)
    assert pickle.loads(pickle.dumps(streamed.cache)).checksum == streamed.cache.checksum


def test_the_cache_keeps_to_its_limit(streamed: Streamed, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SPREAD", 1)
    largest = int(np.diff(streamed.data._begins).max())
    monkeypatch.setenv(shards.LIMIT, str(2.5 * largest / 1e9))
    for row in streamed.pack.rows.tolist():
        np.testing.assert_array_equal(streamed.cache.read(row)[0], streamed.pack.read(row)[0])
        assert sum(path.stat().st_size for path in own_cache.glob("*/*.shard")) <= 2.5 * largest
    assert streamed.data.fetched == streamed.shards, "in the order of the shards each comes once"
    for value, says in (("nothing", "number of gigabytes"), (str(1.5 * largest / 1e9), "twice 1 shards")):
        monkeypatch.setenv(shards.LIMIT, value)
        with pytest.raises(LeanposeError, match=says):
            PackFile(streamed.cache.path).read(int(streamed.pack.rows[0]))


def test_a_run_that_is_resumed_takes_the_same_batches(streamed: Streamed, tmp_path: Path) -> None:
    """In the middle of an epoch, with an empty cache, and with two loader processes that share it; another set is mixed in."""
    mixture = Mixture(("one", "other"), (9, 9), (1.0, 2.0), seed=5)

    def batches(start: int) -> list[Any]:
        os.environ["LEANPOSE_CACHE"] = str(tmp_path / f"cache{start}")
        dataset = TopDownDataset(
            streamed.people, COCO17, (64, 48), augmentation=Augmentation(), cache=PackFile(streamed.cache.path), seed=5,
            mixture=mixture,
        )  # fmt: skip
        dataset.set_epoch(1)
        rows = streamed.cache.find([dataset.person(index) for index in range(18)])
        np.testing.assert_array_equal(dataset.shards(), streamed.cache.shards(rows))
        data = {**tiny_recipe(tmp_path)["data"], "num_workers": 2 if start else 0}
        recipe = parse_recipe({**tiny_recipe(tmp_path), "data": data, "seed": 5}, "tiny")
        fabric = Fabric(accelerator="cpu", devices=1)
        return list(epoch_batches(dataset, recipe, fabric, epoch=1, start=start))

    whole, rest = batches(0), batches(2)
    assert (len(whole), len(rest)) == (4, 2)
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.images, other.images)


def test_few_shards_are_needed_at_a_time() -> None:
    of_person = np.repeat(np.arange(100), 50)
    of_person[::10] = -1  # people who are not streamed come in between
    order = spread_order(of_person, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(order), np.arange(5000))
    turns = of_person[order]
    first, last = ({shard: int(np.flatnonzero(turns == shard)[which]) for shard in range(100)} for which in (0, -1))
    needed = [sum(first[shard] <= place <= last[shard] for shard in range(100)) for place in range(0, 5000, 50)]
    assert max(needed) <= SPREAD + 1
    assert np.median(needed) > SPREAD - 3, "and not one after the other"
    assert not np.array_equal(order, spread_order(of_person, np.random.default_rng(1)))
    assert 100 < np.count_nonzero(turns[:2500] < 0) < 400


def _bytes_of(streamed: Streamed, change: Callable[[bytes], bytes]) -> None:
    """Change the first shard in the bucket."""
    files, root = shards.open_storage(streamed.bucket, streamed.cache.path.parent)
    path = sorted(files.glob(f"{root}/*.shard"))[0]
    files.pipe_file(path, change(files.cat_file(path)))


@pytest.mark.parametrize("cut_off", [False, True])
def test_damage_is_fetched_again_and_else_named(
    cut_off: bool, streamed: Streamed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = int(streamed.pack.rows[0])
    at = int(streamed.pack.index["length"][first]) - 1

    def damage(content: bytes) -> bytes:
        return content[:at] if cut_off else content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    answers = [damage, bytes]

    def retry(run: Callable[[], Any], what: str) -> Any:
        return answers.pop(0)(run()) if what.startswith("The shard") and answers else run()

    with monkeypatch.context() as patched:
        patched.setattr(shards, "retry", retry)
        np.testing.assert_array_equal(streamed.cache.read(first)[0], streamed.pack.read(first)[0])
    assert not caplog.messages
    os.environ["LEANPOSE_CACHE"] += "2"
    _bytes_of(streamed, damage)
    cache = PackFile(streamed.cache.path)
    with pytest.raises(BrokenImageError, match="is corrupt"):
        cache.read(first)
    assert "is corrupt in" in caplog.text
    last = int(streamed.pack.rows[-1])
    np.testing.assert_array_equal(cache.read(last)[0], streamed.pack.read(last)[0])


def test_what_is_missing_or_wrong_is_said(streamed: Streamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, row = streamed.cache.path, int(streamed.pack.rows[0])
    with pytest.raises(LeanposeError, match="is already sharded"):
        write_shards(streamed.cache, streamed.bucket, tmp_path / "other.shards")
    with pytest.raises(LeanposeError, match="would replace the pack"):
        write_shards(streamed.pack, streamed.bucket, streamed.pack.path)
    for url, says in (
        ("ftp://a/b", "not a location for shards"),
        ("file://a::memory://b", "not a location"),
        ("gs://b", "gcsfs"),
    ):
        if url == "gs://b" and find_spec("gcsfs"):
            continue
        with pytest.raises(LeanposeError, match=says):
            write_shards(streamed.pack, url, tmp_path / "other.shards")
    content = index.read_bytes()
    for damaged in (content[:-9], content[:200] + bytes([content[200] ^ 1]) + content[201:]):
        index.write_bytes(damaged)
        with pytest.raises(LeanposeError, match="corrupt or truncated; copy it again"):
            PackFile(index)
    index.write_bytes(content)
    files, root = shards.open_storage(streamed.bucket, tmp_path)
    files.rm(sorted(files.glob(f"{root}/*.shard"))[0])
    with pytest.raises(LeanposeError, match="is missing"):
        streamed.cache.read(row)

    def unreachable(*_: Any) -> bytes:
        raise ConnectionError("no route")

    monkeypatch.setattr(type(files), "cat_file", unreachable)
    with pytest.raises(LeanposeError, match="cannot be reached: ConnectionError: no route"):
        streamed.cache.read(row)


def test_shards_that_do_not_fit_are_not_packed_over(streamed: Streamed, tmp_path: Path) -> None:
    """In a recipe's `data.cache`."""
    people = read_people(
        DatasetConfig(format="coco", annotations=Path("annotations.json"), images=Path("images")),
        COCO17, tmp_path, training=True,
    )  # fmt: skip
    found = ensure_pack([people], COCO17, CONFIG, streamed.cache.path)
    assert found is not None
    assert len(found) == 18
    before = streamed.cache.path.read_bytes()
    with pytest.raises(LeanposeError, match="do not fit: it is for crops of 64×48 pixels, not of 128×96"):
        ensure_pack([people], COCO17, PackConfig((128, 96)), streamed.cache.path)
    assert streamed.cache.path.read_bytes() == before


def test_the_command_cuts_and_goes_on(streamed: Streamed, tmp_path: Path, command: Callable[..., Any]) -> None:
    files, root = shards.open_storage(streamed.bucket, tmp_path)
    names = sorted(files.glob(f"{root}/*.shard"))
    files.pipe_file(names[0], b"of a run that was killed")
    written: list[str] = []
    pipe = type(files).pipe_file

    def counted(self: Any, path: str, value: bytes, **options: Any) -> Any:
        written.append(path)
        return pipe(self, path, value, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(files), "pipe_file", counted)
        result = command("data", "shard", streamed.pack.path, streamed.bucket, "--megabytes", SMALL)
    assert result.returncode == 0, result.stderr
    assert f"18 people in {streamed.shards} shards in {streamed.bucket}" in result.stdout.replace("\n", " ")
    assert [Path(path).name for path in written] == [Path(names[0]).name], "the others are there"
    assert PackFile(streamed.cache.path).checksum == streamed.pack.checksum
