"""From a recipe to one run: builds everything that the recipe names, and rejects what is incompatible, before the first
batch."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from leanpose.backends.model import BackendModel, load_pose_model
from leanpose.codecs import Codec, ScoreCalibration, build_codec
from leanpose.console import say_nothing
from leanpose.data.annotations import PoseDataset
from leanpose.data.augmentation import Augmentation
from leanpose.data.crop_coverage import coverage_warnings
from leanpose.data.dataset import TopDownDataset
from leanpose.data.jpeg_records import has_decoder, why_not_decoded
from leanpose.data.mixing import Mixture, distinct
from leanpose.data.pack_file import PackConfig, PackFile
from leanpose.data.pack_writer import ensure_pack
from leanpose.data.readers import READERS, read_people
from leanpose.data.summary import summary_sentences
from leanpose.device import emulates_bfloat16
from leanpose.errors import LeanposeError
from leanpose.evaluation.ap import require_parts
from leanpose.evaluation.evaluate import evaluate
from leanpose.evaluation.pck import require_mpii
from leanpose.files import atomic_write
from leanpose.inference.choice import BackendSetup, open_setup
from leanpose.locks import lock_folder
from leanpose.losses.crop_alignment import CropAlignment
from leanpose.models.base import ImageModel, PoseModel
from leanpose.models.registry import create_model, skeleton_of
from leanpose.schema import TeacherSection
from leanpose.skeleton import Skeleton
from leanpose.training.loop import RunSummary, Trainer, Validation
from leanpose.training.processes import make_fabric, writes_files
from leanpose.training.recipe import CodecSection, Recipe, TrainingRecipe
from leanpose.training.resume import has_state, steps_per_epoch
from leanpose.training.sources import card_with_sources, weights_of
from leanpose.training.task import PoseTask, Teacher, build_task
from leanpose.weights import describe, load_weights
from leanpose.weights.storage import load_network

LOG = logging.getLogger(__name__)
_MIN_MATCH = 0.5  # share of the parameters; initial weights that give fewer are hardly such


def build_model(recipe: Recipe) -> PoseModel:
    """The recipe's model with its codec, initialised with the recipe's seed or loaded from `init_from`.

    Raises:
        LeanposeError: the model or an option is unknown, `init_from` is another model, or the backbone has no published
            weights or they cannot be downloaded.
    """
    torch.manual_seed(recipe.seed)
    model = create_model(
        recipe.model, skeleton=recipe.skeleton, pretrained=recipe.pretrained or False, **recipe.model_options
    )
    model.codec = _change_codec(model, recipe.codec)
    if recipe.init_from is not None:
        load_init_weights(model, recipe)
        if recipe.codec.calibration is None:
            model.codec = model.codec.with_calibration(_init_calibration(recipe.init_from, model))
    return model


def _init_calibration(init_from: str, model: PoseModel) -> ScoreCalibration | None:
    """The score calibration of the initial weights, if they have this model's codec and all of its keypoints.

    Fine-tuning changes the scores less than dropping their calibration would, and people are ranked by them.
    """
    card = describe(weights_of(init_from))
    codec, names = build_codec(card["codec"]), Skeleton.from_dict(card["skeleton"]).keypoint_names
    keypoints = model.skeleton.keypoint_names
    if codec.calibration is None or type(codec) is not type(model.codec) or not {*keypoints} <= {*names}:
        return None
    return codec.calibration.select([names.index(name) for name in keypoints])


def _change_codec(model: PoseModel, section: CodecSection) -> Codec:
    """The model's codec with a recipe's settings.

    Raises:
        LeanposeError: the model's codec has no such setting.
    """
    settings, codec = section.model_dump(exclude_none=True), model.codec
    known = codec_settings(codec)
    calibration = section.calibration
    if calibration is not None and len(calibration.offsets) != len(model.skeleton):
        raise LeanposeError(
            f"codec.calibration has {len(calibration.offsets)} offsets; '{model.name}' predicts {len(model.skeleton)} keypoints."
        )
    for key in settings.keys() - {"calibration"}:
        if key not in known:
            it_has = f"it has {', '.join(known)}" if known else "it has no settings"
            raise LeanposeError(
                f"codec.{key} does not fit '{model.name}', whose codec is '{codec.to_dict()['name']}'; {it_has}."
            )
    return build_codec({**codec.to_dict(), **settings})


def codec_settings(codec: Codec) -> dict[str, Any]:
    """The codec settings that a recipe can override."""
    return {key: value for key, value in codec.to_dict().items() if key in CodecSection.model_fields}


def load_init_weights(model: ImageModel, recipe: TrainingRecipe) -> None:
    """Load the weights of `init_from` into a model: all of them, or those that match; a warning says that these are few.

    Raises:
        LeanposeError: they are those of another network, or, if only some need to match, none does.
    """
    assert recipe.init_from is not None
    file = weights_of(recipe.init_from)
    if recipe.strict:
        load_weights(model, file)
        return
    fresh = model.state_dict()
    init_model = load_network(file)
    fitting = {k: v for k, v in init_model.state_dict().items() if k in fresh and fresh[k].shape == v.shape}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    share = sum(sizes[name] for name in fitting.keys() & sizes.keys()) / sum(sizes.values())
    if not share:
        raise LeanposeError(
            f"No tensor of {recipe.init_from}, a '{init_model.name}', matches the recipe's '{recipe.model}'."
        )
    if share < _MIN_MATCH:
        LOG.warning(
            f"Only {share:.0%} of the parameters of '{recipe.model}' match {recipe.init_from}, a '{init_model.name}'; the "
            "others are initialised at random."
        )
    if isinstance(model, PoseModel) and isinstance(init_model, PoseModel):
        fitting |= _rows_of_common_keypoints(init_model, model)
    model.load_state_dict(fitting, strict=False)


def _rows_of_common_keypoints(init_model: PoseModel, model: PoseModel) -> dict[str, Tensor]:
    """Weights with rows per keypoint, such as an output layer: the initial model's rows for keypoints of the same name.

    If the model has several rows per keypoint for one of the initial model's (`head_upsample`), all are copies of it.
    """
    fresh, found = model.state_dict(), {}
    init_names = init_model.skeleton.keypoint_names
    common = [(own, init_names.index(n)) for own, n in enumerate(model.skeleton.keypoint_names) if n in init_names]
    own_rows, init_rows = ([pair[side] for pair in common] for side in (0, 1))
    for key, value in init_model.state_dict().items():
        if key not in fresh or not value.ndim or value.shape[1:] != fresh[key].shape[1:]:
            continue
        (rows, left), (own, own_left) = (
            divmod(len(value), len(init_names)),
            divmod(len(fresh[key]), len(model.skeleton)),
        )
        several = max(rows, own) > 1 and not key.startswith("head.")  # an inner layer whose width matches by chance
        if left or own_left or several or not rows or own % rows:
            continue
        taken = value.unflatten(0, (len(init_names), rows))[init_rows].repeat_interleave(own // rows, dim=1)
        found[key] = fresh[key].clone()
        found[key].unflatten(0, (len(model.skeleton), own))[own_rows] = taken
    return found


def read_training_sets(recipe: Recipe) -> list[PoseDataset]:
    """The training sets, each with its people repeated as configured.

    Raises:
        LeanposeError: a set cannot be read, or there are no people to train on.
    """
    skeleton, root = skeleton_of(recipe.model, recipe.skeleton), recipe.data.root
    sets = [read_people(source, skeleton, root, training=True) for source in recipe.data.train]
    if not any(part.people for part in sets):
        raise LeanposeError("data.train of the recipe has no usable people.")
    return sets


def join_sets(sets: Sequence[PoseDataset]) -> PoseDataset:
    """The people of several sets, concatenated."""
    people = [person for part in sets for person in part.people]
    summaries = tuple(summary for part in sets for summary in part.summaries)
    return PoseDataset(" + ".join(part.name for part in sets), people, summaries=summaries)


def read_training_people(recipe: Recipe) -> tuple[PoseDataset, PoseDataset | None]:
    """The training people (all sets together), and the validation people.

    Raises:
        LeanposeError: a set cannot be read, or there are no people to train on.
    """
    return join_sets(read_training_sets(recipe)), read_validation_people(recipe)


def read_validation_people(recipe: Recipe) -> PoseDataset | None:
    """The validation people, if the recipe names any.

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
        if READERS[recipe.data.val.format].metric != "mpii":
            raise LeanposeError(
                "validation.metric=mpii needs a data.val of format mpii, since PCKh uses its head sizes."
            )
    return read_people(recipe.data.val, skeleton, recipe.data.root, training=False)


def validate_model(recipe: Recipe, model: PoseModel, people: PoseDataset) -> dict[str, float]:
    """The metrics of a model in eval mode, evaluated as configured in a recipe."""
    how = recipe.validation.model_dump(exclude={"interval"})
    size = max(recipe.batch_size // recipe.grad_accum_steps, 32)
    num_workers, precision = recipe.data.num_workers, recipe.precision
    return evaluate(model, people, batch_size=size, num_workers=num_workers, precision=precision, **how).metrics


def load_teacher(recipe: Recipe) -> Teacher | None:
    """The recipe's teacher; None if its method needs none. The method checks whether it fits the student.

    Raises:
        LeanposeError: it is missing or corrupt.
    """
    section = recipe.distillation
    if not isinstance(section, TeacherSection):
        return None
    file = weights_of(section.teacher)
    model = load_pose_model(file, section.teacher_skeleton)
    if section.teacher_flip_test:
        model.skeleton.require_pairs("distillation.teacher_flip_test mirrors crops (false does not)")
    if isinstance(model, BackendModel):
        if section.compile_teacher:
            raise LeanposeError(f"distillation.compile_teacher is for models in torch; {file} is an exported model.")
        # Everything that the file's prediction depends on: its weights, and how it is decoded.
        parts = [
            path for path in (Path(file).with_suffix(s) for s in (".onnx", ".xml", ".bin", ".yaml")) if path.is_file()
        ]
        shown = b"".join(path.read_bytes() for path in parts)
    else:
        card = describe(file)
        shown = json.dumps([card[field] for field in ("config", "mean", "std", "sha256")]).encode()
        if section.teacher_backend == "onnxruntime":
            if section.compile_teacher:
                raise LeanposeError("distillation.compile_teacher is for teacher_backend=torch; set one of the two.")
            model = BackendModel(open_setup(model, torch.device("cpu"), BackendSetup("onnxruntime", "fp32")))
            shown += b"onnxruntime"
    shown += json.dumps(model.skeleton.keypoints).encode() if section.teacher_skeleton else b""
    identity = f"{model.name} {hashlib.sha256(shown).hexdigest()[:12]}"
    return Teacher(
        model,
        identity=identity,
        bf16=recipe.precision == "bf16",
        compiled=section.compile_teacher,
        flip_test=section.teacher_flip_test,
    )


def lock_run(folder: Path) -> AbstractContextManager[None]:
    """Lock a folder for this run. Of torchrun's processes, the first, which alone writes, holds the lock for all.

    Raises:
        LeanposeError: another run is active there.
    """
    return lock_folder(folder) if writes_files() else nullcontext()


def require_no_run(folder: Path) -> None:
    """Check that a new run would not replace another, of one stage or of two.

    Raises:
        LeanposeError: the folder contains one.
    """
    if any(has_state(run) for run in (folder, folder / "stage1", folder / "stage2")):
        raise LeanposeError(
            f"{folder} already contains a run; resume it with `leanpose train --resume {folder}`, or choose another --out."
        )


def _require_pairs(recipe: Recipe, skeleton: Skeleton) -> None:
    """Check that the skeleton defines left/right pairs if crops are flipped.

    Raises:
        LeanposeError: it does not.
    """
    section = recipe.augmentation
    if section.enabled and max(section.flip_probability, section.of_stage2().flip_probability) > 0:
        skeleton.require_pairs("Training mirrors crops (augmentation.flip_probability=0 does not)")
    if recipe.data.val is not None and recipe.validation.flip_test:
        skeleton.require_pairs("Validation mirrors crops (validation.flip_test=false does not)")


def train_one(
    recipe: Recipe,
    folder: Path,
    root_dir: Path,
    *,
    resume: bool,
    device: str,
    quiet: bool,
    say: Callable[[str], None] = print,
) -> RunSummary:
    """A run of one stage.

    Args:
        folder: folder of this stage.
        root_dir: folder of the whole run; the same if there is one stage.
        say: receives the data summary, one sentence at a time.

    Raises:
        LeanposeError: something is incompatible, or another run is active in the folder.
    """
    with lock_run(folder):
        return build_trainer(recipe, folder, root_dir, resume=resume, device=device, quiet=quiet, say=say).run()


def build_trainer(
    recipe: Recipe,
    folder: Path,
    root_dir: Path,
    *,
    resume: bool,
    device: str,
    quiet: bool,
    say: Callable[[str], None],
) -> Trainer:
    """A run of one stage before its first step; see `train_one`.

    Raises:
        LeanposeError: something does not fit.
    """
    if not resume:
        require_no_run(folder)
    fabric = make_fabric(recipe, device)
    say = say if fabric.is_global_zero else say_nothing
    say_once = say_nothing if resume else say
    # A resumed run's weights come from its state: neither a download nor another file is needed again.
    model = build_model(recipe.model_copy(update={"pretrained": None, "init_from": None}) if resume else recipe)
    for sentence in _cautions(recipe, model, fabric.device):
        say_once(sentence)
    written_out = {
        "codec": CodecSection(**codec_settings(model.codec)),
        "skeleton": recipe.skeleton or model.skeleton.name,
    }
    recipe = recipe.model_copy(update=written_out)
    if any(source.empty_hidden_parts for source in recipe.data.train) and not model.codec.height_is_confidence:
        raise LeanposeError(
            f"data.train.empty_hidden_parts is for models that predict heatmaps; '{model.name}' does not."
        )
    _require_pairs(recipe, model.skeleton)
    sets, val = read_training_sets(recipe), read_validation_people(recipe)
    people = join_sets(sets)
    if not resume:
        recipe = recipe.model_copy(update={"card": card_with_sources(recipe, people.name.split(" + "))})
    for sentence in summary_sentences((*people.summaries, *(() if val is None else val.summaries))):
        say_once(sentence)
    with fabric.rank_zero_first():
        teacher = load_teacher(recipe)
    mixture = mixture_of(recipe, sets)
    task = build_task(recipe, model.train(), teacher, () if mixture is None else mixture.names)
    cache = None
    if recipe.data.cache is not None:
        config = PackConfig(task.crop_size, padding=model.codec.padding)
        with fabric.rank_zero_first():
            cache = ensure_pack(sets, model.skeleton, config, recipe.data.cache, say)
    if mixture is not None:
        say_once(mixture.describe(steps_per_epoch(len(people.people), recipe.batch_size)))
    dataset = _training_dataset(recipe, people, task, cache, mixture, on_gpu=fabric.device.type == "cuda")
    dataset.decode_on_device = _decodes_on_device(recipe, dataset, fabric.device, say)
    if not resume:
        for sentence in coverage_warnings(dataset):
            say(sentence)
    write_recipe(recipe, folder, fabric, resume=resume)
    validation = None if val is None else Validation(val.name, lambda measured: validate_model(recipe, measured, val))
    return Trainer(
        recipe, folder, task, dataset, fabric, validation=validation, resume=resume, root_dir=root_dir, quiet=quiet
    )


def _training_dataset(
    recipe: Recipe,
    people: PoseDataset,
    task: PoseTask,
    cache: PackFile | None,
    mixture: Mixture | None,
    *,
    on_gpu: bool,
) -> TopDownDataset:
    """The crops of the training people as the recipe augments them."""
    augmentation, late_augmentation = _augmentation(recipe)
    chosen, packed = recipe.data.warp_on_device, cache is not None or any(p.row is not None for p in people.people)
    return TopDownDataset(
        people.people,
        task.model.skeleton,
        task.crop_size,
        warp=task.model.codec.warp,
        padding=task.model.codec.padding,
        augmentation=augmentation,
        late_augmentation=late_augmentation,
        seed=recipe.seed,
        replace_broken=True,
        cache=cache,
        mixture=mixture,
        warp_on_device=packed and on_gpu if chosen is None else chosen,
    )


def _cautions(recipe: Recipe, model: PoseModel, device: torch.device) -> Iterator[str]:
    """What works, but is probably not meant."""
    if model.codec.calibration is not None and recipe.init_from is not None:
        yield f"Scores keep the calibration of {recipe.init_from}; run leanpose calibrate again after training."
    if recipe.loss == "codec" and "rle_sigma" in model.provides:
        yield f"loss=codec does not train the sigma that '{model.name}' uses as keypoint score; loss=rle does."
    if recipe.precision == "bf16" and emulates_bfloat16(device):
        yield "This CPU emulates bfloat16, and trains several times as fast with precision=fp32."


def write_recipe(recipe: TrainingRecipe, folder: Path, fabric: Fabric, *, resume: bool) -> None:
    """Create a run's folder and write the resolved recipe."""
    if fabric.is_global_zero and not resume:
        with atomic_write(folder / "recipe.yaml") as path:
            path.write_text(recipe.to_yaml())
    fabric.barrier()


def pack_config(recipe: Recipe) -> PackConfig:
    """The crops that a pack for a recipe has to hold: as large as student and teacher can use.

    Raises:
        LeanposeError: the model is unknown, or the teacher is missing.
    """
    model, teacher = (
        build_model(recipe.model_copy(update={"pretrained": None, "init_from": None})),
        load_teacher(recipe),
    )
    size = model.input_size if teacher is None else teacher.model.input_size
    return PackConfig(CropAlignment(model.input_size, size, model.codec.warp).crop_size, padding=model.codec.padding)


def mixture_of(recipe: Recipe, sets: Sequence[PoseDataset]) -> Mixture | None:
    """The sampling weights of a recipe's sets, if configured."""
    weights = [source.weight for source in recipe.data.train]
    if not weights or None in weights:
        return None
    names, sizes = distinct([part.name for part in sets]), tuple(len(part.people) for part in sets)
    return Mixture(names, sizes, tuple(weight or 0.0 for weight in weights), recipe.seed)


def _decodes_on_device(
    recipe: Recipe, dataset: TopDownDataset, device: torch.device, say: Callable[[str], None]
) -> bool:
    """Whether the training device decodes the JPEGs of packs.

    Raises:
        LeanposeError: the recipe requires it, but the device cannot.
    """
    chosen = recipe.data.decode_on_device
    if chosen and not dataset.warp_on_device:
        raise LeanposeError(f"data.decode_on_device=true needs data.warp_on_device=true on the device {device}.")
    encoded = any(pack.config.encoding == "jpeg" for pack in dataset.coarse_crops.caches)
    if not (dataset.warp_on_device and encoded and (has_decoder(device) if chosen is None else chosen)):
        return False
    reason = why_not_decoded(device)
    if reason is not None and chosen:
        raise LeanposeError(f"data.decode_on_device=true, but torchvision cannot decode JPEG on {device}: {reason}")
    if reason is not None:
        say(f"JPEG crops are decoded by the DataLoader workers, since torchvision cannot do it on {device}: {reason}")
    return reason is None


def _augmentation(recipe: Recipe) -> tuple[Augmentation | None, tuple[int, Augmentation] | None]:
    """A recipe's augmentation, and the epoch from which its second stage applies."""
    section = recipe.augmentation
    if not section.enabled:
        return None, None
    late = (max(recipe.schedule.epochs - section.stage2_epochs, 0), section.of_stage2())
    return section, late if section.stage2_epochs else None
