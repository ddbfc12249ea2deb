"""Compatibility of students and teachers: every method tried on a small model of each kind
(`docs/who-can-teach-whom.md`).

`python -m leanpose.distillation.pairs > docs/who-can-teach-whom.md` regenerates the page.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch

from leanpose.backends.base import TorchBackend
from leanpose.backends.model import BackendModel
from leanpose.codecs import build_codec
from leanpose.errors import LeanposeError
from leanpose.geometry import Warp
from leanpose.losses import CRITERIA, METHODS
from leanpose.models.base import PoseModel
from leanpose.models.registry import create_model
from leanpose.schema import TeacherSection
from leanpose.training.task import PoseTask, Teacher
from leanpose.weights import RELEASED

SIZE, HALF, NARROW = (64, 64), (32, 32), (64, 32)
WIDTH = 118


class Kind(NamedTuple):
    """An output representation, with a small example model.

    Attributes:
        model, options: arguments of `create_model`.
        loss: its supervised loss, `codec` or `rle`.
        exported: whether it is an exported file.
    """

    model: str
    options: Mapping[str, Any]
    loss: str = "codec"
    exported: bool = False


_TOKENS = {
    "patch_size": (4, 4),
    "stem_width": 8,
    "stage1_width": 8,
    "stage1_blocks": 1,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}
STUDENTS = {
    "heatmaps": Kind("tinypose", {}),
    "SimCC": Kind("rtmpose_t", {}),
    "coordinates": Kind("deeppose_r50", {"backbone": "tinypose"}),
    "RLE": Kind("rle_r50", {"backbone": "tinypose"}, loss="rle"),
    "decoder": Kind("tfpose_r18", {"embed_dim": 32, "encoder_layers": 1, "decoder_layers": 2}),
    "token heatmaps": Kind("tokenpose_s_v1", _TOKENS),
    "token coordinates": Kind("distilpose_s", _TOKENS),
}
TEACHERS = {name: kind for name, kind in STUDENTS.items() if name != "RLE"} | {
    f"ONNX {name}": replaced
    for name in ("heatmaps", "SimCC", "coordinates")
    for replaced in [STUDENTS[name]._replace(exported=True)]
}
TRIALS: dict[str, tuple[str, dict[str, Any]]] = {method: (method, {}) for method in METHODS if method != "none"} | {
    "auto with feature_loss": ("auto", {"feature_loss": "cwd"})
}
"""The methods tried, with settings, by their name on the page."""


@cache
def _model(name: str, teacher: bool, size: tuple[int, int], skeleton: str, warp: Warp) -> PoseModel:
    kind = (TEACHERS if teacher else STUDENTS)[name]
    model = create_model(kind.model, skeleton=skeleton, input_size=size, **kind.options)
    settings = model.codec.to_dict()
    if "encoding" in settings:  # SimCC has only one
        model.codec = build_codec({**settings, "encoding": warp})
    return BackendModel(TorchBackend(model, torch.device("cpu"))) if kind.exported else model


def refusal(
    trial: str,
    student: str,
    teacher: str,
    *,
    size: tuple[int, int] = SIZE,
    skeleton: str = "coco17",
    warp: Warp = "msra",
) -> str:
    """The error message for a teacher and a student with a method (`the model` for their names); empty if compatible.

    Args:
        trial: key of `TRIALS`.
        student, teacher: keys of `STUDENTS` and `TEACHERS`.
        size: height and width of the teacher's crops; the student's are `SIZE`.
        skeleton, warp: of the teacher; the student's are coco17 and msra.
    """
    kind, learner = STUDENTS[student], _model(student, False, SIZE, "coco17", "msra")
    master = _model(teacher, True, size, skeleton, warp)
    method, settings = TRIALS[trial]
    section_type = METHODS[method].section_type
    has_teacher = issubclass(section_type, TeacherSection)
    section = section_type(method=method, **settings, **({"teacher": teacher} if has_teacher else {}))
    try:
        criterion = CRITERIA[kind.loss](learner)
        built = METHODS[method].build(section, learner, master if has_teacher else None, criterion)
        if has_teacher:
            PoseTask(learner, built, None, Teacher(master)).dry_run()
    except LeanposeError as error:
        text = re.sub(f"'({learner.name}|{master.name})'", "the model", str(error).partition(": it is ")[0])
        return re.sub("^the", "The", text).removesuffix(".") + "."
    return ""


_INTRODUCTION = (
    "# Student–teacher compatibility",
    "",
    "Every method of `leanpose distill TEACHER STUDENT distillation.method=METHOD` (default: `auto`), tried with its",
    "default settings on small models of each kind: yes, or the number of the error message below. `--explain` checks two",
    "models of your own without training. `python -m leanpose.distillation.pairs` writes this page.",
    "",
)


class Pairs(NamedTuple):
    """The result of one method.

    Attributes:
        refusals: error messages by student and teacher; empty if compatible. For methods without a teacher, the teacher
            is "".
        may_differ: whether each property of the teacher may differ from the student's; None if it cannot.
    """

    refusals: dict[tuple[str, str], str]
    may_differ: dict[str, bool | None]


def try_pairs(trial: str) -> Pairs:
    """Try all students with all teachers, and other crops and keypoints with the first compatible pair."""
    if not issubclass(METHODS[TRIALS[trial][0]].section_type, TeacherSection):
        return Pairs({(student, ""): refusal(trial, student, next(iter(TEACHERS))) for student in STUDENTS}, {})
    refusals = {(s, t): refusal(trial, s, t) for t in TEACHERS for s in STUDENTS}
    pair = next((pair for pair, reason in refusals.items() if not reason), None)
    if pair is None:
        return Pairs(refusals, {})
    onnx = any(TEACHERS[teacher].exported for (_, teacher), reason in refusals.items() if not reason)
    changes: dict[str, dict[str, Any]] = {
        "another size": {"size": HALF},
        "another aspect": {"size": NARROW},
        "another warp": {"warp": "udp"},
        "other keypoints": {"skeleton": "body19"},
    }
    may_differ: dict[str, bool | None] = {name: not refusal(trial, *pair, **change) for name, change in changes.items()}
    if "SimCC" in pair[1]:
        may_differ["another warp"] = None
    return Pairs(refusals, {**may_differ, "an ONNX file": onnx})


def page() -> str:
    """The whole page."""
    tried = {trial: try_pairs(trial) for trial in TRIALS}
    differences = tried["auto"].may_differ
    shown = "; ".join(f"{name} by `{kind.model}`" for name, kind in STUDENTS.items())
    released = "; ".join(f"`{name}` {release.card['codec']['name']}" for name, release in RELEASED.items())
    lines = [*_INTRODUCTION, *_wrapped(f"Example models: {shown}."), ""]
    lines += [*_wrapped(f"The released models predict: {released}."), "", "## What may differ", ""]
    lines += [f"| method | {' | '.join(differences)} |", "| --- |" + " --- |" * len(differences)]
    for method, pairs in tried.items():
        cells = [_yes(works) for works in pairs.may_differ.values()] or ["–"] * len(differences)
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    for method, pairs in tried.items():
        lines += ["", f"## {method}", "", *_matrix(pairs)]
    return "\n".join(lines) + "\n"


def _yes(works: bool | None) -> str:
    return "–" if works is None else "yes" if works else "no"


def _matrix(pairs: Pairs) -> Iterator[str]:
    """One method's table, with equal rows and columns merged, and the reasons below it."""
    reasons = list(dict.fromkeys(reason for reason in pairs.refusals.values() if reason))
    if not reasons:
        yield "All combinations are supported."
        return
    teachers = list(dict.fromkeys(teacher for _, teacher in pairs.refusals))

    def cell(student: str, teacher: str) -> str:
        reason = pairs.refusals[student, teacher]
        return f"({reasons.index(reason) + 1})" if reason else "yes"

    rows = _alike({teacher: tuple(cell(student, teacher) for student in STUDENTS) for teacher in teachers})
    columns = _alike({student: tuple(cell(student, teacher) for teacher in teachers) for student in STUDENTS})
    yield f"| teacher \\ student | {' | '.join(columns)} |"
    yield "| --- |" + " --- |" * len(columns)
    for name, teacher in rows.items():
        yield f"| {name or 'itself'} | {' | '.join(cell(student, teacher) for student in columns.values())} |"
    yield ""
    for number, reason in enumerate(reasons, start=1):
        yield from _wrapped(f"{number}. {reason}", indent="   ")


def _alike(cells: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """A name for each group with the same cells, and one member; the largest group comes last, as `all others`."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, found in cells.items():
        groups.setdefault(found, []).append(name)
    *few, most = sorted(groups.values(), key=len)
    named = [(", ".join(group), group[0]) for group in few]
    last = "any" if not few and len(most) > 1 else "all others" if len(most) > 2 else ", ".join(most)
    return dict([*named, (last, most[0])])


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    print(page(), end="")
