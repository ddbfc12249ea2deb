"""What a recipe is made of: immutable sections without unknown keys, and the one sentence for what is wrong in them.

Nothing here needs torch, so that a wrong recipe is answered at once.
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
    """The recipe's `distillation`: `method` names an entry of `leanpose.losses.METHODS`, whose section has the other
    keys."""

    method: str = "none"

    def label_loss_scale(self, cycles: int) -> float:
        """What the log's loss against the labels is, as a multiple of the loss of one prediction; 0 where there is
        none.

        Args:
            cycles: how many the student has, 1 for most.
        """
        return 1.0

    def stages(self, first: str) -> tuple[Stage, ...]:
        """The stages of a method that has several, each a run of its own; empty for the others.

        Args:
            first: the folder of the first stage's run, whose best weights the second may start from.
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
    """`onnxruntime` is two to three times as fast on a CPU, and gives the teacher's prediction alone: no features, no
    tokens."""
    compile_teacher: bool = False
    teacher_flip_test: bool = False
    """Average the teacher's prediction with that for the mirrored crop; takes its pass twice."""

    @property
    def prediction_only(self) -> bool:
        """Whether nothing of the teacher but its prediction is compared, so that it may run in any backend."""
        return False


class Stage(Section):
    """One stage of a method."""

    section: MethodSection
    epochs: int | None = None
    """None: the recipe's, divided by `epochs_divisor`."""
    epochs_divisor: int = 1
    new_head: bool = False
    """Whether it retrains the head of the stage before, so that nothing else that the recipe starts from counts."""


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
        origin: what the message begins with: the file.
        prefix: where in the file the section stands, with a dot at the end.
        renamed: old keys by their whole dotted name, without indices, and what they are called now.

    Raises:
        LeanposeError: the first thing that is wrong, with the nearest valid key where one is unknown.
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
"""Of the colours of images."""
Std = tuple[_Positive, _Positive, _Positive]


def parse_card(kind: type[BaseModel], text: str, path: object) -> dict[str, Any]:
    """What a file says of itself, in JSON, once it has the fields of `kind`; others are kept.

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
    """The keys of the section at this place below `section`."""
    for part in location:
        if part in section.model_fields:
            section = next(iter(_sections_in(section.model_fields[part].annotation)), section)
    return list(section.model_fields)


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field's type names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections_in(argument)]
