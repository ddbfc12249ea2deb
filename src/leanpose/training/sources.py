"""What a run's weights owe to others: the data and the terms of what they start from and of their teacher."""

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
    """Which weights a recipe means: a released name or a file as it is, a run's folder by its best weights (or else its last).

    Raises:
        LeanposeError: the folder holds no weights.
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
    raise LeanposeError(f"The folder {folder} holds no weights of a run (best.safetensors is missing).")


def card_with_sources(recipe: Recipe, sets: Sequence[str]) -> CardSection:
    """A recipe's card with what the cards of its start, of its backbone and of its teacher say.

    Args:
        sets: names of the data, where the recipe's card states none.

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
    """What a teacher's file says of its data and terms; nothing where it has no card.

    Args:
        file: of the teacher.
        skeleton: names the keypoints of an exported file that does not name them.
    """
    if file.suffix not in FILE_SUFFIXES:
        return describe(file)
    named = None if skeleton is None else get_skeleton(skeleton)
    return open_exported(file, skeleton=named).card.weights or {}


def _sources(recipe: Recipe) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """What each source is to the run, its name, its card."""
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
    """What others can know a file by: its name without folders, or its whole address on the hub."""
    return name if is_hub_address(name) else Path(name).name
