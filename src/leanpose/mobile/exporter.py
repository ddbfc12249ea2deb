"""Write a model as a file for phones, run it beside the model on this machine, and keep it only if both say the same."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from leanpose.backends.base import Backend, Crops, ModelSpec, Precision, TorchBackend
from leanpose.backends.exported import INPUT, NO_PREDICTION, ExportCard
from leanpose.checksums import file_checksum
from leanpose.choices import Metric
from leanpose.data.annotations import PoseDataset
from leanpose.data.readers import READERS, DatasetConfig, read_people
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.evaluation.evaluate import coco_ap, crops_of, ground_truth_of, labelled_only, predict_people
from leanpose.evaluation.report import metric_of
from leanpose.export.agreement import BOUNDS, Agreement, Bounds, compare, crops_to_check
from leanpose.export.program import CropProgram, write_onnx, write_torch
from leanpose.files import staging_folder
from leanpose.locks import lock_file
from leanpose.mobile.backend import MobileBackend
from leanpose.mobile.environment import converter_python
from leanpose.mobile.formats import MOBILE_FORMATS, MobileFormat
from leanpose.mobile.process import ConverterProcess
from leanpose.models.base import PoseModel
from leanpose.weights import load_model
from leanpose.weights.storage import card_of, describe

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
MAX_SHIFT = 0.5  # pixels of the crop
MAX_AP_DROP = 0.5  # AP points
CONVERT_SECONDS = 1800
CHECKED_PEOPLE = 64
BATCH = 8
CARD_SUFFIX = ".json"
"""Of the card's file, behind the whole name of the file that it is about."""


@dataclass(frozen=True)
class Accuracy:
    """What a data set says of a file.

    Attributes:
        ap, model_ap: OKS AP in points, of the file and of the model in torch.
        set: its name.
        people: how many it was measured on.
        flip_test: averaged with the mirrored crop.
        broken: images that could not be read, with the reason.
    """

    ap: float
    model_ap: float
    set: str
    people: int
    flip_test: bool
    broken: Mapping[str, str]


@dataclass(frozen=True)
class MobileReport:
    """What was written and measured.

    Attributes:
        files: the file, its weights where they are apart, and the card.
        bytes: of the file with its weights.
        card: what the file is; its file on the disk holds more, under `mobile`.
        agreement: how far it is from the model.
        milliseconds: for a crop on this machine's CPU, with as many threads as torch has.
        shapes: of the outputs for one crop, by name.
        versions: of the converter's packages.
        accuracy: None where no set was given.
    """

    files: tuple[Path, ...]
    bytes: int
    card: ExportCard
    agreement: Agreement
    milliseconds: float
    shapes: Mapping[str, tuple[int, ...]]
    versions: Mapping[str, str]
    accuracy: Accuracy | None


def export_mobile(
    model: PoseModel | str | Path,
    path: Path | str,
    *,
    format: str,
    precision: Precision = "fp32",
    include_preprocessing: bool = False,
    include_decoding: bool = False,
    crops: Crops | Sequence[str] = (),
    source: DatasetConfig | None = None,
    flip_test: bool | None = None,
    max_shift: float = MAX_SHIFT,
    max_ap_drop: float = MAX_AP_DROP,
    python: Path | None = None,
    install: bool = False,
    advance: Callable[[str], None] = lambda _: None,
) -> MobileReport:
    """Write a model as a file for ncnn, LiteRT or MNN that takes one crop at a time.

    The converter runs in an environment of its own. The file is run there, on the CPU, and compared with the model in torch
    within the bounds for half precision of `leanpose.export.agreement.BOUNDS`; besides, no keypoint may move by more than
    `max_shift`. With a data set AP is measured too. A card is written beside the file: `NAME.json`.

    Args:
        model: a released name, a weights file or a model.
        path: where to write, ending as the format's files end.
        format: `ncnn`, `litert` or `mnn`.
        precision: `fp32`, or `fp16`: of the weights in the file. What a phone computes in, its program decides.
        include_preprocessing: the file takes uint8 RGB (1, H, W, 3), else float32 (1, 3, H, W), normalized; not in ncnn.
        include_decoding: the outputs are keypoints (1, K, 2) in crop pixels and scores (1, K), else the prediction.
        crops: to compare on: RGB crops of the model's size, or images' files; by default people of `source`, or a portrait.
        source: a set to measure AP on.
        flip_test: average with the mirrored crop then; None: yes, where the file gives a prediction.
        max_shift: in pixels of the crop.
        max_ap_drop: in AP points.
        python: one that has the converter's packages; None: see `leanpose.mobile.environment.converter_python`.
        install: make leanpose's own environment for the converter where it is missing.
        advance: told what is under way.

    Raises:
        LeanposeError: an argument does not fit, the converter is missing or cannot write the model, or the file differs.
    """
    path = Path(path)
    known = _check_arguments(path, format, precision, include_preprocessing)
    flips = not include_decoding if flip_test is None else flip_test
    if flips and include_decoding:
        raise LeanposeError(NO_PREDICTION)
    if not (max_shift >= 0 and 0 <= max_ap_drop <= 100):
        raise LeanposeError("The allowed shift is in pixels, 0 or more, and the allowed loss in AP points, 0 to 100.")
    if source is not None and READERS[source.format].metric == "mpii":
        raise LeanposeError("A mobile file is judged by its AP, and MPII has none; give a set in COCO's format.")
    interpreter = converter_python(known, python, install=install, advance=advance)
    if isinstance(model, PoseModel):
        weights = card_of(model, training_data=[], licence="not stated", metrics={})
    else:
        weights, model = describe(model), load_model(model)
    spec, people, metric = ModelSpec.of(model), None, None
    if source is not None:
        advance("reading people")
        people = read_people(source, spec.skeleton, training=False)
        metric = metric_of(source, spec.skeleton, labelled_only(ground_truth_of(people))[1])
    card = ExportCard(spec, include_preprocessing, include_decoding, precision, weights)
    reference = TorchBackend(copy.deepcopy(model), torch.device("cpu"))
    program = CropProgram(reference.model, torch.float32, include_preprocessing, include_decoding).eval()
    outputs = program.outputs
    with torch.inference_mode():
        shapes = {n: tuple(v.shape) for n, v in zip(outputs, program(program.example(1)), strict=True)}
    if people is not None and not len(crops):
        crops = crops_of(people.people[:: max(1, len(people.people) // CHECKED_PEOPLE)][:CHECKED_PEOPLE], spec)
    chosen = crops_to_check(spec, crops)

    with lock_file(path), staging_folder(path) as folder:
        file, work = folder / path.name, folder / "work"
        work.mkdir()
        advance("exporting")
        written = work / f"model.{'onnx' if known.source == 'onnx' else 'pt2'}"
        (write_onnx if known.source == "onnx" else write_torch)(program, card, written, crops=1)
        with ConverterProcess(interpreter, known.script, known.title, work) as process:
            advance(f"converting to {known.title}")
            request = {"source": str(written.resolve()), "target": str(file.resolve()), "precision": precision}
            try:
                answer = process.ask({"do": "convert", **request, "outputs": list(outputs)}, CONVERT_SECONDS)
            except LeanposeError as error:
                if not include_decoding:
                    raise
                reason = str(error).removesuffix(".")
                raise LeanposeError(f"{reason}; export without --include-decoding.") from error.__cause__
            versions = {str(name): str(version) for name, version in answer["versions"].items()}
            backend = MobileBackend(process, known, file.resolve(), card, outputs)
            advance("comparing with the model")
            # Those of half precision in any case: these runtimes approximate functions such as exp.
            bounds = replace(BOUNDS["fp16"], max_shift=max_shift)
            agreement = _agreement(reference, backend, chosen, bounds, path)
            milliseconds, accuracy = backend.milliseconds, None
            if people is not None and metric is not None:
                advance("measuring AP")
                accuracy = _accuracy(reference, backend, people, metric, flip_test=flips)
                _require_ap(accuracy, max_ap_drop, known, path)
        parts = _files_of(file, known)
        checked: dict[str, Any] = {"crops": len(chosen), "max_shift": agreement.max_shift, "score": agreement.score}
        if accuracy is not None:
            checked |= {**asdict(accuracy), "broken": len(accuracy.broken)}
        facts = {
            "format": known.name,
            "converter": versions,
            "input": {INPUT: list(program.example(1).shape)},
            "outputs": {name: list(shape) for name, shape in shapes.items()},
            "checksums": {part.name: file_checksum(part) for part in parts},
            "checked": checked,
        }
        size = sum(part.stat().st_size for part in parts)
        described = folder / f"{path.name}{CARD_SUFFIX}"
        text = json.dumps({**json.loads(card.to_json()), "mobile": facts}, ensure_ascii=False)
        described.write_text(text + "\n", encoding="utf-8")
        for part in (*reversed(parts), described):  # weights first, so that no file is there without them
            _move(part, path.parent)
    files = tuple(path.with_name(part.name) for part in (*parts, described))
    return MobileReport(files, size, card, agreement, milliseconds, shapes, versions, accuracy)


def _check_arguments(path: Path, format: str, precision: str, include_preprocessing: bool) -> MobileFormat:
    if format not in MOBILE_FORMATS:
        raise LeanposeError(f"Unknown format '{format}'; {did_you_mean(format, MOBILE_FORMATS)}")
    known = MOBILE_FORMATS[format]
    if not path.name.endswith(known.suffixes[0]):
        raise LeanposeError(
            f"Cannot export to {path}: with the format {format} the name must end in {known.suffixes[0]}."
        )
    if precision not in PRECISIONS:
        raise LeanposeError(f"The weights of a {known.title} file are fp32 or fp16, not {precision}.")
    if format == "ncnn" and include_preprocessing:
        raise LeanposeError(
            "ncnn takes no uint8; leave --include-preprocessing out and normalize with `Mat::substract_mean_normalize`."
        )
    return known


def _agreement(reference: Backend, backend: MobileBackend, crops: Crops, bounds: Bounds, path: Path) -> Agreement:
    """How far the file is from the model.

    Raises:
        LeanposeError: too far.
    """
    sizes = [min(BATCH, len(crops) - start) for start in range(0, len(crops), BATCH)]
    agreement = compare(reference, backend, crops, sizes)
    if agreement.max_shift is None:
        raise LeanposeError(
            f"{path} is not written: on these images the model is not sure of a single keypoint, so nothing can be compared; "
            "give images that it knows."
        )
    excess = agreement.exceeds(bounds)
    if excess is not None:
        raise LeanposeError(f"{path} is not written, since the file differs from '{reference.spec.name}': {excess}.")
    return agreement


def _accuracy(
    reference: Backend, backend: Backend, people: PoseDataset, metric: Metric, *, flip_test: bool
) -> Accuracy:
    """AP of both on the same people."""
    assert metric != "mpii"
    broken: dict[str, str] = {}
    aps = []
    for side in (backend, reference):
        results, unread = predict_people(side, people.people, batch_size=BATCH, flip_test=flip_test)
        broken.update(unread)
        aps.append(100 * coco_ap(results, people, side.spec.skeleton, metric=metric)["AP"])
    count = sum(str(person.image) not in broken for person in people.people)
    return Accuracy(aps[0], aps[1], people.name, count, flip_test, broken)


def _require_ap(accuracy: Accuracy, max_ap_drop: float, format: MobileFormat, path: Path) -> None:
    """See that AP has not fallen by more than that.

    Raises:
        LeanposeError: it has, or the model's is too small to fall.
    """
    ap, model_ap = accuracy.ap, accuracy.model_ap
    if model_ap <= max_ap_drop:
        raise LeanposeError(
            f"{path} is not written, since the model reaches {model_ap:.1f} AP in torch: with so little to lose nothing can "
            "be said of the file; give trained weights or another set."
        )
    if not model_ap - ap <= max_ap_drop:
        raise LeanposeError(
            f"{path} is not written, since the file loses {model_ap - ap:.2f} AP ({model_ap:.2f} in torch, {ap:.2f} in "
            f"{format.title}), and allowed are {max_ap_drop:g}."
        )


def _files_of(file: Path, format: MobileFormat) -> list[Path]:
    """The file, and what belongs to it."""
    stem = file.name.removesuffix(format.suffixes[0])
    return [file.with_name(stem + suffix) for suffix in format.suffixes]


def _move(file: Path, folder: Path) -> None:
    """Put a finished file in its place."""
    with open(file, "rb") as written:
        os.fsync(written.fileno())
    os.replace(file, folder / file.name)
