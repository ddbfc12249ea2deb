"""The recipe: one flat YAML file that names a model, a codec, data, a distillation and a schedule.

Every mistake in a recipe is found here, before the first image is read: an unknown key is answered with the nearest
valid one, a wrong type with what was expected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from leanpose.data.readers import DatasetConfig
from leanpose.errors import LeanposeError, did_you_mean


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSection(_Section):
    """Which people train the model, and which measure it."""

    root: Path = Path()
    """Folder that the paths of `train` and `val` are relative to."""
    train: list[DatasetConfig]
    val: DatasetConfig | None = None
    num_workers: int = Field(default=2, ge=0)
    """Loader processes; the result does not depend on their number."""
    cache: Path | None = None
    """Folder of packed crops; made there if missing (`leanpose data pack` makes it beforehand). None decodes the image for every crop."""


def _in_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the first number is the least, the second the largest")
    return bounds


_Share = Annotated[float, Field(gt=0, le=1)]
_Shares = Annotated[tuple[_Share, _Share], AfterValidator(_in_order)]
_Factor = Annotated[float, Field(gt=0)]
_Factors = Annotated[tuple[_Factor, _Factor], AfterValidator(_in_order)]


class AugmentationSection(_Section):
    """SDPose's recipe; `enabled: false` trains on the plain crops."""

    enabled: bool = True
    shift: float = Field(default=0.16, ge=0)
    shift_probability: float = Field(default=0.3, ge=0, le=1)
    flip_probability: float = Field(default=0.5, ge=0, le=1)
    half_body_probability: float = Field(default=0.3, ge=0, le=1)
    half_body_keypoints: int = Field(default=8, ge=1)
    scale: float = Field(default=0.35, ge=0, lt=1)
    rotation: float = Field(default=45.0, ge=0)
    rotation_probability: float = Field(default=0.6, ge=0, le=1)
    truncnorm: bool = False
    """`scale` and `rotation` as RTMPose draws them: never beyond one deviation."""
    hue: float = Field(default=0.0, ge=0, le=90)
    """Largest change of the colours, of OpenCV's 8-bit HSV; as the next two."""
    saturation: float = Field(default=0.0, ge=0, le=255)
    value: float = Field(default=0.0, ge=0, le=255)
    blur_probability: float = Field(default=0.0, ge=0, le=1)
    coarse_dropout_probability: float = Field(default=0.0, ge=0, le=1)
    """Of a black rectangle, whose sides are these shares of the crop's."""
    coarse_dropout_size: _Shares = (0.2, 0.4)
    stage2_epochs: int = Field(default=0, ge=0)
    """So many epochs at the end are drawn with the changes in `stage2`, RTMPose's second phase."""
    stage2: dict[str, Any] = {}

    @model_validator(mode="after")
    def _last_is_valid(self) -> AugmentationSection:
        known = set(AugmentationSection.model_fields) - {"enabled", "stage2", "stage2_epochs"}
        for key in self.stage2:
            if key not in known:
                raise ValueError(f"stage2 has the unknown key '{key}'; {did_you_mean(key, known)}")
        if self.stage2 and not self.stage2_epochs:
            raise ValueError("stage2 says how the last epochs differ; say in stage2_epochs how many these are")
        if self.stage2:
            self.stage2_section()
        return self

    def stage2_section(self) -> AugmentationSection:
        """The section with the changes of `stage2`."""
        values = self.model_dump(exclude={"stage2", "stage2_epochs"})
        return AugmentationSection.model_validate({**values, **self.stage2})


def _one_or_two_sizes(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        raise ValueError("it is a number above 0, or for SimCC two of them, along x and along y") from None


_Positive = Annotated[float, Field(gt=0)]


class CodecSection(_Section):
    """How keypoints are drawn and read, where that shall differ from the model's own codec; sizes follow from the model."""

    sigma: Annotated[_Positive | tuple[_Positive, _Positive] | None, WrapValidator(_one_or_two_sizes)] = None
    """Of the Gaussians: in pixels of a heatmap, or in bins of SimCC, there also as one number along x and one along y."""
    encoding: Literal["msra", "unbiased", "udp"] | None = None
    """Of heatmaps and coordinates (which know no `unbiased`); `udp` also changes how crops are cut."""
    decoding: Literal["argmax", "quarter", "dark"] | None = None
    """`quarter` is for heatmaps alone."""
    blur_kernel_size: int | None = Field(default=None, ge=3)
    """Of heatmaps alone."""
    normalize: bool | None = None
    """Of SimCC alone, as the next two."""
    beta: float | None = Field(default=None, gt=0)
    label_softmax: bool | None = None


class SupervisedSection(_Section):
    """Plain training."""

    method: Literal["none"] = "none"


class SDPoseSection(_Section):
    """SDPose's self-distillation, with the weights of its eq. 4."""

    method: Literal["cycles"]
    keypoint_token_weight: float = Field(default=5e-6, ge=0)
    visual_token_weight: float = Field(default=5e-6, ge=0)
    supervise: Literal["all", "last"] = "all"
    detach: bool = False


class TeacherSection(_Section):
    """A frozen teacher, and how it is run."""

    teacher: str = Field(min_length=1)
    """A released name, a .safetensors file, or the folder of a run (its best weights)."""
    teacher_cache: Path | None = None
    """Folder where the teacher's outputs are kept, so that another student of the same crops needs no teacher passes."""
    compile_teacher: bool = False


class DistilPoseSection(TeacherSection):
    """DistilPose's, with the weights of its eq. 8: a frozen heatmap teacher and a student that predicts coordinates."""

    method: Literal["distilpose"]
    keypoint_token_weight: float = Field(default=5e-4, ge=0)
    visual_token_weight: float = Field(default=5e-4, ge=0)
    simulated_heatmap_weight: float = Field(default=1.0, ge=0)
    confidence_weight: float = Field(default=0.01, ge=0)


class DWPoseSection(TeacherSection):
    """DWPose's, between SimCC models, with the weights of its code."""

    method: Literal["dwpose"]
    feature_weight: float = Field(default=7e-5, ge=0)
    logit_weight: float = Field(default=0.1, ge=0)
    use_gt_loss: bool = True
    mask_unlabelled: bool = False
    """Whether unlabelled keypoints are left out of the loss of the logits."""
    loss_decay: bool = True
    """Whether both losses fall linearly to 0 over the epochs."""
    reduction: Literal["official", "paper"] = "official"
    reference_batch_size: int | None = Field(default=64, ge=1)
    """The labels' loss counts as the sum over so many people, the official number on a GPU; None: over those of a step's part."""
    stage2: bool = True
    """Whether stage 2 follows: the finished model gets a new head, and everything not said here stays as in the recipe."""
    stage2_epochs: int | None = Field(default=None, ge=1)
    """None takes a fifth of the recipe's."""
    stage2_logit_weight: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _something_to_learn(self) -> DWPoseSection:
        if not (self.use_gt_loss or self.logit_weight):  # features alone teach the backbone
            raise ValueError("use_gt_loss and logit_weight are both off, so the head has nothing to learn")
        return self


class DWPoseStage2Section(TeacherSection):
    """DWPose's stage 2 alone: the teacher is a trained SimCC model, the student its frozen backbone with a new head."""

    method: Literal["dwpose_stage2"]
    logit_weight: float = Field(default=1.0, gt=0)
    reduction: Literal["official", "paper"] = "official"


def _none_without_method(value: Any) -> Any:
    return {"method": "none", **(value or {})} if value is None or isinstance(value, dict) else value


DistillationSection = Annotated[
    SupervisedSection | SDPoseSection | DistilPoseSection | DWPoseSection | DWPoseStage2Section,
    Field(discriminator="method"),
    BeforeValidator(_none_without_method),
]
"""What the student learns from beside the labels; `method` says which keys there are."""


class OptimizerSection(_Section):
    name: Literal["adam", "adamw", "muon"] = "adam"
    """`muon` trains the matrices by Muon and everything else by Adam; it needs fewer steps where steps are few."""
    lr: float = Field(default=1e-3, gt=0)
    """Of Adam."""
    muon_lr: float = Field(default=3e-3, gt=0)
    """Of Muon, scaled so that its updates are as large as Adam's at the same rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    lr_mult: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Parts of the network whose learning rate is multiplied by this: names such as `backbone`, or patterns of whole parameter
    names such as `*.sampling_offsets.*`. Of those that fit a parameter the first counts. 0 freezes the part, its norms too."""
    decay_norm_and_bias: bool = True
    """Whether weight decay shrinks biases, norms and other single rows of numbers too, and a vision transformer's class token
    and positions; RTMPose and DeiT spare them."""
    grad_clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of all gradients together; None does not clip."""


class ScheduleSection(_Section):
    epochs: int = Field(default=300, ge=1)
    name: Literal["step", "cosine", "flat_cosine"] = "step"
    milestones: list[int] = [200, 260]
    """Epochs after which `step` multiplies the learning rate by `gamma`."""
    gamma: float = Field(default=0.1, gt=0)
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    """Where `cosine` and `flat_cosine` end, as a fraction of the learning rate."""
    flat_ratio: float = Field(default=0.5, ge=0, lt=1)
    """The share of all epochs for which `flat_cosine` keeps the full learning rate; its cosine takes the rest."""
    warmup_steps: int = Field(default=500, ge=0)
    warmup_factor: float = Field(default=0.001, ge=0, le=1)


class ValidationSection(_Section):
    interval: int = Field(default=10, ge=1)
    """Epochs between two validations; the last epoch is always validated."""
    flip_test: bool = True
    cycle: Literal["first", "last"] = "first"
    """Which cycle's prediction is measured. `last` is for the undistilled networks of SDPose's Table 6."""
    scoring: Literal["bbox_keypoint", "keypoint", "bbox"] = "bbox_keypoint"
    nms: Literal["oks", "soft"] | None = "oks"
    metric: Literal["coco", "crowdpose", "wholebody", "mpii"] = "coco"
    """`wholebody` also measures body, feet, face and hands apart; the best weights are those of the highest AP of all together.
    `mpii` measures PCKh@0.5 on MPII in place of AP."""


class ClassificationSection(_Section):
    """How a classifier's pictures and labels vary, in the place of `augmentation`; the defaults are DeiT's."""

    enabled: bool = True
    """Whether single pictures vary; mixing and smoothing are settings of their own."""
    area: _Shares = (0.08, 1.0)
    aspect: _Factors = (0.75, 1.3333)
    flip_probability: float = Field(default=0.5, ge=0, le=1)
    policy: str = "rand-m9-mstd0.5-inc1"
    """Of RandAugment, in timm's words; empty for none."""
    erasing_probability: float = Field(default=0.25, ge=0, le=1)
    mixup: float = Field(default=0.8, ge=0)
    """Of its beta distribution, as `cutmix`; where both are above 0, each batch is mixed by one of them."""
    cutmix: float = Field(default=1.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)


class CardSection(_Section):
    """What the saved weights say of themselves."""

    training_data: list[str] = []
    licence: str = "unspecified"
    notes: str = ""


class Recipe(_Section):
    """One training run, whole: the value that counts is the value you read."""

    model: str
    model_options: dict[str, Any] = {}
    """Overrides of the model's configuration, such as `input_size: [128, 96]`."""
    skeleton: str | None = None
    """A name or a YAML file; None is the model's own, which is coco17 for all but the whole-body models."""
    pretrained: str | None = None
    """`backbone`: start the backbone from its published ImageNet weights (downloaded once); or a file of a backbone that
    `leanpose convert` has made."""
    init_from: str | None = None
    """Weights to start from: a released name, a .safetensors file, or the folder of a run."""
    strict: bool = True
    """Whether `init_from` must be the same model; otherwise what has the same name and shape is taken, and the rest starts fresh."""
    data: DataSection
    augmentation: AugmentationSection = Field(default_factory=AugmentationSection)
    classification: ClassificationSection | None = None
    """Of classifiers, such as deit_tiny, alone; they in turn take no augmentation, codec, loss, skeleton or auxiliary heatmaps."""
    codec: CodecSection = Field(default_factory=CodecSection)
    loss: Literal["codec", "rle"] = "codec"
    """What meets the labels: the codec's own loss, or for models that predict deviations the residual likelihood."""
    distillation: DistillationSection = Field(default_factory=SupervisedSection)
    auxiliary_heatmap_weight: float = Field(default=0.0, ge=0)
    """Weight of the heatmaps that each layer's visual tokens, or TFPose's encoder, draw while training; 0 has none, as in all
    papers but TFPose's."""
    optimizer: OptimizerSection = Field(default_factory=OptimizerSection)
    schedule: ScheduleSection = Field(default_factory=ScheduleSection)
    validation: ValidationSection = Field(default_factory=ValidationSection)
    batch_size: int = Field(default=512, ge=1)
    """People in one step of the optimiser, over all devices and accumulated parts together."""
    grad_accum_steps: int = Field(default=1, ge=1)
    """Parts that a batch is computed in, one after the other."""
    precision: Literal["fp32", "bf16"] = "bf16"
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay a step of an exponential moving average of the weights, which is then what is validated and saved."""
    seed: int = Field(default=0, ge=0)
    checkpoint_minutes: float = Field(default=5.0, ge=0)
    """The training state is saved this often, and after each epoch."""
    card: CardSection = Field(default_factory=CardSection)

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        if self.batch_size % self.grad_accum_steps:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be accumulated in {self.grad_accum_steps} equal parts"
            )
        if self.pretrained not in (None, "backbone") and not self.pretrained.endswith(".safetensors"):
            raise ValueError(f"pretrained is `backbone` or a .safetensors file of a backbone, not '{self.pretrained}'")
        if self.pretrained and self.init_from:
            raise ValueError("the weights of init_from would replace those of pretrained; set one of the two")
        return self

    def to_yaml(self) -> str:
        """The recipe with every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_recipe(path: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file and apply `key=value` overrides (dotted keys, YAML values, numbers index lists).

    Another `distillation.method=…` starts that section anew, whatever the file says in it; other overrides then add to it.

    Raises:
        LeanposeError: the file is missing or no YAML mapping, or a key or value is not valid.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise LeanposeError(f"Cannot read the recipe {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LeanposeError(f"The recipe {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise LeanposeError(f"The recipe {path} is not a mapping of keys to values.")
    # The method comes first: another one replaces the section, since it has other keys.
    for override in sorted(overrides or [], key=lambda text: not text.startswith("distillation.method=")):
        _apply(values, override)
    return parse_recipe(values, str(path))


def saved_recipe(folder: Path) -> Recipe:
    """The recipe of the run in a folder.

    Raises:
        LeanposeError: there is none.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise LeanposeError(f"There is no run to resume in {folder} (recipe.yaml is missing).")
    return load_recipe(path)


def parse_recipe(values: dict[str, Any], origin: str = "recipe") -> Recipe:
    """Check a recipe's values.

    Raises:
        LeanposeError: the first thing that is wrong, with the nearest valid key where one is unknown.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _one_sentence(error, origin) from error


def _one_sentence(error: ValidationError, origin: str) -> LeanposeError:
    first = error.errors()[0]
    section, location = _walk([str(part) for part in first["loc"]])
    where = ".".join(location) or "the recipe"
    if first["type"] == "extra_forbidden":
        of = f" of the method '{_method_of(section)}'" if "method" in section.model_fields else ""
        return LeanposeError(f"{origin}: unknown key '{where}'{of}; {did_you_mean(location[-1], section.model_fields)}")
    if first["type"] == "missing":
        return LeanposeError(f"{origin}: the key '{where}' is missing.")
    if first["type"] == "union_tag_invalid":
        context = first.get("ctx", {})
        known = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
        return LeanposeError(
            f"{origin}: {where}.method = '{context['tag']}' is unknown; {did_you_mean(context['tag'], known)}"
        )
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict):  # what does not fit is the whole section, which nobody wants printed
        return LeanposeError(f"{origin}: {where} is not valid: {message}.")
    return LeanposeError(f"{origin}: {where} = {first['input']!r} is not valid: {message}.")


def read_setting(text: str, example: str) -> tuple[str, Any]:
    """The key of `key=value`, and its value, which is YAML.

    Raises:
        LeanposeError: it is not of this form; the message shows the example.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise LeanposeError(f"'{text}' is no setting; write key=value, for example {example}.")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise LeanposeError(f"The value of '{text}' is not valid YAML.") from error


def _apply(values: dict[str, Any], override: str) -> None:
    key, value = read_setting(override, "batch_size=64")
    *parents, last = key.split(".")
    node: Any = values
    for part in parents:
        if isinstance(node, list):
            node = node[_index(part, node, override)]
        elif isinstance(node, dict):
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        else:
            raise LeanposeError(f"'{override}': nothing can be set below '{part}'.")
    if key == "distillation.method" and isinstance(node, dict) and node.get("method", "none") != value:
        values["distillation"] = {"method": value}
    elif isinstance(node, list):
        node[_index(last, node, override)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise LeanposeError(f"'{override}': '{'.'.join(parents)}' holds no keys.")


def _index(part: str, node: list[Any], override: str) -> int:
    if not part.isdecimal() or int(part) >= len(node):
        raise LeanposeError(f"'{override}': '{part}' is no index of a list of {len(node)}.")
    return int(part)


def _walk(location: list[str]) -> tuple[type[BaseModel], list[str]]:
    """The section that a mistake is in, and the mistake's place as the user writes it (without the names of methods)."""
    section: type[BaseModel] = Recipe
    written, candidates = [], [section]
    for part in location:
        by_method = {_method_of(c): c for c in candidates if len(candidates) > 1}
        if part in by_method:
            section, candidates = by_method[part], [by_method[part]]
            continue
        written.append(part)
        if part in section.model_fields:
            candidates = _sections_in(section.model_fields[part].annotation) or candidates
            section = candidates[0]
    return section, written


def _method_of(section: type[BaseModel]) -> str:
    return get_args(section.model_fields["method"].annotation)[0]


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field's type names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _sections_in(argument)]
