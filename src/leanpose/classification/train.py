"""Classifiers in the one training loop: a task, its data and its recipe instead of those of poses (SDPose §4.5, Table
9)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from leanpose.classification.data import ClassDataset, ClassFolder, read_class_folder
from leanpose.classification.deit import DeiT
from leanpose.classification.evaluate import evaluate_classes
from leanpose.classification.recipe import ClassificationRecipe, ClassificationSection
from leanpose.errors import LeanposeError
from leanpose.losses.base import sum_of
from leanpose.losses.sdpose import SDPoseSection, token_losses
from leanpose.models.registry import create_model
from leanpose.schema import MethodSection
from leanpose.training.build import load_init_weights, lock_run, require_no_run, write_recipe
from leanpose.training.loop import RunSummary, Trainer, Validation
from leanpose.training.processes import make_fabric
from leanpose.training.sources import weights_of
from leanpose.training.task import Task
from leanpose.weights import describe


class ClassificationTask(Task):
    """Wraps a classifier for training.

    Args:
        model: the student.
        method: plain training, or SDPose's cycles: the class token stands where a pose model has keypoint tokens.
        section: how images and labels are mixed.

    Raises:
        LeanposeError: the method is for pose models, or the model has no cycles.
    """

    model: DeiT  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, model: DeiT, method: MethodSection, section: ClassificationSection) -> None:
        super().__init__()
        if method.method not in ("none", "sdpose"):
            raise LeanposeError(
                f"distillation.method '{method.method}' is for pose models; '{model.name}' takes none or sdpose."
            )
        self.model = model  # pyright: ignore[reportIncompatibleVariableOverride]
        self.method = method
        self.smoothing = section.label_smoothing
        from torchvision.transforms import v2  # takes seconds, and evaluation needs none of it

        kinds, classes = [(v2.MixUp, section.mixup), (v2.CutMix, section.cutmix)], model.config.classes
        mixes = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha]
        # One by chance for each batch; they draw from torch's generator, which the loop seeds for each step.
        self._mix = v2.RandomChoice(mixes) if mixes else None

    def forward(self, images: UInt8[Tensor, "B h w 3"], labels: Int[Tensor, " B"]) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms of the loss of one batch (`ClassBatch.inputs`), on the model's device."""
        mixed, target = self.mix(self.model.normalize(images), labels)
        output = self.model.forward_train(mixed)
        if not isinstance(self.method, SDPoseSection):
            return {"class": cross_entropy(output.logits.float(), target)}
        cycles = output.cycles
        supervised = cycles if self.method.supervise == "all" else cycles[-1:]
        losses = {"class": sum_of(cross_entropy(cycle.logits.float(), target) for cycle in supervised)}
        return losses | token_losses(cycles, self.method)

    def mix(
        self, images: Float[Tensor, "B 3 h w"], labels: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B 3 h w"], Float[Tensor, "B classes"]]:
        """Images as the network sees them, and a distribution over the classes for each: mixed and smoothed."""
        classes = self.model.config.classes
        if self._mix is None:
            target = one_hot(labels, classes).float()
        else:
            images, target = self._mix(images, labels)
        return images, target * (1 - self.smoothing) + self.smoothing / classes

    def get_extra_state(self) -> list[str]:
        """The classes, which a run keeps in addition to its weights."""
        return list(self.model.class_names)

    def set_extra_state(self, state: list[str]) -> None:
        """
        Raises:
            LeanposeError: the resumed run has other classes.
        """
        now = self.model.class_names
        if tuple(state) != now:
            gone, new = sorted(set(state) - set(now)), sorted(set(now) - set(state))
            raise LeanposeError(
                f"The data of the run that is to be resumed has other classes now: {_some(new)} instead of "
                f"{_some(gone)}; restore the old folders, or start a new run."
            )


def _some(classes: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in classes[:3]) + (" …" if len(classes) > 3 else "")


def train_classifier(
    recipe: ClassificationRecipe, folder: Path, *, resume: bool = False, device: str = "auto", quiet: bool = False
) -> RunSummary:
    """Run a classifier's recipe; see `leanpose.training.train.train`.

    Raises:
        LeanposeError: something does not fit; the sentence says what.
    """
    with lock_run(folder):
        return _train_locked(recipe, folder, resume=resume, device=device, quiet=quiet)


def _train_locked(recipe: ClassificationRecipe, folder: Path, *, resume: bool, device: str, quiet: bool) -> RunSummary:
    if not resume:
        require_no_run(folder)
    fabric = make_fabric(recipe, device)
    images, val = read_images(recipe)
    options = {**recipe.model_options, "classes": len(images.classes)}
    recipe = recipe.model_copy(update={"model_options": options})  # to be written out
    model = build_classifier(recipe, images.classes, fresh=resume)
    section = recipe.classification
    varied = section if section.enabled else None
    dataset = ClassDataset(images, model.input_size, section=varied, seed=recipe.seed, replace_broken=True)
    write_recipe(recipe, folder, fabric, resume=resume)
    task = ClassificationTask(model.train(), recipe.distillation, section)

    def measure(trained: Any) -> dict[str, float]:
        assert val is not None
        batch_size = max(recipe.batch_size // recipe.grad_accum_steps, 32)
        how: Any = {
            "num_workers": recipe.data.num_workers,
            "cycle": recipe.validation.cycle,
            "precision": recipe.precision,
        }
        return evaluate_classes(trained, val, batch_size=batch_size, **how).metrics

    validation = None if val is None else Validation(val.path.name or str(val.path), measure)
    return Trainer(recipe, folder, task, dataset, fabric, validation=validation, resume=resume, quiet=quiet).run()


def read_images(recipe: ClassificationRecipe) -> tuple[ClassFolder, ClassFolder | None]:
    """The images to train on, and those to evaluate on, whose classes are among the former's.

    Raises:
        LeanposeError: a folder cannot be read, or there are other classes than `model_options.classes` says.
    """

    root, (config,), val = recipe.data.root, recipe.data.train, recipe.data.val
    train = read_class_folder(root / config.images, None, config.split)
    expected = recipe.model_options.get("classes", len(train.classes))
    if expected != len(train.classes):
        raise LeanposeError(
            f"{train.path} contains {len(train.classes)} classes, but model_options.classes is {expected}; remove it, "
            f"or correct the folder."
        )
    return train, None if val is None else read_class_folder(root / val.images, train.classes, val.split)


def build_classifier(recipe: ClassificationRecipe, classes: tuple[str, ...], *, fresh: bool = False) -> DeiT:
    """The recipe's classifier, made from the recipe's seed or loaded from `init_from` (unless `fresh`).

    Raises:
        LeanposeError: an option is unknown, or `init_from` holds another model or one of other classes.
    """
    torch.manual_seed(recipe.seed)
    model: Any = create_model(recipe.model, **recipe.model_options)
    if not isinstance(model, DeiT):
        raise LeanposeError(f"'{recipe.model}' is a pose model; 'classification' is for classifiers such as deit_tiny.")
    model.class_names = classes
    if recipe.init_from is not None and not fresh:
        known = tuple(describe(weights_of(recipe.init_from)).get("classes", ()))
        if recipe.strict and known and known != classes:
            raise LeanposeError(
                f"{recipe.init_from} has {len(known)} other classes ({', '.join(known[:3])} …) than the {len(classes)} "
                "of the data; set strict=false to load all but the last layer."
            )
        last = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("network.head.")}
        load_init_weights(model, recipe)
        if known != classes:
            model.load_state_dict(last, strict=False)
    return model
