"""From a recipe to a finished run: builds what the recipe names, and refuses what does not fit, before the first batch."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from leanpose.codecs import Codec, HeatmapCodec, SimCCCodec, build_codec
from leanpose.data.annotations import PoseDataset
from leanpose.data.augmentation import Augmentation, PhotometricAugmentation
from leanpose.data.cache import CropPlan, cached_crops
from leanpose.data.dataset import TopDownDataset
from leanpose.data.readers import read_people
from leanpose.errors import LeanposeError
from leanpose.evaluation.evaluate import evaluate
from leanpose.evaluation.pckh import require_mpii
from leanpose.evaluation.wholebody_ap import require_parts
from leanpose.files import atomic_write
from leanpose.losses.base import require_fit
from leanpose.models.base import ImageModel, PoseModel
from leanpose.models.registry import create_model, model_entry, skeleton_of
from leanpose.training.checkpoint import STATE_FILE
from leanpose.training.loop import RunSummary, Trainer, Validation, finished_run, make_fabric
from leanpose.training.recipe import (
    AugmentationSection,
    CodecSection,
    DistilPoseSection,
    DWPoseSection,
    DWPoseStage2Section,
    Recipe,
    TeacherSection,
    saved_recipe,
)
from leanpose.training.task import build_task
from leanpose.training.teacher import Teacher
from leanpose.training.teacher_cache import TeacherCache
from leanpose.weights import describe, load_model, load_weights
from leanpose.weights.storage import load_network


def weights_of(name: str) -> Path | str:
    """Which weights a recipe means: a released name or a file as it is, a run's folder by its best weights (or else its last).

    Raises:
        LeanposeError: the folder holds no weights.
    """
    folder = Path(name)
    try:
        if not folder.is_dir():
            return name
    except OSError as error:
        raise LeanposeError(f"'{name[:40]}…' cannot be the name of a file ({error.strerror}).") from error
    for file in ("best.safetensors", "last.safetensors"):
        if (folder / file).exists():
            return folder / file
    raise LeanposeError(f"The folder {folder} holds no weights of a run (best.safetensors is missing).")


def build_model(recipe: Recipe) -> PoseModel:
    """The recipe's model with its codec, made from the recipe's seed or loaded from `init_from`.

    Raises:
        LeanposeError: the model or an option is unknown, `init_from` holds another model, or the backbone has no published
            weights or they cannot be downloaded.
    """
    torch.manual_seed(recipe.seed)
    model = create_model(
        recipe.model,
        skeleton=recipe.skeleton,
        pretrained=recipe.pretrained or False,
        **recipe.model_options,
    )
    model.codec = _change_codec(model, recipe.codec)
    if recipe.init_from is not None:
        start_from(model, recipe)
    return model


def _change_codec(model: PoseModel, section: CodecSection) -> Codec:
    """The model's codec with a recipe's settings.

    Raises:
        LeanposeError: the model's codec has no such setting.
    """
    settings, codec = section.model_dump(exclude_none=True), model.codec
    known = _codec_settings(codec)
    for key in settings:
        if key not in known:
            it_has = f"it has {', '.join(known)}" if known else "it has no settings"
            raise LeanposeError(
                f"codec.{key} does not fit '{model.name}', whose codec is '{codec.to_dict()['name']}'; {it_has}."
            )
    sigma = settings.get("sigma")
    if isinstance(codec, SimCCCodec) and isinstance(sigma, float):
        settings["sigma"] = (sigma, sigma)
    if isinstance(codec, HeatmapCodec) and isinstance(sigma, tuple):
        raise LeanposeError(f"codec.sigma is one number for heatmaps, not {sigma[0]:g} and {sigma[1]:g}.")
    return build_codec({**codec.to_dict(), **settings})


def _codec_settings(codec: Codec) -> dict[str, Any]:
    """The settings of a codec that a recipe can change."""
    return {key: value for key, value in codec.to_dict().items() if key in CodecSection.model_fields}


def start_from(model: ImageModel, recipe: Recipe) -> None:
    """Put the weights of `init_from` into a model, all of them or those that fit."""
    assert recipe.init_from is not None
    file = weights_of(recipe.init_from)
    if recipe.strict:
        load_weights(model, file)
        return
    fresh = model.state_dict()
    start = load_network(file)
    fitting = {k: v for k, v in start.state_dict().items() if k in fresh and fresh[k].shape == v.shape}
    if not fitting.keys() & dict(model.named_parameters()).keys():
        raise LeanposeError(f"Nothing in {recipe.init_from}, a '{start.name}', fits the recipe's '{recipe.model}'.")
    model.load_state_dict(fitting, strict=False)


def read_training_people(recipe: Recipe) -> tuple[PoseDataset, PoseDataset | None]:
    """The people to train on (all sets together, each as often as it says), and those to measure on.

    Raises:
        LeanposeError: a set cannot be read, or there is nobody to train on.
    """
    skeleton, root = skeleton_of(recipe.model, recipe.skeleton), recipe.data.root
    sets = [read_people(source, skeleton, root, training=True) for source in recipe.data.train]
    people = [person for part in sets for person in part.people]
    if not people:
        raise LeanposeError("The recipe's data.train holds nobody to train on.")
    train = PoseDataset(" + ".join(part.name for part in sets), people)
    return train, read_validation_people(recipe)


def read_validation_people(recipe: Recipe) -> PoseDataset | None:
    """Those to measure on, where the recipe names any.

    Raises:
        LeanposeError: the set cannot be read.
    """
    if recipe.data.val is None:
        return None
    skeleton = skeleton_of(recipe.model, recipe.skeleton)
    if recipe.validation.metric == "wholebody":
        require_parts(skeleton)
    if recipe.validation.metric == "mpii":
        require_mpii(skeleton)
        if recipe.data.val.format != "mpii":
            raise LeanposeError(
                "validation.metric=mpii measures in head sizes, which a data.val of format mpii alone has."
            )
    return read_people(recipe.data.val, skeleton, recipe.data.root, training=False)


def measure(recipe: Recipe, model: PoseModel, people: PoseDataset) -> dict[str, float]:
    """The metrics of a model in eval mode, measured as a recipe says."""
    section = recipe.validation
    return evaluate(
        model,
        people,
        batch_size=max(recipe.batch_size // recipe.grad_accum_steps, 32),
        workers=recipe.data.num_workers,
        flip_test=section.flip_test,
        cycle=section.cycle,
        scoring=section.scoring,
        nms=section.nms,
        metric=section.metric,
        precision=recipe.precision,
    ).metrics


def build_teacher(recipe: Recipe, student: PoseModel, dataset: TopDownDataset) -> Teacher | None:
    """The recipe's teacher, ready to look at the crops of `dataset`; None where the recipe needs none.

    Raises:
        LeanposeError: it is missing, damaged or does not fit the student, or its cache is another teacher's.
    """
    section = recipe.distillation
    if not isinstance(section, TeacherSection):
        return None
    file = weights_of(section.teacher)
    model = load_model(file)
    require_fit(student, model)
    if isinstance(section, DistilPoseSection):
        kind, outputs, such_as = (
            HeatmapCodec,
            "heatmaps",
            "a heatmap teacher, such as a tokenpose or simplebaseline model",
        )
    else:
        kind, outputs, such_as = SimCCCodec, "SimCC bins", "a SimCC teacher, such as an rtmpose or simcc model"
    if not isinstance(model.codec, kind):
        raise LeanposeError(
            f"The teacher's codec does not fit: '{model.name}' does not predict {outputs}, which {section.method} "
            f"compares with; choose {such_as}."
        )
    if model.codec.warp != student.codec.warp:
        raise LeanposeError(
            f"The teacher's codec does not fit: '{model.name}' was trained on crops of the '{model.codec.warp}' warp, the "
            f"student's are '{student.codec.warp}'; choose a teacher with codec.encoding "
            f"{'unbiased or msra' if student.codec.warp == 'msra' else 'udp'}."
        )
    if isinstance(section, DWPoseStage2Section):
        _take_over_backbone(student, model)
    card = describe(file)
    shown = json.dumps([card[field] for field in ("config", "mean", "std", "sha256")])
    identity = f"{model.name} {hashlib.sha256(shown.encode()).hexdigest()[:12]}"
    teacher = Teacher(model, identity=identity, bf16=recipe.precision == "bf16", compiled=section.compile_teacher)
    if section.teacher_cache is not None:
        plan = {
            "teacher": identity,
            "precision": recipe.precision,
            "compiled": section.compile_teacher,
            "seed": recipe.seed,
            "augmentation": recipe.augmentation.model_dump(),
            "crops": dataset.fingerprint(),
        }
        example = teacher.dry_run()
        teacher.cache = TeacherCache(
            section.teacher_cache, plan, example, people=len(dataset), epochs=recipe.schedule.epochs
        )
    return teacher


def _take_over_backbone(student: PoseModel, trained: PoseModel) -> None:
    """Give a fresh model the backbone of a trained one, frozen; its head stays as it is.

    Raises:
        LeanposeError: the two are not the same network, or are not made of a backbone and a head.
    """
    if (student.name, student.config) != (trained.name, trained.config):
        raise LeanposeError(
            f"dwpose_stage2 gives a trained model a new head, so model and model_options must be the teacher's: it is "
            f"'{trained.name}' with {trained.config}, the recipe's is '{student.name}' with {student.config}."
        )
    backbone, trained_backbone = getattr(student, "backbone", None), getattr(trained, "backbone", None)
    if not isinstance(backbone, nn.Module) or not isinstance(trained_backbone, nn.Module):
        raise LeanposeError(f"'{student.name}' is not made of a backbone and a head that could be trained apart.")
    backbone.load_state_dict(trained_backbone.state_dict())
    backbone.requires_grad_(False)


def train(
    recipe: Recipe, folder: Path, *, resume: bool = False, device: str = "auto", quiet: bool = False
) -> RunSummary:
    """Run a recipe in a folder, from the start or on from where it was stopped.

    Args:
        recipe: with `resume` it must be the recipe of the saved run.
        folder: made if missing; a folder with another run in it is refused unless `resume`.

    Raises:
        LeanposeError: something does not fit; the sentence says what.
    """
    if model_entry(recipe.model).task == "classification":
        from leanpose.training.classification import train_classifier

        return train_classifier(recipe, folder, resume=resume, device=device, quiet=quiet)
    if recipe.classification is not None:
        raise LeanposeError(
            f"'{recipe.model}' finds poses; the recipe's 'classification' is for classifiers such as deit_tiny."
        )
    section = recipe.distillation
    if isinstance(section, DWPoseSection) and section.stage2:
        return _train_both_stages(recipe, folder, resume=resume, device=device, quiet=quiet)
    return _train_one(recipe, folder, folder, resume=resume, device=device, quiet=quiet)


def require_no_run(folder: Path) -> None:
    """See that a new run would replace none, of one stage or of two.

    Raises:
        LeanposeError: the folder holds one.
    """
    if any((run / STATE_FILE).exists() for run in (folder, folder / "stage1", folder / "stage2")):
        raise LeanposeError(
            f"{folder} already holds a run; resume it with `leanpose train --resume {folder}`, or choose another --out."
        )


def _train_one(recipe: Recipe, folder: Path, whole: Path, *, resume: bool, device: str, quiet: bool) -> RunSummary:
    """A run of one stage, be it all or a part of the run in the folder `whole`."""
    if not resume:
        require_no_run(folder)
    fabric = make_fabric(recipe, device)
    # A resumed run's weights come from its state: neither a download nor another file is needed again.
    model = build_model(recipe.model_copy(update={"pretrained": None, "init_from": None}) if resume else recipe)
    codec, skeleton = CodecSection(**_codec_settings(model.codec)), recipe.skeleton or model.skeleton.name
    recipe = recipe.model_copy(update={"codec": codec, "skeleton": skeleton})  # to be written out
    people, val = read_training_people(recipe)
    augmentation, late_augmentation = _augmentation(recipe)
    cache = None
    if recipe.data.cache is not None:
        with fabric.rank_zero_first():
            cache = cached_crops(people.people, CropPlan(model.input_size), recipe.data.cache)
    dataset = TopDownDataset(
        people.people,
        model.skeleton,
        model.input_size,
        warp=model.codec.warp,
        augmentation=augmentation,
        late_augmentation=late_augmentation,
        seed=recipe.seed,
        cache=cache,
    )
    with fabric.rank_zero_first():
        teacher = build_teacher(recipe, model, dataset)
    write_recipe(recipe, folder, fabric, resume=resume)
    task = build_task(recipe, model.train(), teacher)
    validation = None if val is None else Validation(val.name, lambda measured: measure(recipe, measured, val))
    return Trainer(
        recipe, folder, task, dataset, fabric, validation=validation, resume=resume, whole=whole, quiet=quiet
    ).run()


def write_recipe(recipe: Recipe, folder: Path, fabric: Fabric, *, resume: bool) -> None:
    """Begin a run's folder with the recipe as it is run."""
    if fabric.is_global_zero and not resume:
        with atomic_write(folder / "recipe.yaml") as path:
            path.write_text(recipe.to_yaml())
    fabric.barrier()


def _augmentation(recipe: Recipe) -> tuple[Augmentation | None, tuple[int, Augmentation] | None]:
    """How a recipe varies its crops, and from which epoch on otherwise."""
    section = recipe.augmentation
    if not section.enabled:
        return None, None
    late = (max(recipe.schedule.epochs - section.stage2_epochs, 0), _augmentation_of(section.stage2_section()))
    return _augmentation_of(section), late if section.stage2_epochs else None


def _augmentation_of(section: AugmentationSection) -> Augmentation:
    values = section.model_dump(exclude={"enabled", "stage2", "stage2_epochs"})
    look = {field.name: values.pop(field.name) for field in fields(PhotometricAugmentation)}
    return Augmentation(**values, photometric=PhotometricAugmentation(**look))


def _train_both_stages(recipe: Recipe, folder: Path, *, resume: bool, device: str, quiet: bool) -> RunSummary:
    """DWPose's two stages, each a run of its own in `stage1` and `stage2`; the weights beside them are the result.

    The last weights are those of stage 2, the best those of the stage that was measured better.
    """
    plans = {folder / "stage1": first_stage(recipe), folder / "stage2": second_stage(recipe, folder / "stage1")}
    if not resume:
        require_no_run(folder)
        with atomic_write(folder / "recipe.yaml") as path:
            path.write_text(recipe.to_yaml())
    stages = []
    for run, plan in plans.items():
        started = (run / STATE_FILE).exists()
        if started:  # the run may have been moved, and stage 2's teacher with it
            plan = saved_recipe(run).model_copy(update={"distillation": plan.distillation})
        done = finished_run(run, plan.schedule.epochs) if started else None  # needs no teacher and no data any more
        stages.append(done or _train_one(plan, run, folder, resume=started, device=device, quiet=quiet))
    first, second = stages
    better = second if second.best >= first.best else first
    for name, source in (("best.safetensors", better), ("last.safetensors", second)):
        if (source.folder / name).exists() and os.environ.get("RANK", "0") == "0":
            with atomic_write(folder / name) as path:
                shutil.copyfile(source.folder / name, path)
    return replace(
        second,
        folder=folder,
        best=better.best,
        best_epoch=better.best_epoch,
        seconds=first.seconds + second.seconds,
        broken={**first.broken, **second.broken},
        stages=(first, second),
    )


def first_stage(recipe: Recipe) -> Recipe:
    """Stage 1 alone of a two-stage recipe."""
    section = recipe.distillation
    assert isinstance(section, DWPoseSection)
    return recipe.model_copy(update={"distillation": section.model_copy(update={"stage2": False})})


def second_stage(recipe: Recipe, first: Path) -> Recipe:
    """Stage 2 of a two-stage recipe, after the run of stage 1 in the folder `first`."""
    section = recipe.distillation
    assert isinstance(section, DWPoseSection)
    assert section.stage2
    head = DWPoseStage2Section(
        method="dwpose_stage2",
        teacher=str(first),
        compile_teacher=section.compile_teacher,
        logit_weight=section.stage2_logit_weight,
        reduction=section.reduction,
    )
    return new_head_recipe(recipe, head, epochs=section.stage2_epochs)


def new_head_recipe(recipe: Recipe, head: DWPoseStage2Section, epochs: int | None = None) -> Recipe:
    """A recipe turned into one that gives its finished model a new head, in a fifth of the epochs where none are given.

    The learning rate's milestones come as much earlier as the end does.
    """
    schedule = recipe.schedule
    epochs = epochs or math.ceil(schedule.epochs / 5)
    milestones = [max(1, round(milestone * epochs / schedule.epochs)) for milestone in schedule.milestones]
    schedule = schedule.model_copy(update={"epochs": epochs, "milestones": milestones})
    fresh = {"pretrained": None, "init_from": None, "auxiliary_heatmap_weight": 0.0}
    return recipe.model_copy(update={"distillation": head, "schedule": schedule, **fresh})


def retrain_head_recipe(
    recipe: Recipe, model: PoseModel, weights: str, *, logits: float = 1.0, epochs: int | None = None
) -> Recipe:
    """A recipe turned into DWPose's stage 2 for a trained model, whatever the recipe itself trains.

    Args:
        recipe: says which data, optimiser and schedule.
        model: the trained one.
        weights: where its weights are.
        epochs: a fifth of the recipe's where None.

    Raises:
        LeanposeError: the model finds other keypoints than the recipe's, or the loss would count for nothing.
    """
    if not (logits > 0 and math.isfinite(logits)):
        raise LeanposeError(f"The weight of the loss of a new head must be finite and above 0, not {logits:g}.")
    ours, theirs = skeleton_of(recipe.model, recipe.skeleton), model.skeleton
    if ours.keypoints != theirs.keypoints:
        raise LeanposeError(
            f"{weights} finds the {len(theirs)} keypoints of '{theirs.name}', the recipe's data are read as the {len(ours)} of "
            f"'{ours.name}': add skeleton={theirs.name}."
        )
    head = DWPoseStage2Section(method="dwpose_stage2", teacher=weights, logit_weight=logits)
    same = {
        "model": model.name,
        "model_options": asdict(model.config),
        "codec": CodecSection(**_codec_settings(model.codec)),
        "skeleton": recipe.skeleton or ours.name,
    }
    return new_head_recipe(recipe.model_copy(update=same), head, epochs)
