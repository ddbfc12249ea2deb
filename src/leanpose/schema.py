"""Base classes of recipe sections (pydantic models, immutable, without unknown keys), and their validation errors.

Imports no torch, so that errors in recipes are reported at once.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leanpose.errors import LeanposeError, did_you_mean


class Section(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MethodSection(Section):
    """The recipe's section `distillation`; `method`, a key of `leanpose.losses.METHODS`, determines the other keys."""

    method: str = "none"

    def label_loss_scale(self, cycles: int) -> float:
        """The weight of the loss against the labels, summed over cycles; 0 if there is none.

        Args:
            cycles: number of the student's cycles.
        """
        return 1.0

    def stages(self, first: str) -> tuple[Stage, ...]:
        """The stages of a method with several, each of which is a run; empty for methods with one.

        Args:
            first: the folder of the first stage's run, whose best weights the second may use.
        """
        return ()


class TeacherSection(MethodSection):
    """The section of a method with a frozen teacher."""

    teacher: str = Field(min_length=1)
    """A released name, a .safetensors, .onnx or .xml file, hf://USER/NAME, or the folder of a run (its best
    weights)."""
    teacher_skeleton: str | None = None
    """Names the keypoints of an exported teacher that does not name them: a known skeleton or a YAML file."""
    teacher_backend: Literal["torch", "onnxruntime"] = "torch"
    """`onnxruntime` is two to three times as fast on a CPU, but outputs only the prediction, no features or tokens."""
    compile_teacher: bool = False
    teacher_flip_test: bool = False
    """Average the teacher's prediction with that for the mirrored crop, at twice the cost."""

    @property
    def prediction_only(self) -> bool:
        """Whether only the teacher's prediction is compared, so that any backend can run it."""
        return False


class Stage(Section):
    """One stage of a method."""

    section: MethodSection
    epochs: int | None = None
    """None: the recipe's, divided by `epochs_divisor`."""
    epochs_divisor: int = 1
    new_head: bool = False
    """Whether it retrains the head of the previous stage's model; the recipe's own initial weights are then not used."""


SectionT = TypeVar("SectionT", bound=BaseModel)


def validate(
    section: type[SectionT],
    values: Any,
    origin: str,
    *,
    prefix: str = "",
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> SectionT:
    """A section from plain values.

    Args:
        origin: the file, for error messages.
        prefix: the section's key in the file, with a trailing dot.
        renamed: current names of renamed keys, by their former dotted names without indices.

    Raises:
        LeanposeError: the first error; for an unknown key with the nearest valid one.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        location = [str(part) for part in first["loc"]]
        where = prefix + ".".join(location)
        if first["type"] == "extra_forbidden":
            key = prefix + ".".join(part for part in location if not part.isdecimal())
            if key in renamed:
                hint = f"it is called '{renamed[key]}' now."
            else:
                hint = did_you_mean(location[-1], _fields_at(section, location[:-1]))
            raise LeanposeError(f"{origin}: unknown key '{where}'; {hint}") from error
        message = first["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(first["input"], dict) else f" = {reprlib.repr(first['input'])}"
        raise LeanposeError(f"{origin}: {where.rstrip('.') or 'the recipe'}{shown}: {message}.") from error


_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Mean = tuple[_Finite, _Finite, _Finite]
"""Mean of each colour channel, which preprocessing subtracts."""
Std = tuple[_Positive, _Positive, _Positive]


def parse_card(kind: type[BaseModel], text: str, path: object) -> dict[str, Any]:
    """Parse a file's card, a JSON object with at least the fields of `kind`.

    Raises:
        LeanposeError: it is not a JSON object, or a field is missing or of the wrong type; `path` names the file.
    """
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LeanposeError(f"{path} is corrupt: its card is not valid JSON.") from error
    if not isinstance(card, dict):
        raise LeanposeError(f"{path} is corrupt: its card is not a JSON object.")
    try:
        kind.model_validate(card)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        wrong = f"lacks '{where}'" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        wrong = wrong if first["type"] in ("missing", "value_error") else f"has a wrong '{where}': {wrong}"
        raise LeanposeError(f"{path} is corrupt: its card {wrong}.") from error
    return card


def _fields_at(section: type[BaseModel], location: list[str]) -> list[str]:
    """The keys of the nested section at this location."""
    for part in location:
        if part in section.model_fields:
            section = next(iter(_sections_in(section.model_fields[part].annotation)), section)
    return list(section.model_fields)


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """All sections in a field's type, including nested ones."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections_in(argument)]
