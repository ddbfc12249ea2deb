"""The recipe: one flat YAML file that names a model, a codec, data, a distillation and a schedule.

All errors in a recipe are detected here, before the first image is read: for an unknown key the message names the
nearest valid one, for a wrong type the expected one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    Field,
    SerializeAsAny,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from leanpose.choices import Cycle, Decoding, Encoding, Metric, Scoring, Suppression
from leanpose.data.augmentation import Augmentation
from leanpose.data.readers import DatasetConfig
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import any_damage, dump_yaml, load_yaml, parse_yaml
from leanpose.schema import MethodSection, Section, validate


class LoaderSection(Section):
    """Data loading, for all tasks."""

    root: Path = Path()
    """Folder that the paths of `train` and `val` are relative to."""
    num_workers: int | None = Field(default=None, ge=0, le=256)
    """DataLoader workers; the result does not depend on their number. None: up to 8 for a GPU, 2 on a CPU with more
    than two cores, else 0."""


class DataSection(LoaderSection):
    """The training and validation people."""

    train: list[DatasetConfig]
    val: DatasetConfig | None = None
    cache: Path | None = None
    """Pack of the training people's crops; created if missing (or beforehand by `leanpose data pack RECIPE`). None
    decodes the image for every crop."""
    warp_on_device: bool | None = None
    """Warp and augment the crops in batches on the training device, from packed ones. None: only on a GPU."""
    decode_on_device: bool | None = None
    """Also decode a pack's JPEGs there (by torchvision). None: only on a GPU with a hardware decoder."""

    @model_validator(mode="after")
    def _one_way_of_mixing(self) -> DataSection:
        weighted = [source for source in self.train if source.weight is not None]
        if weighted and len(weighted) < len(self.train):
            raise ValueError("data.train: give a `weight` to all sets, or to none")
        if any(source.repeat != 1 for source in weighted):
            raise ValueError("data.train: a set has both `weight` and `repeat`; use only one of them")
        return self

    @model_validator(mode="after")
    def _packed_where_needed(self) -> DataSection:
        packed = self.cache is not None or any(source.format in ("auto", "pack") for source in self.train)
        if self.warp_on_device and not packed:
            raise ValueError("warp_on_device needs packed crops: set data.cache")
        if self.decode_on_device and self.warp_on_device is False:
            raise ValueError("decode_on_device needs warp_on_device")
        return self


class AugmentationSection(Augmentation):
    """`enabled: false` trains on the plain crops."""

    enabled: bool = True
    stage2_epochs: int = Field(default=0, ge=0)
    """Number of last epochs with the changes in `stage2`, RTMPose's second stage."""
    stage2: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _last_is_valid(self) -> AugmentationSection:
        known = set(Augmentation.model_fields)
        for key in self.stage2:
            if key not in known:
                raise ValueError(f"stage2 has the unknown key '{key}'; {did_you_mean(key, known)}")
        if self.stage2 and not self.stage2_epochs:
            raise ValueError("augmentation.stage2 needs stage2_epochs")
        self.of_stage2()  # rejects invalid values
        return self

    def of_stage2(self) -> Augmentation:
        """The augmentation with the changes of `stage2`."""
        values = self.model_dump(include=set(Augmentation.model_fields))
        return Augmentation.model_validate({**values, **self.stage2})


def _one_or_two_sizes(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        raise ValueError("it must be a number above 0, or for SimCC two of them, along x and along y") from None


_Positive = Annotated[float, Field(gt=0)]


class CalibrationSection(Section):
    """Score calibration (fitted by `leanpose calibrate`); by default that of `init_from`."""

    slope: float = Field(gt=0)
    offsets: list[float]
    """One per keypoint."""


class CodecSection(Section):
    """Overrides of the model's codec; sizes follow from the model."""

    sigma: Annotated[_Positive | tuple[_Positive, _Positive] | None, WrapValidator(_one_or_two_sizes)] = None
    """Sigma of the Gaussians: in heatmap pixels, or in SimCC bins, for SimCC also as two numbers, along x and along
    y."""
    encoding: Encoding | None = None
    """Encoding of heatmaps and coordinates (which have no `unbiased`); `udp` also changes the crop convention."""
    decoding: Decoding | None = None
    """Decoding; `quarter` is only for heatmaps."""
    padding: float | None = Field(default=None, ge=1, le=4)
    """Size of the crop relative to the person's box; 1.25 unless the model sets another value."""
    blur_kernel_size: int | None = Field(default=None, ge=3, le=1023)
    """Blur kernel of DARK; only for heatmaps."""
    normalize: bool | None = None
    """Whether a Gaussian has the sum 1 instead of a peak of 1; only for SimCC, like the next two."""
    beta: float | None = Field(default=None, gt=0)
    label_softmax: bool | None = None
    calibration: CalibrationSection | None = None


class OptimizerSection(Section):
    name: Literal["adam", "adamw", "muon"] = "adam"
    """`muon` trains the matrices with Muon and everything else with Adam; it converges faster in short training."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate of Adam or AdamW."""
    muon_lr: float = Field(default=3e-3, gt=0)
    """Learning rate of Muon, scaled so that its updates are as large as Adam's at the same rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    lr_mult: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Learning-rate factors by module name, such as `backbone`, or by pattern of full parameter names, such as
    `*.sampling_offsets.*`. The first match applies. 0 freezes the module, including its norms."""
    decay_norm_and_bias: bool = True
    """Whether weight decay also applies to biases, norms and other 1-D parameters, and to a ViT's class token and
    position embeddings; RTMPose and DeiT exclude them."""
    grad_clip_norm: float | None = Field(default=None, gt=0)
    """Maximum global gradient norm; None does not clip."""


class ScheduleSection(Section):
    epochs: int = Field(default=300, ge=1, le=1_000_000)
    name: Literal["step", "cosine", "flat_cosine"] = "step"
    milestones: list[int] = Field(default_factory=lambda: [200, 260])
    """Epochs after which `step` multiplies the learning rate by `gamma`."""
    gamma: float = Field(default=0.1, gt=0)
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    """Final learning rate of `cosine` and `flat_cosine`, as a fraction of the initial one."""
    flat_ratio: float = Field(default=0.5, ge=0, lt=1)
    """Fraction of the epochs for which `flat_cosine` keeps the full learning rate; the rest is the cosine."""
    warmup_steps: int = Field(default=500, ge=0)
    warmup_factor: float = Field(default=0.001, ge=0, le=1)


class IntervalSection(Section):
    """Validation settings for all tasks."""

    interval: int = Field(default=10, ge=1)
    """Epochs between two validations; the last epoch is always validated."""
    cycle: Cycle = "first"
    """The cycle whose prediction is evaluated. `last` is for the undistilled networks of SDPose's Table 6."""


class ValidationSection(IntervalSection):
    flip_test: bool = True
    scoring: Scoring = "bbox_keypoint"
    nms: Suppression | None = "oks"
    metric: Metric = "coco"
    """`wholebody` also evaluates body, feet, face and hands separately; the best weights are those with the highest AP
    over all keypoints. `mpii` evaluates PCKh@0.5 on MPII instead of AP."""


class CardSection(Section):
    """Metadata stored with the weights."""

    training_data: list[str] = Field(default_factory=list)
    licence: str = "unspecified"
    notes: str = ""


class TrainingRecipe(Section):
    """Recipe keys of all tasks: everything that the training loop uses."""

    model: str
    """A name of `leanpose models`."""
    model_options: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the model's configuration, such as `input_size: [128, 96]`."""
    init_from: str | None = None
    """Weights to start from: a released name, a .safetensors file, or the folder of a run."""
    strict: bool = True
    """Whether `init_from` must be the same model; otherwise tensors of the same name and shape are loaded, and the rest
    is randomly initialised."""
    data: LoaderSection
    distillation: SerializeAsAny[MethodSection] = Field(default_factory=MethodSection)
    """The distillation method and its settings; `method` determines the keys (`leanpose.losses`)."""
    optimizer: OptimizerSection = Field(default_factory=OptimizerSection)
    schedule: ScheduleSection = Field(default_factory=ScheduleSection)
    validation: IntervalSection = Field(default_factory=IntervalSection)
    batch_size: int = Field(default=512, ge=1, le=1_000_000)
    """Samples per optimiser step, over all devices and micro-batches."""
    grad_accum_steps: int = Field(default=1, ge=1)
    """Number of micro-batches per batch."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """`bf16` is mixed precision: the weights stay fp32."""
    compile: bool = False
    """Use `torch.compile`: takes a minute at the start and after each change of the network; for GPUs, no gain on
    CPUs."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights, which is then validated and saved."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    checkpoint_minutes: float = Field(default=5.0, ge=0)
    """Interval between saves of the training state, which is also saved after each epoch."""
    card: CardSection = Field(default_factory=CardSection)

    @model_validator(mode="after")
    def _equal_parts(self) -> TrainingRecipe:
        if self.batch_size % self.grad_accum_steps:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by grad_accum_steps {self.grad_accum_steps}"
            )
        return self

    def to_yaml(self) -> str:
        """The recipe with every default written out."""
        return dump_yaml(self.model_dump(mode="json"))


class Recipe(TrainingRecipe):
    """One training run of a pose model, complete: no inheritance between files."""

    skeleton: str | None = None
    """A skeleton name or a YAML file; None is the model's own, which is coco17 for all but the whole-body models."""
    pretrained: str | None = None
    """`backbone`: initialise the backbone from its published ImageNet weights (downloaded once); or a file written by
    `leanpose convert --backbone`."""
    data: DataSection  # pyright: ignore[reportIncompatibleVariableOverride]
    augmentation: AugmentationSection = Field(default_factory=AugmentationSection)
    codec: CodecSection = Field(default_factory=CodecSection)
    loss: str = "codec"
    """Supervised loss, a key of `leanpose.losses.CRITERIA`: the codec's own, or RLE for models that predict sigma."""
    auxiliary_heatmap_weight: float = Field(default=0.0, ge=0)
    """Weight of the auxiliary heatmap loss on each layer's visual tokens, or on TFPose's encoder; 0: none, as in all
    papers but TFPose's."""
    validation: ValidationSection = Field(default_factory=ValidationSection)  # pyright: ignore[reportIncompatibleVariableOverride]

    @model_validator(mode="after")
    def _one_start(self) -> Recipe:
        if self.pretrained not in (None, "backbone") and not self.pretrained.endswith(".safetensors"):
            raise ValueError(
                f"pretrained must be `backbone` or a .safetensors file of a backbone, not '{self.pretrained}'"
            )
        if self.pretrained and self.init_from:
            raise ValueError("init_from would replace the weights of pretrained; set only one of them")
        return self


RecipeT = TypeVar("RecipeT", bound=TrainingRecipe)

RENAMED_FILE = Path(__file__).with_name("renamed.yaml")
"""Former names of methods and keys, for error messages."""


def read_recipe(path: Path | str, overrides: list[str] | None = None) -> dict[str, Any]:
    """The values of a recipe file with `key=value` overrides (dotted keys, YAML values, numbers index lists).

    A file may hold several rows of a table: `rows` has the changes of each, and the override `row=NAME` chooses one.
    Another `distillation.method=…` replaces that section of the file; other overrides then add to it.

    Raises:
        LeanposeError: the file is missing or not a YAML mapping, an override matches no key, or no row is chosen.
    """
    with any_damage("recipe", path):
        values = load_yaml(Path(path), "recipe")
        rows, overrides = values.pop("rows", None), list(overrides or [])
        if rows is not None:
            if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
                raise LeanposeError(f"The rows of {path} are not a mapping from names to the changes of each row.")
            chosen = row_of(overrides)
            if chosen not in rows:
                hint = did_you_mean(chosen or "", map(str, rows))
                raise LeanposeError(f"{path} holds several rows: add row=NAME; {hint}")
            overrides.remove(f"row={chosen}")
            for key, value in rows[chosen].items():
                _set(values, str(key), value, f"row {chosen}: {key}")
        change_values(values, overrides)
        return values


def change_values(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put `key=value` overrides into a recipe's values; see `read_recipe`.

    Raises:
        LeanposeError: an override matches no key.
    """
    # The method comes first: another one replaces the section, since it has other keys.
    for override in sorted(overrides, key=lambda text: not text.startswith("distillation.method=")):
        key, value = read_setting(override, "batch_size=64")
        _set(values, key, value, override)


def row_of(overrides: list[str] | None) -> str | None:
    """The row chosen by the override `row=NAME`."""
    return next((override[4:] for override in overrides or [] if override.startswith("row=")), None)


def recipes_folder() -> Path:
    """The folder of the bundled recipes: in the package, or next to `src` in a working copy."""
    installed = Path(__file__).parents[1] / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "recipes"


def find_recipe(name: str) -> Path:
    """A recipe file: a path, or a bundled one by its folder and name, such as `sdpose/s_v1_coco`.

    Raises:
        LeanposeError: there is no such file.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    known = {f"{file.parent.name}/{file.stem}": file for file in sorted(recipes_folder().glob("*/*.yaml"))}
    if name not in known:
        raise LeanposeError(f"There is no recipe '{name}'; {did_you_mean(name, known)}")
    return known[name]


def load_recipe(path: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read and check a recipe file; see `read_recipe`.

    Raises:
        LeanposeError: the file is missing or no YAML mapping, or a key or value is not valid.
    """
    with any_damage("recipe", path):
        return parse_recipe(read_recipe(path, overrides), str(path))


def saved_recipe(folder: Path) -> Recipe:
    """The recipe of the run in a folder.

    Raises:
        LeanposeError: there is none.
    """
    return load_recipe(recipe_file(folder))


def changed_settings(before: str, now: str) -> list[str]:
    """The keys, such as `schedule.epochs`, whose values differ between two recipes in YAML that were written out."""
    one, other = (dict(_settings(parse_yaml(text))) for text in (before, now))
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def _settings(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(values, dict):
        yield name, values
        return
    for key, value in values.items():
        yield from _settings(value, f"{name}.{key}" if name else str(key))


def recipe_file(folder: Path) -> Path:
    """Where a run keeps its recipe.

    Raises:
        LeanposeError: there is no run in the folder.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise LeanposeError(f"There is no run to resume in {folder} (recipe.yaml is missing).")
    return path


def parse_recipe(values: dict[str, Any], origin: str = "recipe") -> Recipe:
    """Check the values of a pose model's recipe.

    Raises:
        LeanposeError: the first error, with the nearest valid key if one is unknown.
    """
    return check_recipe(Recipe, values, origin)


def check_recipe(kind: type[RecipeT], values: dict[str, Any], origin: str) -> RecipeT:
    """Check the values of a recipe of this kind.

    Raises:
        LeanposeError: the first error, with the nearest valid key if one is unknown.
    """
    from leanpose.losses import CRITERIA, METHODS  # loads torch, which a missing file or bad YAML should not wait for

    renamed = parse_yaml(RENAMED_FILE.read_text())
    section = values.get("distillation") or {}
    if isinstance(section, dict):
        method = section.get("method") or "none"
        if not isinstance(method, str) or method not in METHODS:
            name = renamed["methods"].get(str(method))
            hint = did_you_mean(str(method), METHODS) if name is None else f"it is called '{name}' now."
            raise LeanposeError(f"{origin}: distillation.method = {method!r} is unknown; {hint}")
        kind_of_section = METHODS[method].section_type
        section = validate(
            kind_of_section, {**section, "method": method}, origin, renamed=renamed["keys"], prefix="distillation."
        )
    loss = values.get("loss", "codec")
    if "loss" in kind.model_fields and (not isinstance(loss, str) or loss not in CRITERIA):
        raise LeanposeError(f"{origin}: loss = {loss!r} is unknown; {did_you_mean(str(loss), CRITERIA)}")
    return validate(kind, {**values, "distillation": section}, origin, renamed=renamed["keys"])


def read_setting(text: str, example: str) -> tuple[str, Any]:
    """The key and the value, which is YAML, of `key=value`.

    Raises:
        LeanposeError: it is not of this form; the message shows the example.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise LeanposeError(f"'{text}' is not an override; write key=value, for example {example}.")
    try:
        return key, parse_yaml(value)
    except Exception as error:  # values that look like numbers or dates raise whatever their converters raise
        raise LeanposeError(f"The value of '{text}' is not valid YAML.") from error


def _set(values: dict[str, Any], key: str, value: Any, override: str) -> None:
    """Set a dotted key; `override` is the user's text."""
    section = values.get("distillation")
    if key == "distillation.method" and isinstance(section, dict) and section.get("method", "none") != value:
        values["distillation"] = {}  # another method has other keys
    node: Any = values
    *parents, last = key.split(".")
    for part in parents:
        node, at = _place(node, part, override)
        if isinstance(node, dict) and node.get(at) is None:
            node[at] = {}
        node = node[at]
    node, at = _place(node, last, override)
    node[at] = value


def _place(node: Any, part: str, override: str) -> tuple[Any, Any]:
    """A mapping or a list, and the key or index in it for a part of a dotted key."""
    if isinstance(node, dict):
        return node, part
    if not isinstance(node, list):
        raise LeanposeError(f"'{override}': a value has no key '{part}'; its parent is not a section.")
    if not part.isdecimal() or int(part) >= len(node):
        raise LeanposeError(f"'{override}': '{part}' is not an index of a list of {len(node)}.")
    return node, int(part)
