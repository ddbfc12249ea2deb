"""The table of named models: `@register_model` fills it, `create_model` and `list_models` read it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from leanpose.errors import LeanposeError, did_you_mean
from leanpose.models import WEIGHTS
from leanpose.skeleton import Skeleton, get_skeleton

if TYPE_CHECKING:
    from leanpose.models.base import PoseModel

ModelTask = Literal["pose", "classification"]

TABLE = Path(__file__).with_name("table.json")
"""The table of all models, readable without building them or importing torch: written by `python -m
leanpose.models.cost`."""


@dataclass(frozen=True)
class ModelRow:
    """One model with its default configuration.

    Attributes:
        summary: the first line of its docstring.
        input_size: height and width of the image, in pixels.
        parameters, macs, attention_macs: see `leanpose.models.cost.Cost`.
        published, source: see `ModelEntry.published`.
    """

    summary: str
    input_size: tuple[int, int]
    parameters: int
    macs: int
    attention_macs: int
    published: str
    source: str
    config: str
    """A digest of its configuration, which detects outdated rows without counting again."""


@cache
def model_table() -> dict[str, ModelRow]:
    """The rows of all models of the library by name, in alphabetical order."""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))
    return {name: ModelRow(**{**row, "input_size": tuple(row["input_size"])}) for name, row in rows.items()}


@dataclass(frozen=True)
class ModelEntry:
    """One named variant: its configuration, and its published result.

    Attributes:
        published_metric: the published result in percent: COCO val2017 AP unless `metric` says otherwise; None: none.
        source: its source.
        skeleton: its default skeleton.
        metric: `whole body`: AP on COCO-WholeBody val over all 133 keypoints; `top-1`: of a classifier, on ImageNet.
    """

    name: str
    model: type[Any]
    configure: Callable[[], Any]
    published_metric: float | None
    source: str
    skeleton: str = "coco17"
    metric: str = ""

    @property
    def task(self) -> ModelTask:
        """Whether it estimates poses or classifies images."""
        return self.model.task

    @property
    def summary(self) -> str:
        """The first line of the variant's docstring."""
        return (self.configure.__doc__ or "").strip().split("\n")[0]

    @property
    def published(self) -> tuple[str, str]:
        """The published result as shown in tables, and its source; `–` and an empty string if there is none."""
        if self.published_metric is None:
            return "–", ""
        return f"{self.published_metric:.1f}" + (f" ({self.metric})" if self.metric else ""), self.source


_ENTRIES: dict[str, ModelEntry] = {}

RENAMED_MODEL_OPTIONS = {
    "width": "embed_dim", "heads": "num_heads", "points": "num_points", "attention_width": "gau_qk_dim",
    "deconvolutions": "deconv_channels", "predicts": "outputs", "kernel": "kernel_size", "split": "simcc_split_ratio",
}  # fmt: skip
"""Former names of settings, for error messages about files of earlier versions."""


def register_model(
    model: type[Any], published_metric: float | None, source: str, *, skeleton: str = "coco17", metric: str = ""
) -> Callable:
    """Register the decorated function, which returns a configuration of `model`, under its name; see `ModelEntry`."""

    def enter(configure: Callable[[], Any]) -> Callable[[], Any]:
        name = configure.__name__
        if name in _ENTRIES:
            raise ValueError(f"two models are called {name}")
        _ENTRIES[name] = ModelEntry(name, model, configure, published_metric, source, skeleton, metric)
        return configure

    return enter


EXTENSIONS = ["leanpose.classification.deit"]
"""Modules outside this folder that register models; named, not imported, since this package must not depend on them."""
HUB_SCHEME = "hf://"


@cache
def _import_all() -> None:
    """Import every module of this folder, so that a new paper is one new file and no list to edit."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"leanpose.models.{module.name}")
    for extension in EXTENSIONS:
        importlib.import_module(extension)


def _entries() -> dict[str, ModelEntry]:
    """All entries by name: the library's own and those registered by users' code."""
    _import_all()
    return dict(sorted(_ENTRIES.items()))


def model_entry(name: str) -> ModelEntry:
    """The entry of a model name.

    Raises:
        LeanposeError: there is no such model.
    """
    entries = _entries()
    if name not in entries:
        raise LeanposeError(f"Unknown model '{name}'; {did_you_mean(name, entries)}")
    return entries[name]


def list_models(pattern: str = "*", *, task: ModelTask | None = None) -> list[str]:
    """The model names that match a shell-style pattern, such as `sdpose_*`.

    Args:
        pattern: `*` and `?` stand for any letters and for any letter.
        task: only pose models, or only classifiers.
    """
    return [name for name, entry in _entries().items() if fnmatchcase(name, pattern) and task in (None, entry.task)]


def configure_model(name: str, **overrides: Any) -> Any:
    """The configuration of a named model, with some of its fields replaced.

    Raises:
        LeanposeError: an unknown model or field, or a value that does not fit.
    """
    from pydantic import TypeAdapter, ValidationError

    config = model_entry(name).configure()
    fields = [field.name for field in dataclasses.fields(config)]
    for key in overrides:
        if RENAMED_MODEL_OPTIONS.get(key) in fields and key not in fields:
            raise LeanposeError(f"Model '{name}': the setting '{key}' is called '{RENAMED_MODEL_OPTIONS[key]}' now.")
        if key not in fields:
            raise LeanposeError(f"Model '{name}' has no setting '{key}'; {did_you_mean(key, fields)}")
    try:
        # A plain dataclass checks nothing. This converts lists (from YAML and JSON) to tuples and rejects other types.
        changed = TypeAdapter(type(config)).validate_python({**dataclasses.asdict(config), **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:1]) or "setting"
        raise LeanposeError(f"Model '{name}': {where}={first['input']!r} does not fit: {first['msg']}.") from error
    _require_modest(name, changed)
    return changed


_DEEP = ("depth", "layers", "blocks", "cycles", "stages", "stacks")
MAX_PARAMETERS = 1_000_000_000


def _whole_numbers(config: Any) -> Iterator[tuple[str, int]]:
    """The names and values of a configuration's integers, including those in tuples."""
    for key, value in dataclasses.asdict(config).items():
        for number in value if isinstance(value, tuple | list) else (value,):
            if isinstance(number, int) and not isinstance(number, bool):
                yield key, number


def rough_parameters(config: Any) -> int:
    """The approximate number of parameters of transformer layers of a configuration's largest width and depth."""
    widths, depths = [1], [1]
    for key, number in _whole_numbers(config):
        if any(word in key for word in _DEEP):
            depths.append(number)
        elif "size" not in key:
            widths.append(number)
    return 12 * max(widths) ** 2 * max(depths)


def _require_modest(name: str, config: Any) -> None:
    """Check that a model can be built, before memory is allocated for it.

    Raises:
        LeanposeError: it is too wide, too deep, or both.
    """
    for key, number in _whole_numbers(config):
        most = 256 if any(word in key for word in _DEEP) else 2048 if "size" in key else 8192
        if number > most:
            raise LeanposeError(f"Model '{name}': {key}={number} exceeds the maximum of {most}.")
    if rough_parameters(config) > MAX_PARAMETERS:
        raise LeanposeError(f"Model '{name}' would have more than 1 billion parameters; reduce its size.")


def skeleton_of(name: str, skeleton: str | Path | Skeleton | None = None) -> Skeleton:
    """The skeleton that `create_model` gives a model: the one asked for, or the model's own.

    Raises:
        LeanposeError: there is no such model or skeleton.
    """
    return get_skeleton(model_entry(name).skeleton if skeleton is None else skeleton)


def create_model(
    name: str,
    *,
    skeleton: str | Path | Skeleton | None = None,
    pretrained: str | Path | Literal[False] = False,
    **overrides: Any,
) -> PoseModel:
    """Build a named, randomly initialised model in eval mode.

    Args:
        name: one of `list_models()`. Those of `list_models(task="classification")` are not a `PoseModel` but a
            `leanpose.classification.deit.DeiT`. Or `hf://USER/NAME`: the model of a repository on the Hugging Face hub
            with its weights, as `leanpose.load_model` gives it; nothing else can be set then.
        skeleton: its keypoints: a known skeleton's name, a YAML file, or a `Skeleton`; None is the model's own, which
            is coco17 for all but the whole-body models.
        pretrained: `"backbone"`: start the backbone from ImageNet, as the papers do with HRNet (downloads once).
            A path: start the backbone from a file written by `leanpose convert --backbone`.
            Released weights of a whole model are loaded by `leanpose.load_model`.
        overrides: fields of the model's configuration to replace, such as `input_size=(128, 96), embed_dim=128,
            depth=4`.

    Raises:
        LeanposeError: an unknown name or setting, inconsistent sizes, or weights that are not available.
    """
    if pretrained is True:  # as timm has it
        raise LeanposeError(
            "pretrained must be 'backbone' or a backbone file; leanpose.load_model loads a released model by its name."
        )
    if name.startswith(HUB_SCHEME):
        if skeleton is not None or pretrained or overrides:
            raise LeanposeError(
                f"{name} is loaded with its own configuration; skeleton, pretrained and overrides cannot be given."
            )
        return importlib.import_module(WEIGHTS).load_model(name)
    entry, config = model_entry(name), configure_model(name, **overrides)
    found = skeleton_of(name, skeleton) if entry.task == "pose" or skeleton is not None else None
    return entry.model.build(name, config, found, pretrained)
