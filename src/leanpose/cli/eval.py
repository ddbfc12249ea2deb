"""`leanpose eval`: evaluate a model on a data set, or a classifier on images sorted by class."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from leanpose.choices import Cycle, Scoring, Suppression
from leanpose.cli.exit_codes import exit_if_skipped
from leanpose.cli.options import (
    AtLeast1,
    BboxFileOption,
    DeviceOption,
    ForeignSkeletonOption,
    LoaderWorkers,
    SplitOption,
    counting,
    new_table,
    print_some,
    table_console,
)
from leanpose.errors import LeanposeError

SHOWN = 20  # classes named on the terminal; all go to --out


def evaluate(
    model: Annotated[str, Argument(help="A released name, a .safetensors, .onnx or .xml file, or hf://USER/NAME.")],
    annotations: Annotated[Path | None, Option(help="Annotation file, or a folder with one data set.")] = None,
    skeleton: ForeignSkeletonOption = None,
    images: Annotated[
        Path | None,
        Option(help="Folder or .tar of the images; for image_folder, the folder of class folders. [default: found]"),
    ] = None,
    data_format: Annotated[
        str,
        Option("--data-format", help="auto (detected), a format name as in recipes, or image_folder (classifiers)."),
    ] = "auto",
    bbox_file: BboxFileOption = None,
    head_sizes: Annotated[
        Path | None, Option(help="MPII head sizes (JSON). [default: from the head keypoints]")
    ] = None,
    category: Annotated[str | None, Option(help="Category to evaluate, if the file has several.")] = None,
    split: SplitOption = "all",
    scoring: Annotated[Scoring, Option(help="Person score for AP.")] = "bbox_keypoint",
    nms: Annotated[Literal[Suppression, "none"], Option(help="Pose NMS.")] = "oks",
    flip_test: Annotated[bool, Option(help="Flip test: average with the mirrored crop.")] = True,
    cycle: Annotated[Cycle, Option(help="last: run all cycles of a multi-cycle model.")] = "first",
    batch_size: AtLeast1 = 32,
    num_workers: LoaderWorkers = None,
    device: DeviceOption = "auto",
    out: Annotated[Path | None, Option("--out", "-o", help="Write every number to this JSON file.")] = None,
    results: Annotated[Path | None, Option(help="Write the poses to this COCO results JSON file.")] = None,
) -> None:
    """Evaluate a model on a data set.

    OKS AP and AR (PCKh on MPII), PCK and AUC, and a table by keypoint.
    """
    from leanpose.backends.model import load_pose_model
    from leanpose.data.readers import DatasetConfig
    from leanpose.data.sets import resolve
    from leanpose.device import choose_device
    from leanpose.evaluation.report import evaluation_report, print_report, write_report

    how: dict[str, Any] = {"cycle": cycle, "batch_size": batch_size, "num_workers": num_workers}
    if data_format == "image_folder":
        if images is None:
            raise LeanposeError("--data-format image_folder needs --images FOLDER, with one subfolder per class.")
        if results is not None or annotations is not None:
            raise LeanposeError("--data-format image_folder takes neither --annotations nor --results; use --out.")
        _evaluate_classifier(model, images, split, device, out, how)
        return
    source = DatasetConfig.from_options(
        format=data_format, images=images, annotations=annotations, bbox_file=bbox_file, split=split, head_sizes=head_sizes,
        category=category,
    )  # fmt: skip
    loaded = load_pose_model(model, skeleton).to(choose_device(device))
    source = resolve(source, Path())
    suppression = None if nms == "none" else nms
    with counting("evaluating", "people", in_steps=True) as advance:
        report = evaluation_report(
            loaded, source, scoring=scoring, nms=suppression, flip_test=flip_test, advance=advance, **how
        )
    print_report(report)
    write_report(report, out, results)
    exit_if_skipped(report.broken)


def _evaluate_classifier(
    model: str, images: Path, split: Any, device: str, out: Path | None, how: dict[str, Any]
) -> None:
    """Print top-1 and top-5 accuracy and the classes with the lowest accuracy; write every number to `out`."""
    from leanpose.classification.data import read_class_folder
    from leanpose.classification.deit import load_classifier
    from leanpose.classification.evaluate import evaluate_classes
    from leanpose.device import choose_device
    from leanpose.evaluation.report import headline
    from leanpose.files import atomic_write

    network = load_classifier(model).to(choose_device(device))
    folder, names, cycle = read_class_folder(images, network.class_names, split), network.class_names, how["cycle"]
    with counting("evaluating", "images", in_steps=True) as advance:
        measured = evaluate_classes(network, folder, advance=lambda count: advance(count, len(folder)), **how)
    size = "x".join(map(str, network.input_size))
    print(f"{network.name} {size} on {images}: {len(measured.labels)} images of {len(names)} classes, {cycle} cycle")
    print(headline(measured.metrics))
    rows = measured.rows(names)
    table = new_table("", "class", ">images", ">top-1")
    for row in sorted(rows, key=lambda row: row["top-1"])[:SHOWN]:
        table.add_row(row["class"], str(row["images"]), f"{100 * row['top-1']:.1f}")
    table_console().print(table)
    if len(rows) > SHOWN:
        print(f"The other {len(rows) - SHOWN} classes are better; --out FILE.json lists all.")
    if measured.broken:
        print(f"Skipped:  {len(measured.broken)} that could not be read:")
        print_some(list(measured.broken.values()))
    if out is not None:
        settings = {"model": network.name, "images": str(images), "split": split, "cycle": cycle}
        figures = {"settings": settings, "figures": measured.metrics, "by_class": rows, "broken": measured.broken}
        with atomic_write(out) as path:
            path.write_text(json.dumps(figures, indent=1, ensure_ascii=False))
    exit_if_skipped(measured.broken)
