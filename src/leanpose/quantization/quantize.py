"""Export a model in int8, measure what that costs in AP, and keep the file only if it is little."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leanpose.backends import open_exported
from leanpose.backends.base import Crops, ModelSpec, first_line
from leanpose.backends.exported import NO_PREDICTION, ExportCard, ExportedBackend
from leanpose.checksums import unseal
from leanpose.data.readers import READERS, DatasetConfig
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.evaluation.evaluate import coco_ap, crops_of, ground_truth_of, labelled_only, predict_people
from leanpose.evaluation.report import metric_of
from leanpose.export.exporter import BATCHES, export_model, move_files
from leanpose.files import staging_folder
from leanpose.inference.choice import interleaved_benchmark
from leanpose.locks import lock_file
from leanpose.models.base import PoseModel
from leanpose.quantization.calibration import choose_people
from leanpose.quantization.layers import module_of
from leanpose.quantization.quantizers import SCHEMES, Quantizer, Scheme
from leanpose.quantization.sensitivity import Sensitivity, fewest_in_float, outputs_of, rank_layers
from leanpose.weights import load_model

MAX_AP_DROP = 0.5  # AP points
CALIBRATION_PEOPLE = 128
RANKING_CROPS = 16
BATCH = 8  # as `PoseEstimator` on a CPU: with dynamic ranges, who shares a batch matters


@dataclass(frozen=True)
class QuantizationReport:
    """What was written and measured.

    Attributes:
        path: the file; OpenVINO's weights lie next to it, with the ending `.bin`.
        card: what the file says of itself.
        bytes, float_bytes: of all files together, quantized and in float.
        ap, float_ap: OKS AP in points, of both files in the same backend on the same people.
        in_float: those that were not, the worst first.
        speedup: how many times as fast as the float file it is, for one crop on one thread.
        broken: images that could not be read, with the reason.
    """

    path: Path
    card: ExportCard
    bytes: int
    float_bytes: int
    ap: float
    float_ap: float
    in_float: tuple[Sensitivity, ...]
    speedup: float
    broken: dict[str, str]

    @property
    def summary(self) -> Mapping[str, Any]:
        """What the file's card says of its making: scheme, sets, numbers of people and layers, AP before and after."""
        return self.card.quantization or {}


def quantize_model(
    model: PoseModel | str | Path,
    path: Path | str,
    source: DatasetConfig,
    *,
    scheme: Scheme = "static",
    calibration: DatasetConfig | None = None,
    calibration_people: int = CALIBRATION_PEOPLE,
    seed: int = 0,
    max_ap_drop: float = MAX_AP_DROP,
    max_float_layers: int | None = None,
    include_preprocessing: bool = True,
    include_decoding: bool = False,
    flip_test: bool | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> QuantizationReport:
    """Write a model as a file that computes in int8, and measure AP before and after.

    The model is exported in float, and checked as `export_model` checks. Then all its convolutions and matrix products
    with weights are quantized; norms, softmax, products of attention, normalization and decoding stay in float. If AP
    on the measured people falls by more than `max_ap_drop`, each layer is quantized alone, and those that change the
    outputs most stay in float: as few as bring the loss within the bound.

    Args:
        model: a released name, a weights file or a model.
        path: where to write: `.onnx`, or `.xml` for the scheme nncf.
        source: the set to evaluate on.
        scheme: `dynamic` or `static` (onnxruntime), or `nncf` (OpenVINO).
        calibration: where other people come from, who say how large values become and which layers break; their labels
            are not used. None: some images of `source`, which are not measured then.
        calibration_people: how many, at most.
        seed: decides who they are.
        max_ap_drop: in AP points; with a greater loss nothing is written.
        max_float_layers: how many layers may stay in float; by default half of them.
        include_preprocessing, include_decoding: see `export_model`.
        flip_test: average with the mirrored crop when measuring; None: yes, where the file gives a prediction.
        advance: told what is under way.

    Raises:
        LeanposeError: an argument does not fit, a package is missing, a set cannot be read, the model cannot be
            exported or is too bad to lose AP, or the quantized file loses more than `max_ap_drop`.
    """
    path = Path(path)
    if scheme not in SCHEMES:
        raise LeanposeError(f"Unknown scheme '{scheme}'; {did_you_mean(scheme, SCHEMES)}")
    chosen_scheme = SCHEMES[scheme]
    if path.suffix != chosen_scheme.suffix:
        raise LeanposeError(f"Cannot export to {path}: with the scheme {scheme} it must end in {chosen_scheme.suffix}.")
    if not 0 <= max_ap_drop <= 100:
        raise LeanposeError(f"max_ap_drop must be 0 to 100 AP points, not {max_ap_drop:g}.")
    if (max_float_layers or 0) < 0 or calibration_people < 1:
        raise LeanposeError("max_float_layers must be at least 0, and calibration_people at least 1.")
    flips = not include_decoding if flip_test is None else flip_test
    if flips and include_decoding:
        raise LeanposeError(NO_PREDICTION)
    if READERS[source.format].metric == "mpii":
        raise LeanposeError("A quantized file is evaluated by AP, and MPII has none; give a data set in COCO's format.")
    chosen_scheme.require()
    spec = ModelSpec.of(model if isinstance(model, PoseModel) else load_model(model))
    advance("reading people")
    chosen, people = choose_people(spec, source, calibration, count=calibration_people, seed=seed)
    metric = metric_of(source, spec.skeleton, labelled_only(ground_truth_of(people))[1])
    assert metric != "mpii"
    crops = crops_of(chosen, spec)
    broken: dict[str, str] = {}
    open_file = partial(open_exported, backend=chosen_scheme.backend)

    def evaluate_ap(backend: ExportedBackend) -> float:
        results, unread = predict_people(backend, people.people, batch_size=BATCH, flip_test=flips)
        broken.update(unread)
        return 100 * coco_ap(results, people, spec.skeleton, metric=metric)["AP"]

    with lock_file(path), staging_folder(path) as folder:
        advance("exporting in float")
        exported = export_model(
            model,
            folder / "float.onnx",
            include_preprocessing=include_preprocessing,
            include_decoding=include_decoding,
            crops=crops[:BATCH],
        )
        unseal(exported.path)  # or the files that quantizers make of it would have a seal that is not theirs
        advance("calibrating")
        prepare = open_file(exported.path).prepare
        quantizer = chosen_scheme(
            exported.path, [np.ascontiguousarray(prepare(crop[None])) for crop in crops], exported.card
        )
        layers = quantizer.layers
        if not layers:
            hint = "; the scheme static quantizes convolutions too" if scheme == "dynamic" else ""
            raise LeanposeError(f"'{spec.name}' has no layer that the scheme {scheme} quantizes{hint}.")
        plain, float_bytes = open_file(quantizer.float_path), _size(quantizer.float_path)
        advance("evaluating in float")
        float_ap = evaluate_ap(plain)
        if float_ap <= max_ap_drop:
            raise LeanposeError(
                f"{path} is not written: '{spec.name}' has only {float_ap:.1f} AP on {people.name} in float, too low "
                "to judge the quantized model; use trained weights or another set."
            )
        ranked: list[Sensitivity] = []
        tried: dict[int, float] = {}

        def loss(number: int) -> float:
            """The AP drop with this many of the most sensitive layers in float."""
            if number not in tried:
                advance(f"measuring with {number} of {len(layers)} layers in float")
                file = _attempt(folder, number, quantizer)
                quantizer.write([entry.layer for entry in ranked[:number]], file)
                tried[number] = evaluate_ap(open_file(file))
            return float_ap - tried[number]

        count: int | None = 0
        if loss(0) > max_ap_drop:
            most = min(len(layers) // 2 if max_float_layers is None else max_float_layers, len(layers) - 1)
            if most:
                ranked += rank_layers(quantizer, plain, crops[:RANKING_CROPS], folder, open_file, advance)
            count = fewest_in_float(loss, most, max_ap_drop)
        if count is None:
            best = max(tried, key=lambda number: tried[number])
            raise LeanposeError(
                f"{path} is not written: the quantized model loses {loss(best):.2f} AP ({float_ap:.2f} in float, "
                f"{tried[best]:.2f} with {best} of {len(layers)} layers kept in float); the maximum is {max_ap_drop:g}."
            )
        in_float = tuple(ranked[:count])
        tool = chosen_scheme.packages[-1]
        quantization = {
            "scheme": scheme,
            "backend": chosen_scheme.backend,
            "tool": f"{tool} {importlib.metadata.version(tool)}",
            "measured_on": people.name,
            "people": sum(str(person.image) not in broken for person in people.people),
            "boxes": "detected" if source.bbox_file else "labelled",
            "flip_test": flips,
            "AP_float": round(float_ap, 3),
            "AP": round(tried[count], 3),
            "calibrated_on": people.name if calibration is None else calibration.title,
            "calibration_people": len(crops),
            "seed": seed,
            "layers": len(layers),
            "float_layers": [module_of(entry.layer) for entry in in_float],
        }
        card = replace(exported.card, precision="int8", quantization=quantization)
        advance("checking")
        file = _attempt(folder, count, quantizer)
        quantizer.stamp(file, card)
        _check_file(open_file(file), plain, card, crops)
        advance("timing")
        speedup = _speedup((quantizer.float_path, file), open_file, crops)
        size = move_files(file, path)
    return QuantizationReport(path, card, size, float_bytes, tried[count], float_ap, in_float, speedup, broken)


def _attempt(folder: Path, number: int, quantizer: Quantizer) -> Path:
    return folder / f"try{number}{quantizer.suffix}"


def _size(path: Path) -> int:
    """Bytes of a file, with OpenVINO's weights next to it."""
    return sum(file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.exists())


def _check_file(backend: ExportedBackend, plain: ExportedBackend, card: ExportCard, crops: Crops) -> None:
    """Check that a quantized file has its card, and runs in batches of any size.

    Raises:
        LeanposeError: it does not, or the card is lost.
    """
    if json.loads(backend.card.to_json()) != json.loads(card.to_json()):
        raise LeanposeError(f"The card of the quantized '{card.spec.name}' cannot be read back as it was written.")
    for size in BATCHES:
        batch = np.ascontiguousarray(crops[np.arange(size) % len(crops)])
        shapes = [value.shape for value in outputs_of(plain, batch)]
        try:
            outputs = outputs_of(backend, batch)
        except Exception as error:  # a backend's own exception, of which each has several
            reason = first_line(error)
            raise LeanposeError(f"{backend.name} cannot run the quantized '{card.spec.name}': {reason}") from error
        if [value.shape for value in outputs] != shapes or not all(np.isfinite(value).all() for value in outputs):
            raise LeanposeError(f"The quantized '{card.spec.name}' gives too few or infinite values for {size} crops.")


def _speedup(
    files: Sequence[Path], open_file: Callable[[Path], ExportedBackend], crops: Crops, time_budget: float = 2.0
) -> float:
    """How many times as fast one crop is with the second file as with the first, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        backends = [open_file(file) for file in files]
        slow, fast = interleaved_benchmark(backends, crops, (1,), time_budget, time.process_time)
    finally:
        torch.set_num_threads(before)
    return slow[1] / fast[1]
