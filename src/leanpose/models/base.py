"""Base classes of all models and of pose models, and the output of pose models."""

from __future__ import annotations

import importlib
import math
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypedDict, get_args

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Self, Unpack

from leanpose.codecs import Codec, Prediction, build_codec
from leanpose.device import device_constant
from leanpose.errors import LeanposeError
from leanpose.models import WEIGHTS
from leanpose.models.backbones import MEAN, STD, Backbone
from leanpose.models.backbones.base import read_backbone
from leanpose.skeleton import Skeleton

Provision = Literal["tokens", "cycles", "features", "layers", "heatmap_sigma", "rle_sigma", "score"]
"""Outputs of a model's `forward_train` for losses, in addition to the prediction:

* `tokens`: keypoint tokens and visual tokens.
* `cycles`: the output of every pass through the same layers (SDPose).
* `features`: the backbone's features.
* `layers`: the prediction of every layer, in `aux_outputs`.
* `heatmap_sigma`, `rle_sigma`: predicted sigma in addition to the coordinates: of the simulated heatmap in pixels of
  the teacher's heatmap (DistilPose), or of the RLE distribution as a fraction of the crop.
* `score`: predicted confidence in addition to the coordinates.
"""


AttentionKind = Literal["keypoint_tokens", "decoder", "dependency_areas"]
"""What of a model's attention `leanpose.explanation` shows.

* `keypoint_tokens`: of keypoint tokens in `layers` of `TransformerLayer` (TokenPose).
* `decoder`: what `forward_train` records of each decoder layer (TFPose).
* `dependency_areas`: the method of that name (TransPose).
"""


@dataclass(frozen=True)
class PoseOutput:
    """The output of a forward pass.

    Attributes:
        prediction: the keypoints, to be decoded by the model's codec.
        keypoint_tokens: (B, K, D) after the last layer; None if the model has no tokens.
        visual_tokens: (B, N, D) after the last layer, of all patches row by row, or only of those in `keep_indices`;
            None if the model has no tokens.
        features: (B, C, H, W) of the backbone, if a method compares them.
        keep_indices: (B, M) indices of the patches of `visual_tokens`, ascending, if the model has pruned the others
            (PPT); None if it has all.
        feature_maps: only from `forward_train`: spatial feature maps of the intermediate transformer layers, (B, D,
            rows, columns) each, for the auxiliary heatmap loss; empty if the model has none.
        cycles: only from `forward_train`: the outputs of all cycles, in order; `prediction` and tokens of this object
            are then those of the first cycle.
        aux_outputs: only from `forward_train`, for models with deep supervision (TFPose, Hourglass): the predictions of
            all layers, the last one last; empty for the others.
    """

    prediction: Prediction
    keypoint_tokens: Float[Tensor, "B K D"] | None = None
    visual_tokens: Float[Tensor, "B N D"] | None = None
    features: Float[Tensor, "B C Hf Wf"] | None = None
    keep_indices: Int[Tensor, "B M"] | None = None
    feature_maps: tuple[Float[Tensor, "B D rows columns"], ...] = ()
    cycles: tuple[PoseOutput, ...] = ()
    aux_outputs: tuple[Prediction, ...] = ()


# So that torch.export can take a result apart into its tensors.
for _form in (*get_args(Prediction), PoseOutput):
    torch.export.register_dataclass(_form, serialized_type_name=f"leanpose.{_form.__name__}")


Rate = Annotated[float, Field(ge=0, lt=1)]
"""Dropout probability."""


OfficialNames = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]


def renamed(key: str, rules: OfficialNames) -> str:
    """The name that the rules make of an official one."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def require(condition: object, message: str) -> None:
    """Refuse a configuration.

    Raises:
        LeanposeError: the condition does not hold.
    """
    if not condition:
        raise LeanposeError(f"{message}.")


def require_divisible(config: Any, name: str, by: str) -> None:
    """Check that one field of a configuration is a multiple of another.

    Raises:
        LeanposeError: it is not.
    """
    value, divisor = getattr(config, name), getattr(config, by)
    require(value % divisor == 0, f"{name}={value} is not divisible by {by}={divisor}")


@dataclass(frozen=True)
class Provenance:
    """The metadata of a weight file.

    Attributes:
        training_data: the data sets used for training.
        licence: licence of the weights, or the terms that follow from the data.
        metrics: evaluation results by name.
        notes: other information for users.
        sha256: digest of the weights described (`leanpose.weights.storage.weights_digest`); further training changes
            them.
    """

    training_data: tuple[str, ...]
    licence: str
    metrics: Mapping[str, Any]
    notes: str
    sha256: str


class CardStatement(TypedDict, total=False):
    """What a user states of published weights; see `leanpose.weights.save_model`."""

    training_data: Sequence[str]
    licence: str
    metrics: Mapping[str, float]
    notes: str
    dtype: torch.dtype


class ImageModel(nn.Module):
    """A named network for images of one size.

    Attributes:
        task: `pose` or `classification`.
        name: the variant it was created as.
        config: its configuration, a frozen dataclass.
        input_size: height and width of the images, in pixels.
        mean, std: what to subtract from and divide by, per RGB channel on a 0..1 scale.
        num_cycles: number of passes through its layers in training (SDPose).
        official_names: regular expressions of the original code's parameter names, and what takes their place here, one
            after the other; where that is not enough, `official_name` is overridden.
        provenance: the metadata of the file from which the weights were loaded; None if randomly initialised.
    """

    provenance: Provenance | None = None
    task: Literal["pose", "classification"]
    num_cycles: int = 1
    official_names: ClassVar[OfficialNames] = ()
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    def __init__(self, name: str, config: Any) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self.input_size: tuple[int, int] = config.input_size

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return next(self.parameters()).device

    @classmethod
    @abstractmethod
    def build(cls, name: str, config: Any, skeleton: Skeleton | None, pretrained: str | Path | Literal[False]) -> Self:
        """A randomly initialised network of a named variant; see `leanpose.create_model`.

        Args:
            skeleton: the keypoints of a pose model; None if not requested.

        Raises:
            LeanposeError: this kind of network has no such option, or the backbone's weights are not available.
        """

    @abstractmethod
    def card_fields(self) -> dict[str, Any]:
        """Fields of a weight file's card for this network, in addition to its configuration, in plain values."""

    @abstractmethod
    def read_card(self, card: Mapping[str, Any]) -> None:
        """Restore what `card_fields` wrote."""

    def official_name(self, key: str) -> str | None:
        """The name here of a parameter of the original code; None for a parameter that is not used."""
        if not self.official_names:
            raise LeanposeError(f"There is no conversion of official weights for '{self.name}'.")
        return renamed(key, self.official_names)

    def official_hint(self, name: str, value: Tensor) -> str:
        """How to create the model so that it fits an official tensor of another shape than its parameter `name`, as the
        end of an error message; empty if no single setting determines it."""
        return ""

    def adapt_official(self, weights: dict[str, Tensor], official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The official weights by their names here, changed where the original code computes with them otherwise.

        Args:
            weights: by their names here.
            official: the same by their official names.
        """
        return weights

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Called before each epoch (0-based), for schedules inside the network; usually a no-op."""

    def require_size(self, images: Float[Tensor, "B 3 H W"]) -> None:
        """Check the image size, for networks made for one size.

        Raises:
            LeanposeError: the images are not of this model's size.
        """
        if tuple(images.shape[1:]) != (3, *self.input_size):
            h, w = self.input_size
            raise LeanposeError(
                f"'{self.name}' takes images of shape (batch, 3, {h}, {w}), not {tuple(images.shape)}; "
                "build it with another input_size to change that."
            )

    def normalize(self, images: Tensor) -> Float[Tensor, "B 3 H W"]:
        """RGB crops, (B, H, W, 3) uint8, as `forward` expects them: float, channels first, normalized.

        The result keeps the input's channels-last memory format, which is fastest for convolutions.
        """
        scale = device_constant([[[255 * s]] for s in self.std], images.device)
        shift = device_constant([[[255 * m]] for m in self.mean], images.device)
        # In this order an exported file takes the bytes apart by channel, and computes over whole planes.
        return (images.permute(0, 3, 1, 2) - shift) / scale


class PoseModel(ImageModel):
    """A network from a batch of person crops to a `PoseOutput`.

    Attributes:
        skeleton: the keypoints that it predicts.
        backbone: the feature extractor.
        codec: decodes its prediction and encodes its targets; may be replaced.
        feature_map_shape: channels, rows and columns of the maps in `PoseOutput.feature_maps`; None if the model has
            none.
        feature_map_area: height and width in pixels that these maps cover, from the crop's upper left corner.
        pools_features: whether the head global-average-pools the features.
        separable_head: whether `forward_head` predicts from the backbone's features alone.
        token_dim: channels of its keypoint tokens; None if it has none.
        attention_kind: what of its attention can be shown; None: nothing.
    """

    backbone: Backbone
    codec: Codec
    pools_features: ClassVar[bool] = False
    separable_head: ClassVar[bool] = False
    attention_kind: ClassVar[AttentionKind | None] = None
    token_dim: int | None = None
    feature_map_shape: tuple[int, int, int] | None = None
    task = "pose"

    def __init__(self, name: str, config: Any, skeleton: Skeleton) -> None:
        super().__init__(name, config)
        self.skeleton = skeleton
        self.feature_map_area: tuple[int, int] = self.input_size

    @classmethod
    def build(cls, name: str, config: Any, skeleton: Skeleton | None, pretrained: str | Path | Literal[False]) -> Self:
        assert skeleton is not None, "create_model gives every pose model its skeleton"
        model = cls(name, config, skeleton).eval()
        if pretrained:
            model.load_backbone(None if pretrained == "backbone" else Path(pretrained))
        return model

    def card_fields(self) -> dict[str, Any]:
        return {"skeleton": self.skeleton.to_dict(), "codec": self.codec.to_dict()}

    def read_card(self, card: Mapping[str, Any]) -> None:
        self.codec = build_codec(card["codec"])

    @property
    def provides(self) -> frozenset[Provision]:
        """Outputs of `forward_train` for losses, in addition to the prediction."""
        return frozenset({"features"})

    @property
    def transformer_layers(self) -> Sequence[nn.Module]:
        """The layers of its transformer, whose weights are compared; empty if it has none."""
        return ()

    def require_divisible_input(self, vertical: int = 1, horizontal: int = 1) -> None:
        """Check that the input size suits the backbone, so that each feature covers `stride` pixels.

        Args:
            vertical, horizontal: additional divisors of the input height and width, in pixels.

        Raises:
            LeanposeError: the size does not fit.
        """
        (h, w), unit = self.input_size, math.lcm(self.backbone.stride, self.backbone.size_divisor)
        vertical, horizontal = math.lcm(unit, vertical), math.lcm(unit, horizontal)
        require(
            min(h, w) >= 1 and h % vertical == 0 and w % horizontal == 0,
            f"input_size {h}x{w} (height x width) does not fit '{self.name}': the height must be a multiple of "
            f"{vertical}, the width of {horizontal}",
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        """The prediction for normalized RGB crops, computing only what the paper needs at inference.

        Raises:
            LeanposeError: the images are not of this model's size.
        """
        return self.forward_head(self.forward_features(images))

    def forward_train(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        """Like `forward`, with all outputs that the paper's losses need."""
        return self.forward(images)

    def forward_features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C Hf Wf"]:
        """The backbone's features.

        Raises:
            LeanposeError: the images are not of this model's size.
        """
        self.require_size(images)
        return self.backbone(images)

    def forward_head(self, features: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        """The head's part of `forward`: the prediction from the backbone's features.

        Raises:
            LeanposeError: the head needs more than the backbone's features.
        """
        raise LeanposeError(f"'{self.name}' has no head that can be separated from its backbone.")

    def forward_trunk(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C Hf Wf"], tuple[Prediction, ...]]:
        """The trunk that branches of this model share (OKDHP), usually the backbone, and the predictions within it.

        Raises:
            LeanposeError: the images are not of this model's size.
        """
        return self.forward_features(images), ()

    def forward_branch(self, trunk: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        """The rest of the model, from the trunk's features.

        Raises:
            LeanposeError: the rest needs more than these.
        """
        return self.forward_head(trunk)

    def fresh_branch(self) -> Self:
        """A randomly initialised copy of the rest of the model; only its `forward_branch` can be called."""
        branch = type(self)(self.name, self.config, self.skeleton)
        branch.codec = self.codec
        del branch.backbone
        return branch

    def load_backbone(self, file: Path | None = None) -> None:
        """Initialise the backbone from its published ImageNet weights, or from a file written by `leanpose convert
        --backbone`.

        Raises:
            LeanposeError: this backbone has no published weights, they cannot be downloaded, or the file does not fit.
        """
        backbone = self.backbone
        if file is None:
            backbone.load_imagenet()
            return
        tensors = read_backbone(file, backbone.variant)
        learnt = {name for name, _ in backbone.named_parameters()}
        if missing := sorted(learnt - tensors.keys()):
            raise LeanposeError(f"{file} does not match the backbone of '{self.name}': it lacks '{missing[0]}'.")
        backbone.load_matching(tensors)

    def save_pretrained(
        self,
        folder: Path | str,
        **stated: Unpack[CardStatement],
    ) -> None:
        """Write `model.safetensors` and a `README.md` generated from its card to a folder, for `from_pretrained`; both
        are replaced.

        Values that are not given are taken from the file from which this model was loaded; new or changed weights need
        the first three.

        Args:
            stated: `training_data`, `licence`, `metrics`, `notes` and `dtype`; see `leanpose.weights.save_model`.

        Raises:
            LeanposeError: a value is missing, the licence is empty, or the folder cannot be written.
        """
        importlib.import_module(WEIGHTS).save_pretrained(self, folder, **stated)

    def push_to_hub(
        self,
        repository: str,
        *,
        commit_message: str = "Upload model",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        **stated: Unpack[CardStatement],
    ) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face hub, in one commit; a missing repository is created.

        Args:
            repository: `USER/NAME`.
            commit_message: message of the commit.
            private: whether a new repository is private; None: the account's default.
            token: access token; None: the one stored by `hf auth login` or in `HF_TOKEN`.
            branch: an existing branch; None: main.
            stated: `training_data`, `licence`, `metrics`, `notes` and `dtype`; see `save_pretrained`.

        Returns:
            The URL of the commit, which ends with its id, a revision for `from_pretrained`.

        Raises:
            LeanposeError: as `save_pretrained`, or the hub cannot be reached or rejects it.
        """
        return importlib.import_module(WEIGHTS).push_to_hub(
            self, repository, commit_message=commit_message, private=private, token=token, branch=branch, **stated
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
    ) -> Self:
        """The model of a repository on the Hugging Face hub, or of a folder written by `save_pretrained`.

        Only `model.safetensors` is read; it must be a leanpose file.

        Args:
            name_or_folder: `USER/NAME`, or the folder.
            revision: a branch, a tag or a commit; None: the newest of the main branch.
            token: see `push_to_hub`; False: none.
            cache_dir: folder for downloads, instead of huggingface_hub's cache.

        Raises:
            LeanposeError: as `leanpose.load_model`, or it is another kind of model than this class.
        """
        model = importlib.import_module(WEIGHTS).load_pretrained(
            name_or_folder, revision=revision, token=token, cache_dir=cache_dir
        )
        if not isinstance(model, cls):
            raise LeanposeError(
                f"{name_or_folder} contains '{model.name}', a {type(model).__name__}, not a {cls.__name__}."
            )
        return model
