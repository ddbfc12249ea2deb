"""Folders and repositories of the Hugging Face hub with one model each: `model.safetensors`, and a `README.md`
generated from its card.

`PoseModel.save_pretrained`, `push_to_hub` and `from_pretrained` use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin

from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, describe_os_error
from leanpose.models.base import PoseModel, Provenance
from leanpose.models.registry import list_models
from leanpose.weights.hub import FILE, HubAddress, download, is_hub_address, one_sentence
from leanpose.weights.model_card import model_card
from leanpose.weights.storage import describe, load_model, save_model, weights_digest


class _Upload(ModelHubMixin, library_name="leanpose", repo_url="https://github.com/leanpose/leanpose"):
    """What the mixin of huggingface_hub uploads: a new folder, which `write` fills.

    The models themselves are no `ModelHubMixin`: it would write their configuration to a second file, `config.json`,
    and on loading build what that file says. Here the configuration is in the card, under its checksum. The mixin
    stores what its constructor is given unless JSON cannot hold it, as it cannot hold a function.
    """

    def __init__(self, write: Callable[[Path], None]) -> None:
        self.write = write

    def _save_pretrained(self, save_directory: Path) -> None:
        self.write(save_directory)


def save_pretrained(
    model: PoseModel,
    folder: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    address: str | None = None,
    **stated: Any,
) -> None:
    """Write `model.safetensors` and `README.md` to a folder; see `PoseModel.save_pretrained`.

    Args:
        address: of the repository that they are for.
        stated: `training_data`, `licence`, `metrics` and `notes`.
    """
    provenance = _provenance(model, **stated)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise describe_os_error(folder, error) from error
    save_model(
        model, folder / FILE, dtype=dtype, training_data=list(provenance.training_data), licence=provenance.licence,
        metrics=dict(provenance.metrics), notes=provenance.notes,
    )  # fmt: skip
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(model_card(describe(folder / FILE), address), encoding="utf-8")


def push_to_hub(
    model: PoseModel,
    repository: str,
    *,
    commit_message: str,
    private: bool | None,
    token: str | None,
    branch: str | None,
    dtype: torch.dtype = torch.float32,
    **stated: Any,
) -> str:
    """Upload what `save_pretrained` writes in one commit; see `PoseModel.push_to_hub`."""
    address = HubAddress.parse(repository)
    if address.revision is not None:
        raise LeanposeError(
            f"'{repository}' names a revision, which only loading takes; give branch='{address.revision}'."
        )
    _provenance(model, **stated)  # before a repository is made
    upload = _Upload(lambda folder: save_pretrained(model, folder, dtype=dtype, address=str(address), **stated))
    with one_sentence(HubAddress(address.repository, branch)):
        return upload.push_to_hub(
            address.repository, commit_message=commit_message, private=private, token=token, branch=branch
        )


def load_pretrained(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: Path | str | None = None,
) -> PoseModel:
    """The model of a repository or of a folder; see `PoseModel.from_pretrained`."""
    folder = Path(name_or_folder)
    if not is_hub_address(name_or_folder) and folder.is_dir():
        if not (folder / FILE).exists():
            raise LeanposeError(f"The folder {folder} contains no {FILE}.")
        return load_model(folder / FILE)
    address = HubAddress.parse(str(name_or_folder))
    if revision is not None:
        if address.revision not in (None, revision):
            raise LeanposeError(f"{address} names another revision than revision='{revision}'.")
        address = HubAddress(address.repository, revision)
    return load_model(download(address, token=token, cache_dir=cache_dir))


def _provenance(
    model: PoseModel,
    *,
    training_data: Sequence[str] | None = None,
    licence: str | None = None,
    metrics: Mapping[str, float] | None = None,
    notes: str | None = None,
) -> Provenance:
    """The provenance for the card: the given values, completed by those of the file if the weights are unchanged.

    Raises:
        LeanposeError: a value is missing, or the model could not be loaded again.
    """
    if model.name not in list_models():
        raise LeanposeError(f"'{model.name}' is not a registered model, so it could not be built from a file.")
    known, digest = model.provenance, weights_digest(model)
    stated = {"training_data": training_data, "licence": licence, "metrics": metrics}
    if missing := [f"{name}=" for name, value in stated.items() if value is None]:
        if known is None:
            raise LeanposeError(
                f"The origin of the weights of this '{model.name}' is unknown; give {', '.join(missing)} (empty if none)."
            )
        if known.sha256 != digest:
            raise LeanposeError(
                f"The weights of this '{model.name}' have changed since they were loaded, so the file's card no longer "
                f"applies; give {', '.join(missing)} (empty if none)."
            )
    same = known if known is not None and known.sha256 == digest else Provenance((), "", {}, "", digest)
    licence = same.licence if licence is None else licence
    if not licence.strip():
        raise LeanposeError("Published weights need a licence: licence= is empty.")
    return Provenance(
        same.training_data if training_data is None else tuple(training_data),
        licence,
        same.metrics if metrics is None else metrics,
        same.notes if notes is None else notes,
        digest,
    )
