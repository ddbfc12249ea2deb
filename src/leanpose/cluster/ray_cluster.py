"""A cluster of Ray (2.52 or later, which knows tokens): one that is there, or a new one on this machine that nothing
else can reach.

Ray runs whatever its ports are told to. A cluster that is begun here listens on 127.0.0.1 alone and asks for a token
that only its processes know; it sends no statistics and has no dashboard. Its logs go with it, unless the command is
killed.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from leanpose.cluster.images import StoredImage
from leanpose.cluster.parts import LabelledPart, LabelSettings, PartLabeller
from leanpose.errors import LeanposeError
from leanpose.version import __version__

LOG = logging.getLogger(__name__)
RETRIES = 5
"""So often a part is begun again whose worker has died; an image that kills whoever opens it ends the run then."""

_CONNECT_SECONDS = 5.0
_RAYLET_PID = "RAY_RAYLET_PID"  # of the environment of workers
_STORE_BYTES = 100_000_000  # of the object store, beside the names of the images: results are fetched as they come
_LOCAL_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux, too, it makes Ray listen on 127.0.0.1
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "false",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


@dataclass(frozen=True)
class ClusterOptions:
    """Where the work is done, and by how many.

    Attributes:
        address: of a cluster (`host:port`, or `auto` for that of this machine); None begins one here.
        workers: that label side by side, each with a detector and a teacher of its own.
        cpus: cores of each worker.
        gpus: of each worker; 0.25 lets four share one.
    """

    address: str | None = None
    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0


def require_ray(options: ClusterOptions) -> None:
    """Check that the packages are there, and that something listens at the address; Ray itself tries for minutes.

    Raises:
        LeanposeError: it is not so.
    """
    if any(find_spec(package) is None for package in ("ray", "pyarrow")):
        raise LeanposeError("Labelling on a cluster needs Ray: pip install 'leanpose[ray]'.")
    if options.address not in (None, "auto"):
        _require_answer(options.address)


def label_with_ray(
    parts: Sequence[tuple[int, Sequence[StoredImage]]], settings: LabelSettings, options: ClusterOptions
) -> Generator[tuple[int, LabelledPart], None, None]:
    """Label parts by Ray Data, in any order; each comes once, however often its workers die.

    Raises:
        LeanposeError: the cluster cannot be reached or is lost, a worker failed, or workers died too often over one
            part.
    """
    rows = [{"part": number, "images": json.dumps([image.row for image in images])} for number, images in parts]
    names = sum(len(row["images"]) for row in rows)
    with _connected(options, _STORE_BYTES + 2 * names):
        from ray.data import ActorPoolStrategy, DataContext, from_items  # pyright: ignore[reportMissingImports]
        from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

        context = DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Ray has no other name for `max_task_retries` yet
            # A block a part: a worker that dies takes no other with it.
            labelled = from_items(rows, override_num_blocks=len(rows)).map_batches(
                RayWorker, fn_constructor_args=(settings, __version__), batch_size=1, batch_format="pyarrow",
                zero_copy_batch=True, compute=ActorPoolStrategy(size=min(options.workers, len(rows))),
                num_cpus=options.cpus, num_gpus=options.gpus, max_restarts=-1, max_task_retries=RETRIES,
            )  # fmt: skip
        try:
            for table in labelled.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in table.to_pylist():
                    if row["error"]:
                        raise LeanposeError(row["error"])
                    yield row["part"], LabelledPart(row["content"], json.loads(row["known"]))
        except RayError as error:
            reason = str(error).strip().splitlines()[0]
            raise LeanposeError(
                f"The cluster gave up ({type(error).__name__}: {reason}); the same command resumes it."
            ) from error


class RayWorker(PartLabeller):
    """A `PartLabeller` that ends with Ray: one in the middle of a part does not notice by itself that Ray was
    killed."""

    def __init__(self, settings: LabelSettings, version: str) -> None:
        super().__init__(settings, version)
        threading.Thread(target=_end_with, args=(int(os.environ[_RAYLET_PID]),), daemon=True).start()


def _end_with(raylet: int) -> None:
    """End this process as soon as the one that has started it has ended."""
    while os.getppid() == raylet:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def _connected(options: ClusterOptions, store_bytes: int) -> Iterator[None]:
    """Be connected to a cluster meanwhile."""
    if options.address is None:
        os.environ.update(_LOCAL_ENVIRONMENT)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # one a process: Ray remembers it
    import ray  # pyright: ignore[reportMissingImports]  # of an extra, and reads the environment when it is loaded

    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ExitStack() as end:
        if options.address is None:
            # Not below the output: names of Ray's sockets, which lie in it, are short.
            folder = tempfile.mkdtemp(prefix="leanpose-ray-")
            end.callback(shutil.rmtree, folder, ignore_errors=True)
            given |= {"num_cpus": max(1, round(options.workers * options.cpus)), "include_dashboard": False}
            given |= {"object_store_memory": store_bytes, "_temp_dir": folder}
        try:
            end.callback(ray.shutdown)
            ray.init(address=options.address or "local", **given)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            where = "here cannot be begun" if options.address is None else f"at {options.address} cannot be joined"
            raise LeanposeError(f"The Ray cluster {where}: {_first_line(error)}") from error
        if options.address is None and not ray.util.get_node_ip_address().startswith("127."):
            # Ray was loaded before this, and has read its environment.
            LOG.warning("Ray listens to other machines, too; a token keeps them out.")
        yield


def _require_answer(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise LeanposeError(f"--ray-address is host:port, or auto, not '{address}'.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise LeanposeError(f"No Ray cluster can be reached at {address}: {error}.") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
