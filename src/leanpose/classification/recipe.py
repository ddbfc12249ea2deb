"""The recipe of a classifier: what every training run says, and images sorted by class instead of people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from leanpose.choices import Split
from leanpose.data.augmentation import Fractions, in_order
from leanpose.schema import Section
from leanpose.training.recipe import LoaderSection, TrainingRecipe, check_recipe

_Factor = Annotated[float, Field(gt=0)]
_Factors = Annotated[tuple[_Factor, _Factor], AfterValidator(in_order)]


class ImageFolderConfig(Section):
    """Images in a folder for each class."""

    format: Literal["image_folder"] = "image_folder"
    name: str | None = None
    images: Path
    """The folder of the classes' folders."""
    split: Split = "all"
    """`val` is every tenth image of each class, `train` the others."""


class ClassDataSection(LoaderSection):
    """Which images train the classifier, and which measure it."""

    train: Annotated[list[ImageFolderConfig], Field(min_length=1, max_length=1)]
    val: ImageFolderConfig | None = None


class ClassificationSection(Section):
    """How a classifier's images and labels vary; the defaults are DeiT's."""

    enabled: bool = True
    """Whether single images vary; mixing and smoothing are settings of their own."""
    area: Fractions = (0.08, 1.0)
    aspect: _Factors = (0.75, 1.3333)
    flip_probability: float = Field(default=0.5, ge=0, le=1)
    policy: str = "rand-m9-mstd0.5-inc1"
    """RandAugment policy in timm's syntax; empty for none."""
    erasing_probability: float = Field(default=0.25, ge=0, le=1)
    mixup: float = Field(default=0.8, ge=0)
    """Alpha of its beta distribution, as for `cutmix`; if both are above 0, each batch is mixed by one of them."""
    cutmix: float = Field(default=1.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)


class ClassificationRecipe(TrainingRecipe):
    """One training run of a classifier such as deit_tiny."""

    data: ClassDataSection  # pyright: ignore[reportIncompatibleVariableOverride]
    classification: ClassificationSection = Field(default_factory=ClassificationSection)


def parse_classification_recipe(values: dict[str, Any], origin: str = "recipe") -> ClassificationRecipe:
    """Check the values of a classifier's recipe.

    Raises:
        LeanposeError: the first thing that is wrong, with the nearest valid key where one is unknown.
    """
    return check_recipe(ClassificationRecipe, values, origin)
