"""Classifiers in the one training loop: a task, its data and its recipe's rules, in place of those of poses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from leanpose.data.classes import ClassAugmentation, ClassDataset, ClassFolder, read_class_folder
from leanpose.data.readers import DatasetConfig
from leanpose.errors import LeanposeError
from leanpose.evaluation.classes import evaluate_classes
from leanpose.losses import SDPoseLoss, Supervised
from leanpose.models.base import ImageModel
from leanpose.models.classifier import Classifier
from leanpose.models.registry import create_model
from leanpose.training.loop import RunSummary, Trainer, Validation, make_fabric
from leanpose.training.recipe import (
    ClassificationSection,
    Recipe,
    SDPoseSection,
    SupervisedSection,
    ValidationSection,
)
from leanpose.training.run import require_no_run, start_from, weights_of, write_recipe
from leanpose.training.task import Task
from leanpose.weights import describe

ClassDistillation = Supervised | SDPoseLoss

TERM = "class"
"""What the loss against the labels is called in logs."""

_OF_POSES = ("skeleton", "augmentation", "codec", "loss", "auxiliary_heatmap_weight", "pretrained")
_OF_POSES_MEASURED = ("flip_test", "scoring", "nms", "metric")


class CrossEntropy:
    """The objective of classifiers, against one distribution over the classes a picture."""

    def loss(self, prediction: Float[Tensor, "B classes"], target: Float[Tensor, "B classes"]) -> Float[Tensor, ""]:
        return F.cross_entropy(prediction.float(), target)


class ClassificationTask(Task[Classifier]):
    """Wraps a classifier for training.

    Args:
        model: the student.
        distillation: what it learns from.
        section: how pictures and labels are mixed.
    """

    def __init__(self, model: Classifier, distillation: ClassDistillation, section: ClassificationSection) -> None:
        super().__init__()
        self.model = model
        self.distillation = distillation
        self.smoothing = section.label_smoothing
        self._mix = _mixing(section, model.config.classes)

    def forward(self, images: UInt8[Tensor, "B h w 3"], labels: Int[Tensor, " B"]) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms of the loss of one batch (`ClassBatch.inputs`), on the model's device."""
        model, classes = self.model, self.model.config.classes
        pictures = model.normalise(images)
        if self._mix is None:
            target = F.one_hot(labels, classes).float()
        else:
            pictures, target = self._mix(pictures, labels)
        target = target * (1 - self.smoothing) + self.smoothing / classes
        return self.distillation.losses(model.forward_train(pictures), None, target)

    def get_extra_state(self) -> list[str]:
        """The classes, which a run keeps beside its weights."""
        return list(self.model.class_names)

    def set_extra_state(self, state: list[str]) -> None:
        """
        Raises:
            LeanposeError: the run that goes on tells other classes apart.
        """
        if tuple(state) != self.model.class_names:
            gone, new = (
                sorted(set(a) - set(b)) for a, b in ((state, self.model.class_names), (self.model.class_names, state))
            )
            raise LeanposeError(
                f"The data of the run that is to go on has other classes now: {_some(new)} in place of {_some(gone)}; put the "
                "old folders back, or start a new run."
            )


def _some(classes: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in classes[:3]) + (" …" if len(classes) > 3 else "")


def _mixing(section: ClassificationSection, classes: int) -> Any:
    """Mixup, CutMix, either by turns, or nothing; they draw from torch's generator, which the loop seeds for each step."""
    from torchvision.transforms import v2

    kinds = [(v2.MixUp, section.mixup), (v2.CutMix, section.cutmix)]
    mixes = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha]
    return v2.RandomChoice(mixes) if mixes else None


def train_classifier(recipe: Recipe, folder: Path, *, resume: bool, device: str, quiet: bool) -> RunSummary:
    """Run a classifier's recipe; see `leanpose.training.run.train`."""
    require_classification(recipe)
    if not resume:
        require_no_run(folder)
    fabric = make_fabric(recipe, device)
    pictures, val = read_pictures(recipe)
    options = {**recipe.model_options, "classes": len(pictures.classes)}
    recipe = recipe.model_copy(update={"model_options": options})  # to be written out
    model = build_classifier(recipe, pictures.classes, fresh=resume)
    section = recipe.classification or ClassificationSection()
    vary = section.model_dump(include={"area", "aspect", "flip_probability", "policy", "erasing_probability"})
    augmentation = ClassAugmentation(**vary) if section.enabled else None
    dataset = ClassDataset(pictures, model.input_size, augmentation=augmentation, seed=recipe.seed)
    write_recipe(recipe, folder, fabric, resume=resume)
    task = ClassificationTask(model.train(), build_distillation(recipe, model), section)
    validation = None if val is None else Validation(val.name, lambda measured: _measure(recipe, measured, val))
    return Trainer(recipe, folder, task, dataset, fabric, validation=validation, resume=resume, quiet=quiet).run()


def _measure(recipe: Recipe, model: Classifier, folder: ClassFolder) -> dict[str, float]:
    return evaluate_classes(
        model,
        folder,
        batch_size=max(recipe.batch_size // recipe.grad_accum_steps, 32),
        workers=recipe.data.num_workers,
        cycle=recipe.validation.cycle,
        precision=recipe.precision,
    ).metrics


def require_classification(recipe: Recipe) -> None:
    """See that a classifier's recipe asks for nothing that only poses have.

    Raises:
        LeanposeError: a key or a data set is of poses.
    """
    for key in _OF_POSES:
        if getattr(recipe, key) != Recipe.model_fields[key].get_default(call_default_factory=True):
            raise LeanposeError(
                f"'{recipe.model}' tells classes apart; the recipe's '{key}' is for models that find poses."
            )
    for key in _OF_POSES_MEASURED:
        if getattr(recipe.validation, key) != ValidationSection.model_fields[key].default:
            raise LeanposeError(
                f"'{recipe.model}' tells classes apart; the recipe's 'validation.{key}' is for models that find poses."
            )
    for source in (*recipe.data.train, *([recipe.data.val] if recipe.data.val else [])):
        if source.format != "image_folder":
            raise LeanposeError(
                f"'{recipe.model}' tells classes apart, so its data sets are of the format image_folder, not '{source.format}'."
            )
    if len(recipe.data.train) != 1:
        raise LeanposeError(f"'{recipe.model}' trains on one folder of classes, not on {len(recipe.data.train)}.")


def read_pictures(recipe: Recipe) -> tuple[ClassFolder, ClassFolder | None]:
    """The pictures to train on, and those to measure on, whose classes are among the former's.

    Raises:
        LeanposeError: a folder cannot be read, or there are other classes than `model_options.classes` says.
    """
    root, val = recipe.data.root, recipe.data.val
    train = _folder(recipe.data.train[0], root)
    wanted = recipe.model_options.get("classes", len(train.classes))
    if wanted != len(train.classes):
        raise LeanposeError(
            f"{train.path} holds {len(train.classes)} classes, but model_options.classes is {wanted}; leave it out, or mend the "
            f"folder."
        )
    return train, None if val is None else _folder(val, root, train.classes)


def _folder(source: DatasetConfig, root: Path, classes: tuple[str, ...] | None = None) -> ClassFolder:
    assert source.images is not None
    return read_class_folder(root / source.images, classes, source.split)


def build_classifier(recipe: Recipe, classes: tuple[str, ...], *, fresh: bool = False) -> Classifier:
    """The recipe's classifier, made from the recipe's seed or loaded from `init_from` (unless `fresh`).

    Raises:
        LeanposeError: an option is unknown, or `init_from` holds another model or one of other classes.
    """
    torch.manual_seed(recipe.seed)
    model: ImageModel = create_model(recipe.model, **recipe.model_options)
    assert isinstance(model, Classifier)
    model.class_names = classes
    if recipe.init_from is not None and not fresh:
        file = weights_of(recipe.init_from)
        known = tuple(describe(file).get("classes", ()))
        if recipe.strict and known and known != classes:
            raise LeanposeError(
                f"{recipe.init_from} tells {len(known)} other classes apart ({', '.join(known[:3])} …) than the {len(classes)} of the data; set "
                f"strict=false to take all but the last layer."
            )
        last = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("network.head.")}
        start_from(model, recipe)
        if known != classes:
            model.load_state_dict(last, strict=False)
    return model


def build_distillation(recipe: Recipe, model: Classifier) -> ClassDistillation:
    """What the recipe teaches a classifier by.

    Raises:
        LeanposeError: it cannot be taught so.
    """
    section = recipe.distillation
    if isinstance(section, SupervisedSection):
        return Supervised(CrossEntropy(), TERM)
    if isinstance(section, SDPoseSection) and hasattr(model.config, "cycles"):
        return SDPoseLoss(CrossEntropy(), **section.model_dump(exclude={"method"}), term=TERM)
    raise LeanposeError(
        f"distillation.method '{section.method}' teaches models that find poses; '{model.name}' takes none or cycles."
    )
