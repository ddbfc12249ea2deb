"""On a real cluster of two workers on this machine; slow, and needs the extra `ray`."""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from leanpose.cluster import ClusterOptions, label_on_cluster, ray_cluster
from leanpose.cluster.parts import LabelSettings, PartLabeller
from leanpose.cluster.ray_cluster import label_with_ray
from leanpose.errors import LeanposeError
from leanpose.version import __version__
from process_tree import descendants, title

# Not imported here: Ray reads its environment, which leanpose sets, when it is loaded.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")]
PHOTOS = Path(__file__).parents[2] / "src/leanpose/demo/files/free_people/images"
SETTINGS = LabelSettings("leanpose-body-t")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for photo in sorted(PHOTOS.glob("*.jpg"))[:8]:
        shutil.copy(photo, tmp_path / "photos")
    return tmp_path / "photos"


def test_a_worker_that_is_killed_changes_nothing(photos: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if 0 < done < total and not killed:
            import ray  # pyright: ignore[reportMissingImports]

            assert ray.util.get_node_ip_address() == "127.0.0.1"
            assert os.environ["RAY_AUTH_MODE"] == "token"
            killed.append(next(pid for pid in descendants(os.getpid()) if title(pid).startswith("ray::MapWorker")))
            os.kill(killed[0], signal.SIGKILL)

    labeller = partial(label_with_ray, options=ClusterOptions(workers=2))
    label_on_cluster(str(photos), tmp_path / "out", SETTINGS, labeller, part_size=2, progress=kill)
    assert killed
    worker = PartLabeller(SETTINGS, __version__)
    label_on_cluster(
        str(photos),
        tmp_path / "alone",
        SETTINGS,
        lambda parts, _: ((n, _label(worker, p)) for n, p in parts),
        part_size=2,
    )
    for name in ("labels.json", "manifest.jsonl", "parts/part-000003.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def _label(worker: PartLabeller, images: Any) -> Any:
    return worker.label([image.row for image in images])


def test_an_image_that_kills_every_worker_ends_the_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying:  # local, so that its code travels to the workers
        def __init__(self, settings: Any, version: str) -> None:
            pass

        def __call__(self, table: Any) -> Any:
            os._exit(1)

    monkeypatch.setattr(ray_cluster, "RayWorker", Dying)
    monkeypatch.setattr(ray_cluster, "RETRIES", 1)
    labeller = partial(label_with_ray, options=ClusterOptions(workers=1))
    with pytest.raises(LeanposeError, match=r"gave up.*goes on where it was"):
        label_on_cluster(str(photos), tmp_path / "out", SETTINGS, labeller, part_size=8)
