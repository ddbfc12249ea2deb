"""The papers' own published checkpoints, whose places `official.yaml` lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path

import yaml

from leanpose.data.urls import download_file
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import cache_folder


@dataclass(frozen=True)
class Official:
    """A published checkpoint.

    Attributes:
        name: what `leanpose convert` calls it.
        url: where it lies.
        sha256: its checksum, or the first digits of it, which are all that is known of most.
        model: leanpose's name for the network; None: a backbone alone.
        input_size: of the crop (height, width), in pixels; None for a backbone.
        skeleton: the name of its keypoints; None for a backbone.
        published: the authors' figures in percent, by what was evaluated on which data.
        training_data: what it was trained on.
        licence: its terms.
        source: the page that gives address and figure, in the commit that was read.
    """

    name: str
    url: str
    sha256: str
    training_data: tuple[str, ...]
    licence: str
    source: str
    model: str | None = None
    input_size: tuple[int, int] | None = None
    skeleton: str | None = None
    published: dict[str, float] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name that the file has on its server."""
        return self.url.rpartition("/")[2]


@cache
def official_checkpoints() -> dict[str, Official]:
    """All that are known, by name."""
    content = yaml.safe_load(Path(__file__).with_name("official.yaml").read_text(encoding="utf-8"))
    return {
        name: Official(
            name=name,
            **{key: entry[key] for key in ("url", "sha256", "model", "skeleton", "published") if key in entry},
            input_size=tuple(entry["input_size"]) if "input_size" in entry else None,
            training_data=tuple(content["data"][entry["data"]]),
            licence=content["terms"][entry["terms"]],
            source="https://github.com/{repository}/blob/{commit}/{path}".format(**content["sources"][entry["source"]]),
        )
        for name, entry in content["files"].items()
    }


def official_checkpoint(name: str) -> Official:
    """The one of this name.

    Raises:
        LeanposeError: there is none.
    """
    known = official_checkpoints()
    if name not in known:
        near = did_you_mean(name, known)
        listed = near if near.startswith("did") else "`leanpose convert --list` shows those that are known."
        raise LeanposeError(f"'{name}' is neither a file nor an official checkpoint; {listed}")
    return known[name]


def official_with(sha256: str) -> Official | None:
    """The official checkpoint whose checksum this is; None: none that is known."""
    return next((entry for entry in official_checkpoints().values() if sha256.startswith(entry.sha256)), None)


def fetch_official(entry: Official) -> Path:
    """Download a checkpoint to the cache folder, unless it is there.

    Raises:
        LeanposeError: the server does not give it, the transfer breaks off, or what came is another file.
    """
    path = cache_folder() / "official" / entry.file
    if path.exists() and sha256(path.read_bytes()).hexdigest().startswith(entry.sha256):
        return path
    try:
        download_file(entry.url, path, entry.sha256)
    except (OSError, HTTPException, LeanposeError) as error:
        raise LeanposeError(
            f"Cannot download {entry.url} ({error}); fetch it elsewhere and convert the file."
        ) from error
    return path
