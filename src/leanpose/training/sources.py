"""Provenance of a run's weights: training data and licences of their initial weights and of their teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leanpose.backends import FILE_SUFFIXES, open_exported
from leanpose.errors import LeanposeError
from leanpose.models.backbones.base import describe_backbone
from leanpose.schema import TeacherSection
from leanpose.skeleton import get_skeleton
from leanpose.training.recipe import CardSection, Recipe
from leanpose.weights import describe
from leanpose.weights.hub import is_hub_address

UNSPECIFIED = "unspecified"


def weights_of(name: str) -> Path | str:
    """The weights that a recipe names: a released name or a file unchanged, for a run folder its best (or else last)
    weights.

    Raises:
        LeanposeError: the folder contains no weights.
    """
    folder = Path(name)
    try:
        if not folder.is_dir():
            return name
    except OSError as error:
        raise LeanposeError(f"'{name[:40]}…' cannot be the name of a file ({error.strerror}).") from error
    for file in ("best.safetensors", "last.safetensors"):
        if (folder / file).exists():
            return folder / file
    raise LeanposeError(f"The folder {folder} contains no weights of a run (best.safetensors is missing).")


def card_with_sources(recipe: Recipe, sets: Sequence[str]) -> CardSection:
    """A recipe's card, extended by the cards of its initial weights, its backbone and its teacher.

    Args:
        sets: names of the data sets, used if the recipe's card states none.

    Raises:
        LeanposeError: one of these files is missing or corrupt.
    """
    data, licence = list(recipe.card.training_data or sets), recipe.card.licence
    for role, name, card in _sources(recipe):
        data += [f"{entry} ({role} {name})" for entry in card.get("training_data") or () if entry not in data]
        terms = card.get("licence") or UNSPECIFIED
        if terms not in licence:
            licence += f"; {role} {name}: {terms}"
    return recipe.card.model_copy(update={"training_data": data, "licence": licence})


def teacher_card(file: Path, skeleton: str | None = None) -> Mapping[str, Any]:
    """Training data and licence from a teacher's file; empty if it has no card.

    Args:
        file: file of the teacher.
        skeleton: skeleton of an exported file that does not name its keypoints.
    """
    if file.suffix not in FILE_SUFFIXES:
        return describe(file)
    named = None if skeleton is None else get_skeleton(skeleton)
    return open_exported(file, skeleton=named).card.weights or {}


def _sources(recipe: Recipe) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Role, name and card of each source."""
    if recipe.init_from is not None:
        yield "start", _short(recipe.init_from), describe(weights_of(recipe.init_from))
    if recipe.pretrained == "backbone":
        yield "backbone", "timm", {"training_data": ["ImageNet-1k"]}
    elif recipe.pretrained:
        yield "backbone", Path(recipe.pretrained).name, describe_backbone(Path(recipe.pretrained))
    if isinstance(recipe.distillation, TeacherSection):
        section = recipe.distillation
        card = teacher_card(Path(weights_of(section.teacher)), section.teacher_skeleton)
        yield "teacher", _short(section.teacher), card


def _short(name: str) -> str:
    """A file's public name: without folders, or its full address on the hub."""
    return name if is_hub_address(name) else Path(name).name
