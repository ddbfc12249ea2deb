"""`leanpose export`: write a model as a file for another backend or a phone; int8 files only if their AP is kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from leanpose.cli.exit_codes import exit_if_skipped
from leanpose.cli.options import AnyModelArgument, counted, print_some, status

if TYPE_CHECKING:
    from leanpose.backends.exported import ExportCard
    from leanpose.data.readers import DatasetConfig
    from leanpose.mobile import MobileReport
    from leanpose.models.base import PoseModel
    from leanpose.quantization import QuantizationReport


def quantized(help: str, *, mobile: bool = False, **settings: Any) -> Any:
    """An option for quantized files, and for mobile ones if it says so."""
    where = "With --quantize, ncnn, litert, mnn" if mobile else "With --quantize"
    return Option(help=f"{where}: {help[0].lower() if help[1].islower() else help[0]}{help[1:]}", **settings)


def export(
    model: AnyModelArgument,
    format: Annotated[str, Option(help="onnx, openvino, torch-export; for phones ncnn, litert, mnn.")] = "onnx",
    out: Annotated[
        Path | None, Option("--out", "-o", help="File to write. [default: the model's name and the format's ending]")
    ] = None,
    include_preprocessing: Annotated[
        bool | None,
        Option(
            help="Include normalization: uint8 (B, H, W, 3) in, instead of float (B, 3, H, W). "
            "[default: yes, but not for phones]"
        ),
    ] = None,
    include_decoding: Annotated[
        bool, Option(help="Include decoding: keypoints and scores out, instead of raw predictions.")
    ] = False,
    precision: Annotated[
        str, Option(help="fp32, fp16 or bf16; the export fails if keypoints deviate too much.")
    ] = "fp32",
    images: Annotated[
        list[str] | None,
        Option(help="Images to check on (repeatable) [default: a portrait]; with --annotations, their images."),
    ] = None,
    quantize: Annotated[
        str | None, Option(help="int8: dynamic or static (onnx), or nncf (openvino); fails if AP drops too much.")
    ] = None,
    annotations: Annotated[
        Path | None, quantized(help="Evaluation annotations for AP, as in `leanpose eval`.", mobile=True)
    ] = None,
    data_format: Annotated[str, quantized(help="As --data-format of `leanpose eval`.", mobile=True)] = "coco",
    bbox_file: Annotated[
        Path | None, quantized(help="Detected boxes (COCO results JSON) for the evaluation.", mobile=True)
    ] = None,
    split: Annotated[str, quantized(help="all, or for sets without splits train or val.", mobile=True)] = "all",
    flip_test: Annotated[
        bool | None, quantized(help="Evaluate with the flip test. [default: unless --include-decoding]", mobile=True)
    ] = None,
    calibration_annotations: Annotated[
        Path | None,
        quantized(help="Calibration annotations. [default: people held out of the evaluation set]"),
    ] = None,
    calibration_images: Annotated[Path | None, quantized(help="Their images. [default: --images]")] = None,
    calibration_people: Annotated[int, quantized(min=1, help="Maximum number of people for calibration.")] = 128,
    seed: Annotated[int, quantized(min=0, help="Seed for sampling the calibration people.")] = 0,
    max_ap_drop: Annotated[
        float, quantized(help="Maximum AP drop in points; the export fails beyond it.", mobile=True)
    ] = 0.5,
    max_float_layers: Annotated[
        int | None, quantized(min=0, help="Maximum number of layers kept in float. [default: half]")
    ] = None,
    install_converter: Annotated[
        bool, Option("--install-converter", help="With ncnn, litert, mnn: download the converter once, into the cache.")
    ] = False,
    converter_python: Annotated[
        Path | None, Option(help="With ncnn, litert, mnn: a Python that has the converter.")
    ] = None,
) -> None:
    """Write a model as a file for another backend.

    The file is checked against the model on images.
    """
    from leanpose.errors import LeanposeError, did_you_mean
    from leanpose.export import FORMATS, export_model
    from leanpose.mobile import MOBILE_FORMATS, export_mobile

    mobile = format in MOBILE_FORMATS
    if format not in FORMATS and not mobile:
        raise LeanposeError(f"Unknown format '{format}'; {did_you_mean(format, [*FORMATS, *MOBILE_FORMATS])}")
    fresh = fresh_model(model)
    source = model if fresh is None else fresh
    others = {"--calibration-annotations": calibration_annotations, "--calibration-images": calibration_images}
    preprocessing = not mobile if include_preprocessing is None else include_preprocessing
    file: dict[str, Any] = {"include_preprocessing": preprocessing, "include_decoding": include_decoding}
    if quantize is not None:
        from leanpose.quantization import SCHEMES, quantize_model

        if quantize not in SCHEMES:
            raise LeanposeError(f"Unknown --quantize '{quantize}'; {did_you_mean(quantize, SCHEMES)}")
        if format != SCHEMES[quantize].format:
            raise LeanposeError(f"--quantize {quantize} writes --format {SCHEMES[quantize].format}, not {format}.")
        source_set, calibration = _measured_sets(
            annotations, images or [], data_format, bbox_file, split, *others.values()
        )
        if precision != "fp32":
            raise LeanposeError(f"With --quantize the rest of the file is fp32; leave --precision {precision} out.")
        path = out or Path(f"{Path(model).stem}_{quantize}{FORMATS[format]}")
        file |= {"scheme": quantize}
        with status() as advance:
            quantization = quantize_model(
                source, path, source_set, calibration=calibration, seed=seed, flip_test=flip_test,
                calibration_people=calibration_people, max_ap_drop=max_ap_drop, max_float_layers=max_float_layers,
                advance=advance, **file,
            )  # fmt: skip
        _print_quantization(quantization)
        exit_if_skipped(quantization.broken)
        return
    if mobile:
        _require_none(others, "quantized files", "add --quantize dynamic, static or nncf")
        measured = None
        if annotations is not None or bbox_file is not None:
            measured, _ = _measured_sets(annotations, images or [], data_format, bbox_file, split, None, None)
        path = out or Path(Path(model).stem + MOBILE_FORMATS[format].suffixes[0])
        file |= {"format": format, "precision": precision, "python": converter_python, "install": install_converter}
        with status() as advance:
            mobile_report = export_mobile(
                source, path, source=measured, crops=() if measured else images or (), flip_test=flip_test,
                max_ap_drop=max_ap_drop, advance=advance, **file,
            )  # fmt: skip
        _print_mobile(mobile_report, fresh=model if fresh is not None else None)
        exit_if_skipped(mobile_report.accuracy.broken if mobile_report.accuracy else {})
        return
    sets = {"--annotations": annotations, "--bbox-file": bbox_file, **others}
    _require_none(sets, "quantized and mobile files", "add --quantize dynamic, static or nncf, or a mobile --format")
    given = {"--converter-python": converter_python, "--install-converter": install_converter or None}
    _require_none(given, "mobile files", f"add --format {', '.join(MOBILE_FORMATS)}")
    path = out or Path(Path(model).stem + FORMATS[format])
    file |= {"format": format, "precision": precision}
    report = export_model(source, path, crops=images or (), **file)
    print(f"File:     {path} ({report.bytes / 1e6:.1f} MB, {precision})")
    _print_interface(report.card)
    _print_fresh(model if fresh is not None else None)
    print(f"Checked:  {report.agreement}")


def _require_none(options: dict[str, Any], what: str, instead: str) -> None:
    """See that no option of other files was given.

    Raises:
        LeanposeError: one was.
    """
    from leanpose.errors import LeanposeError

    for option, value in options.items():
        if value is not None:
            raise LeanposeError(f"{option} is for {what}; {instead}.")


def _print_fresh(name: str | None) -> None:
    """That the weights are none to use."""
    if name is not None:
        print(f"          ('{name}' has no released weights: the file has randomly initialised ones)")


def _print_mobile(report: "MobileReport", *, fresh: str | None) -> None:
    """The files, what goes in and comes out, and what was measured."""
    spec, raw = report.card.spec, report.card.includes_preprocessing
    files = ", ".join(str(file) for file in report.files)
    print(f"File:     {files} ({report.bytes / 1e6:.1f} MB, {report.card.precision})")
    size = " × ".join(str(side) for side in spec.input_size)
    print(f"Input:    images, {f'uint8 RGB, 1 × {size} × 3' if raw else f'float32, 1 × 3 × {size}, normalized'}")
    shapes = [f"{name} {' × '.join(str(side) for side in shape)}" for name, shape in report.shapes.items()]
    print(f"Output:   {', '.join(shapes)}{'' if report.card.includes_decoding else ', to be decoded'}")
    _print_fresh(fresh)
    print(f"Checked:  {report.agreement}")
    accuracy = report.accuracy
    if accuracy is not None:
        people = counted(accuracy.people, "person", "people")
        flips = "flip test" if accuracy.flip_test else "no flip test"
        print(
            f"          AP {accuracy.model_ap:.2f} in torch, {accuracy.ap:.2f} in the file ({people} of {accuracy.set}, {flips})"
        )
    else:
        print("          AP was not measured; give a set with --annotations and --images")
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    print(f"Speed:    {report.milliseconds:.1f} ms for a crop on this machine's CPU ({versions})")
    if accuracy is not None and accuracy.broken:
        print(f"Skipped:  {len(accuracy.broken)} that could not be read:")
        print_some(list(accuracy.broken.values()))


def _print_interface(card: "ExportCard") -> None:
    """What goes into a file and what comes out."""
    height, width = card.spec.input_size
    raw = card.includes_preprocessing
    given = f"uint8 RGB, batch × {height} × {width} × 3" if raw else f"float32, batch × 3 × {height} × {width}"
    print(f"Input:    images, {given}" + ("" if raw else ", normalized"))
    comes_out = "keypoints in crop pixels, scores" if card.includes_decoding else "raw predictions, to be decoded"
    print(f"Output:   {comes_out}")


def fresh_model(name: str) -> "PoseModel | None":
    """A randomly initialised model by its architecture's name; None for anything else."""
    from leanpose.errors import LeanposeError
    from leanpose.models.registry import create_model, list_models, model_entry
    from leanpose.weights import RELEASED

    if name in RELEASED or Path(name).exists() or name not in list_models():
        return None
    if model_entry(name).task != "pose":
        raise LeanposeError(f"'{name}' is a classifier; this command is for pose models.")
    import torch

    torch.manual_seed(0)
    return create_model(name)


def _measured_sets(
    annotations: Path | None,
    images: list[str],
    data_format: str,
    bbox_file: Path | None,
    split: str,
    calibration_annotations: Path | None,
    calibration_images: Path | None,
) -> "tuple[DatasetConfig, DatasetConfig | None]":
    """The evaluation set, and the calibration set, if it is another.

    Raises:
        LeanposeError: something is missing or does not fit.
    """
    from leanpose.data.readers import DatasetConfig
    from leanpose.errors import LeanposeError

    if annotations is None or len(images) != 1:
        raise LeanposeError("AP is checked: give the evaluation set with --annotations and --images.")
    if calibration_annotations is None and calibration_images is not None:
        raise LeanposeError("--calibration-images needs --calibration-annotations.")
    folder = Path(images[0])
    measured = DatasetConfig.from_options(
        format=data_format, annotations=annotations, images=folder, bbox_file=bbox_file, split=split
    )
    if calibration_annotations is None:
        return measured, None
    others = calibration_images or folder
    return measured, DatasetConfig.from_options(format=data_format, annotations=calibration_annotations, images=others)


def _print_quantization(report: "QuantizationReport") -> None:
    """Print the file, the AP of both, and the layers kept in float."""
    from leanpose.quantization.layers import module_of

    summary = report.summary
    size, before = report.bytes / 1e6, report.float_bytes / 1e6
    times = f"float {before:.1f} MB, {before / size:.1f} times as large"
    print(f"File:     {report.path} ({size:.1f} MB, int8 {summary['scheme']}; {times})")
    _print_interface(report.card)
    flips = "flip test" if summary["flip_test"] else "no flip test"
    where = f"{summary['measured_on']}, {summary['boxes']} boxes, {flips}, both in {summary['backend']}"
    print(f"Measured: {summary['people']} people of {where}")
    lost = report.float_ap - report.ap
    change = f"{lost:.2f} points lost" if lost >= 0 else f"{-lost:.2f} points gained (within noise)"
    print(f"          AP {report.float_ap:.2f} in float, {report.ap:.2f} quantized: {change}")
    print(f"          calibrated on {summary['calibration_people']} other people of {summary['calibrated_on']}")
    which = " (the most sensitive ones)" if report.in_float else ""
    print(f"In float: {len(report.in_float)} of {summary['layers']} layers{which}")
    alone = "{} (alone it changes the output by {:.1f} %)"
    print_some([alone.format(module_of(kept.layer), 100 * kept.error) for kept in report.in_float], 12)
    print(f"Speed:    {report.speedup:.2f} times as fast as in float, for one crop on one thread")
    if report.broken:
        print(f"Skipped:  {len(report.broken)} that could not be read:")
        print_some(list(report.broken.values()))
