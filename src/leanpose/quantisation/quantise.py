"""Export a model in int8, measure what that costs in AP, and keep the file only if it is little."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leanpose.backends import open_exported
from leanpose.backends.base import Crops, ModelSpec, first_line
from leanpose.backends.exported import NO_PREDICTION, ExportCard, ExportedBackend
from leanpose.data.readers import READERS, DatasetConfig
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.evaluation.evaluate import coco_ap, ground_truth_of, labelled_only, predict_people
from leanpose.evaluation.report import metric_of
from leanpose.export.exporter import BATCHES, FORMATS, export_model, move_files, staging_folder
from leanpose.inference.choice import interleaved_benchmark
from leanpose.models.base import PoseModel
from leanpose.quantisation.calibration import choose_people, crops_of
from leanpose.quantisation.layers import module_of
from leanpose.quantisation.quantisers import FORMAT_OF, QUANTISERS, SCHEMES, NncfQuantiser, Scheme, require
from leanpose.quantisation.sensitivity import Sensitivity, fewest_in_float, outputs_of, rank_layers
from leanpose.weights import load_model

MAX_AP_DROP = 0.5  # AP points
CALIBRATION_PEOPLE = 128
RANKING_CROPS = 16
BATCH = 8  # as `PoseEstimator` on a CPU: with dynamic ranges, who shares a batch matters
BACKENDS = {"dynamic": "onnxruntime", "static": "onnxruntime", "nncf": "openvino"}
TOOLS = {**BACKENDS, "nncf": "nncf"}


@dataclass(frozen=True)
class QuantisationReport:
    """What was written and measured.

    Attributes:
        path: the file; OpenVINO's weights lie beside it, with the ending `.bin`.
        card: what the file says of itself.
        bytes, float_bytes: of all files together, quantised and in float.
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
        return self.card.quantisation or {}


def quantise_model(
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
) -> QuantisationReport:
    """Write a model as a file that computes in int8, and measure AP before and after.

    The model is exported in float, and checked as `export_model` checks. Then all its convolutions and matrix products with
    weights are quantised; norms, softmax, products of attention, normalisation and decoding stay in float. If AP on
    the measured people falls by more than `max_ap_drop`, each layer is quantised alone, and those that change the outputs most
    stay in float: as few as bring the loss within the bound.

    Args:
        model: a released name, a weights file or a model.
        path: where to write: `.onnx`, or `.xml` for the scheme nncf.
        source: the set to measure on.
        scheme: `dynamic` or `static` (onnxruntime), or `nncf` (OpenVINO).
        calibration: where other people come from, who say how large values become and which layers break; their labels
            are not used. None: some pictures of `source`, which are not measured then.
        calibration_people: how many, at most.
        seed: decides who they are.
        max_ap_drop: in AP points; with a greater loss nothing is written.
        max_float_layers: how many layers may stay in float; by default half of them.
        include_preprocessing, include_decoding: see `export_model`.
        flip_test: average with the mirrored crop when measuring; None: yes, where the file gives a prediction.
        advance: told what is under way.

    Raises:
        LeanposeError: an argument does not fit, a package is missing, a set cannot be read, the model cannot be exported or
            is too bad to lose AP, or the quantised file loses more than `max_ap_drop`.
    """
    path = Path(path)
    _check_arguments(path, scheme, max_ap_drop, max_float_layers, calibration_people)
    flips = not include_decoding if flip_test is None else flip_test
    if flips and include_decoding:
        raise LeanposeError(NO_PREDICTION)
    if READERS[source.format].metric == "mpii":
        raise LeanposeError(
            "A quantised file is judged by its AP, and MPII has none; give a set in the format of COCO."
        )
    require(scheme)
    spec = ModelSpec.of(model if isinstance(model, PoseModel) else load_model(model))
    advance("reading people")
    chosen, people = choose_people(spec, source, calibration, count=calibration_people, seed=seed)
    labelled = labelled_only(ground_truth_of(people))[1]
    metric = metric_of(source, spec.skeleton, labelled)
    assert metric != "mpii"
    crops = crops_of(chosen, spec)
    broken: dict[str, str] = {}

    def evaluate_ap(backend: ExportedBackend) -> float:
        results, unread = predict_people(backend, people.people, batch_size=BATCH, flip_test=flips)
        broken.update(unread)
        return 100 * coco_ap(results, people, spec.skeleton, metric=metric)["AP"]

    with staging_folder(path) as folder:
        advance("exporting in float")
        exported = export_model(
            model,
            folder / "float.onnx",
            include_preprocessing=include_preprocessing,
            include_decoding=include_decoding,
            crops=crops[:BATCH],
        )
        job = _Job(scheme, exported.path, exported.card, crops, folder, evaluate_ap, advance)
        if job.float_ap <= max_ap_drop:
            raise LeanposeError(
                f"{path} is not written, since '{spec.name}' reaches {job.float_ap:.1f} AP on {people.name} in float: "
                "with so little to lose nothing can be said of the quantised file; give trained weights or another set."
            )
        most = len(job.quantiser.layers) // 2 if max_float_layers is None else max_float_layers
        attempt = job.search(max_ap_drop, most, path)
        quantisation = {
            "scheme": scheme,
            "backend": BACKENDS[scheme],
            "tool": f"{TOOLS[scheme]} {importlib.metadata.version(TOOLS[scheme])}",
            "measured_on": people.name,
            "people": sum(str(person.image) not in broken for person in people.people),
            "boxes": "detected" if source.bbox_file else "labelled",
            "flip_test": flips,
            "AP_float": round(job.float_ap, 3),
            "AP": round(attempt.ap, 3),
            "calibrated_on": people.name if calibration is None else calibration.title,
            "calibration_people": len(crops),
            "seed": seed,
            "layers": len(job.quantiser.layers),
            "float_layers": [module_of(entry.layer) for entry in attempt.in_float],
        }
        card = replace(exported.card, precision="int8", quantisation=quantisation)
        advance("checking")
        job.finish(attempt, card)
        advance("timing")
        speedup = job.speedup(attempt)
        size = _size(attempt.path)
        move_files(attempt.path, path)
    return QuantisationReport(
        path, card, size, job.float_bytes, attempt.ap, job.float_ap, attempt.in_float, speedup, broken
    )


def _size(path: Path) -> int:
    """Bytes of a file, with OpenVINO's weights beside it."""
    return sum(file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.exists())


@dataclass(frozen=True)
class _Attempt:
    """A quantised file and what it reaches."""

    path: Path
    ap: float
    in_float: tuple[Sensitivity, ...]


class _Job:
    """One model, one scheme: files in a folder that is deleted in the end."""

    def __init__(
        self,
        scheme: Scheme,
        source: Path,
        card: ExportCard,
        crops: Crops,
        folder: Path,
        evaluate_ap: Callable[[ExportedBackend], float],
        advance: Callable[[str], None],
    ) -> None:
        self.folder, self.crops, self.evaluate_ap, self.advance = folder, crops, evaluate_ap, advance
        self.open = partial(open_exported, backend=BACKENDS[scheme])
        prepare = self.open(source).prepare
        inputs = [np.ascontiguousarray(prepare(crop[None])) for crop in crops]
        advance("calibrating")
        self.quantiser = QUANTISERS[scheme](source, inputs, card)
        if not self.quantiser.layers:
            hint = "; the scheme static quantises convolutions too" if scheme == "dynamic" else ""
            raise LeanposeError(f"'{card.spec.name}' has no layer that the scheme {scheme} quantises{hint}.")
        self.plain_path = source
        if isinstance(self.quantiser, NncfQuantiser):
            self.plain_path = source.with_suffix(".xml")
            self.quantiser.write_float(self.plain_path)
        self.plain, self.float_bytes = self.open(self.plain_path), _size(self.plain_path)
        advance("measuring in float")
        self.float_ap = evaluate_ap(self.plain)
        self.tried: dict[int, _Attempt] = {}

    def search(self, max_ap_drop: float, most: int, path: Path) -> _Attempt:
        """The file with the fewest layers in float that loses no more than this.

        Raises:
            LeanposeError: none does; `path` is what would have been written.
        """
        layers = self.quantiser.layers
        most = min(most, len(layers) - 1)
        everything = self._attempt(())
        if self.float_ap - everything.ap <= max_ap_drop:
            return everything
        count = None
        if most:
            crops = self.crops[:RANKING_CROPS]
            ranked = rank_layers(self.quantiser, self.plain, crops, self.folder, self.open, self.advance)
            count = fewest_in_float(
                lambda number: self.float_ap - self._attempt(tuple(ranked[:number])).ap, most, max_ap_drop
            )
        if count is None:
            best = max(self.tried.values(), key=lambda attempt: attempt.ap)
            raise LeanposeError(
                f"{path} is not written, since the quantised file loses {self.float_ap - best.ap:.2f} AP "
                f"({self.float_ap:.2f} in float, {best.ap:.2f} with {len(best.in_float)} of {len(layers)} layers left in "
                f"float), and allowed are {max_ap_drop:g}."
            )
        return self.tried[count]

    def _attempt(self, in_float: tuple[Sensitivity, ...]) -> _Attempt:
        """Quantise all but these layers, and measure."""
        number = len(in_float)
        if number not in self.tried:
            self.advance(f"measuring with {number} of {len(self.quantiser.layers)} layers in float")
            path = self.folder / f"try{number}{self.quantiser.suffix}"
            self.quantiser.write([entry.layer for entry in in_float], path)
            self.tried[number] = _Attempt(path, self.evaluate_ap(self.open(path)), in_float)
        return self.tried[number]

    def finish(self, attempt: _Attempt, card: ExportCard) -> None:
        """Give the file its card, and see that it runs in batches of any size.

        Raises:
            LeanposeError: it does not, or the card is lost.
        """
        self.quantiser.stamp(attempt.path, card)
        backend = self.open(attempt.path)
        if json.loads(backend.card.to_json()) != json.loads(card.to_json()):
            raise LeanposeError(f"The card of the quantised '{card.spec.name}' cannot be read back as it was written.")
        for size in BATCHES:
            batch = np.ascontiguousarray(self.crops[np.arange(size) % len(self.crops)])
            shapes = [value.shape for value in outputs_of(self.plain, batch)]
            try:
                outputs = outputs_of(backend, batch)
            except Exception as error:  # a backend's own exception, of which each has several
                reason = first_line(error)
                raise LeanposeError(f"{backend.name} cannot run the quantised '{card.spec.name}': {reason}") from error
            if [value.shape for value in outputs] != shapes or not all(np.isfinite(value).all() for value in outputs):
                raise LeanposeError(
                    f"The quantised '{card.spec.name}' gives values that are not finite, or too few, for {size} crops."
                )

    def speedup(self, attempt: _Attempt, seconds: float = 2.0) -> float:
        """How many times as fast as in float one crop is, on one thread."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            backends = [self.open(self.plain_path), self.open(attempt.path)]
            slow, fast = interleaved_benchmark(backends, self.crops, (1,), seconds, time.process_time)
        finally:
            torch.set_num_threads(before)
        return slow[1] / fast[1]


def _check_arguments(path: Path, scheme: str, max_ap_drop: float, max_float_layers: int | None, people: int) -> None:
    if scheme not in SCHEMES:
        raise LeanposeError(f"Unknown scheme '{scheme}'; {did_you_mean(scheme, SCHEMES)}")
    suffix = FORMATS[FORMAT_OF[scheme]]
    if path.suffix != suffix:
        raise LeanposeError(f"Cannot export to {path}: with the scheme {scheme} the name must end in {suffix}.")
    if not 0 <= max_ap_drop <= 100:
        raise LeanposeError(f"The allowed loss is in AP points, 0 to 100, not {max_ap_drop:g}.")
    if (max_float_layers is not None and max_float_layers < 0) or people < 1:
        raise LeanposeError("Numbers of layers are 0 or more, and one person at least is needed for calibration.")
