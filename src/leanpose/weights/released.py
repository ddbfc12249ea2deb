"""Published weights: those that come with the library, and the papers' own, whose places `official.yaml` lists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import cache_folder, open_safetensors
from leanpose.models.registry import list_models
from leanpose.weights.download import Progress, download

_OFFICIAL = Path(__file__).with_name("official.yaml")
FOLDER = Path(__file__).parent / "files"


@dataclass(frozen=True)
class Release:
    """One file of released weights; its card (`leanpose.weights.describe`) says the rest.

    Attributes:
        file: its name in the package.
        licence: of the weights.
        summary: one line for the list of models.
    """

    file: str
    licence: str
    summary: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return FOLDER / self.file

    @property
    def card(self) -> dict[str, Any]:
        """What the file says of itself, read without torch."""
        with open_safetensors(self.path, "np") as file:
            return json.loads(file.metadata()["leanpose"])


RELEASED: dict[str, Release] = {
    "leanpose-body-s": Release(
        "leanpose-body-s.safetensors",
        "research use only (terms of LSP and LSP Extended); COCO annotations CC BY 4.0, COCO images under their Flickr licences; MoveNet Lightning Apache-2.0",
        "19 body points at 192x160, from MoveNet's features and 9,059 people (docs/results/body_s.md)",
    ),
    "leanpose-body-tokenpose": Release(
        "leanpose-body-tokenpose.safetensors",
        "research use only (terms of LSP and LSP Extended); COCO annotations CC BY 4.0, COCO images under their Flickr licences",
        "19 body points at 128x96, trained from nothing: attention to look at, a teacher to try (docs/results/body_s.md)",
    ),
    "leanpose-wholebody-s": Release(
        "leanpose-wholebody-s.safetensors",
        "COCO annotations CC BY 4.0, COCO images under their Flickr licences, many of them non-commercial; MediaPipe's models and RTMDet-nano Apache-2.0",
        "133 points of body, feet, face and hands at 256x192 (docs/results/wholebody_s.md)",
    ),
}
"""Released weights by the name that `load_model` takes."""


def released_path(path_or_name: Path | str) -> Path:
    """The file that is meant by a released name or by a path.

    Raises:
        LeanposeError: it is neither a released name nor looks like a file of leanpose.
    """
    if str(path_or_name) in RELEASED:
        return RELEASED[str(path_or_name)].path
    path = Path(path_or_name)
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl"):
        raise LeanposeError(
            f"{path} may hold code and is not opened: leanpose reads .safetensors only; "
            "`leanpose convert` makes one of an official checkpoint."
        )
    if path.is_dir():
        raise LeanposeError(f"{path} is a folder, not a file of weights.")
    if path.exists() or path.suffix == ".safetensors" or len(path.parts) > 1:
        return path
    if str(path) in list_models():
        raise LeanposeError(f"No weights are released for '{path}'; create_model('{path}') builds it with fresh ones.")
    raise LeanposeError(f"There are no released weights '{path}'; {did_you_mean(str(path), RELEASED)}")


@dataclass(frozen=True)
class Official:
    """A published checkpoint.

    Attributes:
        name: what `leanpose convert` calls it.
        url: where it lies.
        sha256: its checksum, or the first digits of it, which are all that is known of most.
        size: in bytes; None where nobody states it.
        model: leanpose's name for the network; None: a backbone alone.
        input_size: of the crop (height, width), in pixels; None for a backbone.
        skeleton: the name of its keypoints; None for a backbone.
        published: the authors' figures in percent, by what was measured on which data.
        training_data: what it was trained on.
        licence: its terms.
        source: the page that gives address and figure, in the commit that was read.
    """

    name: str
    url: str
    sha256: str
    size: int | None
    model: str | None
    input_size: tuple[int, int] | None
    skeleton: str | None
    published: dict[str, float]
    training_data: tuple[str, ...]
    licence: str
    source: str

    @property
    def file(self) -> str:
        """The name that the file has on its server."""
        return self.url.rpartition("/")[2]


@cache
def official_checkpoints() -> dict[str, Official]:
    """All that are known, by name."""
    content = yaml.safe_load(_OFFICIAL.read_text(encoding="utf-8"))
    return {
        name: Official(
            name=name,
            url=entry["url"],
            sha256=entry["sha256"],
            size=entry.get("size"),
            model=entry.get("model"),
            input_size=tuple(entry["input_size"]) if "input_size" in entry else None,
            skeleton=entry.get("skeleton"),
            published=entry.get("published", {}),
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


def fetch_official(entry: Official, progress: Progress = lambda _done, _total: None) -> Path:
    """Download a checkpoint to the cache folder, unless it is there.

    Raises:
        LeanposeError: see `leanpose.weights.download.download`.
    """
    path = cache_folder() / "official" / entry.file
    download(entry.url, path, sha256=entry.sha256, size=entry.size, progress=progress)
    return path
