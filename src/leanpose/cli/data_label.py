"""`leanpose data label` and `label-wholebody`: pseudo-labels by a model of leanpose, or by landmark models."""

from functools import partial
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option

from leanpose.cli.data import print_left_out, write_contact_sheet
from leanpose.cli.exit_codes import exit_if_skipped, stopped_code
from leanpose.cli.options import (
    ForeignSkeletonOption,
    counted,
    counting,
    new_table,
    print_some,
    table_console,
)
from leanpose.console import printable
from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from leanpose.pseudo_labels import AcceptanceThresholds, PseudoLabels


def label(
    source: Annotated[str, Argument(help="Folder of images, one image, or a video; with --ray also .tar, s3://….")],
    teacher: Annotated[
        str, Option(help="A released name, a .safetensors or .onnx file, or hf://USER/NAME.")
    ] = "leanpose-body-s",
    out: Annotated[Path, Option("--out", "-o", help="COCO JSON file; with --ray a folder.")] = Path("labels.json"),
    detector: Annotated[str, Option(help="Person detector, as in `leanpose predict`.")] = "auto",
    keypoint_threshold: Annotated[float, Option(min=0, max=1, help="Minimum score of a labelled keypoint.")] = 0.5,
    skeleton: ForeignSkeletonOption = None,
    ray: Annotated[bool, Option("--ray", help="Label in parts with Ray, on the cores of this machine.")] = False,
    ray_address: Annotated[str | None, Option(help="Address of an existing Ray cluster: host:port, or auto.")] = None,
    workers: Annotated[
        int | None, Option(min=1, help="With --ray: number of parallel workers. [default: 1 per core]")
    ] = None,
    cpus: Annotated[float | None, Option(min=0, help="With --ray: cores per worker. [default: 1]")] = None,
    gpus: Annotated[float | None, Option(min=0, help="With --ray: GPUs per worker, such as 0.25. [default: 0]")] = None,
    part_size: Annotated[int | None, Option(min=1, help="With --ray: images per part. [default: 256]")] = None,
    coco: Annotated[bool, Option(help="With --ray: also write all labels as one COCO file.")] = True,
) -> None:
    """Pseudo-label images with a teacher: a COCO file with a score for each keypoint.

    Of a video, a frame every half second is written to a folder next to the file and labelled. With --ray, images of
    folders, tar archives and object storage are labelled in parallel and written in parts (Parquet) and as COCO; the
    same command resumes after any interruption (docs/cluster.md).
    """
    if ray or ray_address is not None:
        how = teacher, detector, keypoint_threshold, skeleton
        _label_with_ray(source, out, how, ray_address, workers, cpus, gpus, part_size, coco)
        return
    no_coco = None if coco else 1
    given = {"--workers": workers, "--cpus": cpus, "--gpus": gpus, "--part-size": part_size, "--no-coco": no_coco}
    for option, value in given.items():
        if value is not None:
            raise LeanposeError(f"{option} needs --ray.")
    from leanpose.distillation.unlabelled import label_images

    if out.suffix != ".json":
        raise LeanposeError(f"{out} is not a name for a COCO file: it must end with .json.")
    labels = label_images(
        Path(source), teacher, out, detector=detector, keypoint_threshold=keypoint_threshold, skeleton=skeleton
    )
    print(labels)
    if labels.stopped:
        raise Exit(stopped_code())
    exit_if_skipped(range(labels.skipped))


def _label_with_ray(
    source: str,
    out: Path,
    how: tuple[str, str, float, str | None],
    address: str | None,
    workers: int | None,
    cpus: float | None,
    gpus: float | None,
    part_size: int | None,
    coco: bool,
) -> None:
    from leanpose.cluster.ray_cluster import ClusterOptions, label_with_ray, require_ray
    from leanpose.device import available_cores

    cpus = 1.0 if cpus is None else cpus
    options = ClusterOptions(address, workers or max(1, int(available_cores() / (cpus or 1))), cpus, gpus or 0.0)
    require_ray(options)
    from leanpose.cluster.label import PART_SIZE, label_on_cluster
    from leanpose.cluster.parts import LabelSettings

    if out.suffix == ".json":
        raise LeanposeError(f"With --ray, --out is a folder, not {out}.")
    teacher, detector, keypoint_threshold, skeleton = how
    with counting("labelling", "images") as advance:
        labels = label_on_cluster(
            source, out, LabelSettings(teacher, detector, keypoint_threshold, skeleton), partial(label_with_ray, options=options),
            part_size=part_size or PART_SIZE, coco=coco, progress=advance,
        )  # fmt: skip
    print(labels)
    for reason, number in labels.left_out.items():
        print(f"Left out: {number} {reason}")
    for notice, number in labels.notices.items():
        print(f"Noticed:  {printable(notice)} ({counted(number, 'image')})")
    print_some(labels.skipped)
    exit_if_skipped(labels.skipped)


def label_wholebody(
    annotations: Annotated[Path, Argument(help="COCO JSON file of people with the 17 body keypoints.")],
    images: Annotated[Path, Option(help="Folder or .tar of the images.")],
    models: Annotated[Path, Option(help="Folder of the landmark models (mediapipe_….onnx).")],
    out: Annotated[Path | None, Option("--out", "-o", help="The COCO-WholeBody JSON file to write.")] = None,
    contact_sheet: Annotated[Path | None, Option(help="Contact sheet of labelled people to write.")] = None,
    compare: Annotated[
        bool, Option("--compare", help="Write nothing: compare the pseudo-labels with the file's own labels.")
    ] = False,
    face_size: Annotated[float, Option(min=1, help="Minimum size of a face in pixels.")] = 16.0,
    hand_size: Annotated[float, Option(min=1, help="Minimum size of a hand in pixels.")] = 16.0,
    person_size: Annotated[float, Option(min=1, help="Minimum size of a person in pixels, for feet.")] = 100.0,
) -> None:
    """Label faces, hands and feet of people whose bodies are labelled, with small landmark models.

    Pseudo-labels that disagree with the body labels are rejected. Interrupted runs resume. docs/pseudo-labels.md
    reports their accuracy.
    """
    from leanpose import pseudo_labels
    from leanpose.pseudo_labels.report import draw_contact_sheet

    if compare == (out is not None):
        raise LeanposeError("Give either --out FILE.json, to write labels, or --compare, to evaluate them.")
    thresholds = pseudo_labels.AcceptanceThresholds(face_size, hand_size, person_size)
    landmarks = pseudo_labels.OnnxLandmarkModels(models)
    for name in landmarks.unknown:
        print(f"Warning: {name} is not the file for which the thresholds were chosen.")
    with counting("labelling", "images") as advance:
        if out is None:
            dataset = pseudo_labels.BodyDataset.open(annotations, images)
            labels = pseudo_labels.find_parts(dataset, landmarks, thresholds, progress=advance)
        else:
            labels = pseudo_labels.label_wholebody(
                annotations, images, landmarks, out, thresholds=thresholds,
                notes={"models": landmarks.hashes}, progress=advance,
            )  # fmt: skip
    for sentence in labels.summary.sentences():
        print(sentence)
    _print_bands(labels, thresholds)
    if compare:
        _print_errors(labels)
    print_left_out(labels.broken)
    if labels.resumed:
        print(f"{labels.resumed} images already labelled by an earlier run.")
    if contact_sheet is not None:
        write_contact_sheet(contact_sheet, lambda: draw_contact_sheet(labels.people))
    if out is not None:
        print(f"{len(labels.people)} people processed: {out}")
    exit_if_skipped(labels.broken)


def _print_bands(labels: "PseudoLabels", thresholds: "AcceptanceThresholds") -> None:
    from leanpose.pseudo_labels.report import VERDICTS, count_bands

    shown = VERDICTS[:1] + VERDICTS[3:]
    columns = (f">{name}" for name in ("size", "tried", *shown, "share", "error"))
    table = new_table("Parts by size in pixels (feet: of the person)", "part", *columns)
    for band in count_bands(labels.people, thresholds):
        size = f"{band.low:g}–{band.high:g}" if band.high < float("inf") else f"{band.low:g} and more"
        share = f"{band.verdicts['accepted'] / band.tried:.0%}" if band.tried else "–"
        counts = [str(band.verdicts[verdict]) for verdict in shown]
        table.add_row(band.kind, size, str(band.tried), *counts, share, _number(band.error))
    table_console().print(table)
    print(
        "error: mean disagreement of what was accepted with the body labels (face: nose and eyes over the face's size; "
        "hand: wrist over the hand's; foot: knee and ankle over the person's)"
    )


def _print_errors(labels: "PseudoLabels") -> None:
    from leanpose.pseudo_labels.report import known_errors

    errors = known_errors(labels.people)
    if not errors:
        raise LeanposeError("Nothing to compare with: the file has no face_kpts, foot_kpts … of its own.")
    title = "Against the file's own labels (distance over the part's box; feet: the person's)"
    table = new_table(title, "part", ">labelled", ">found", ">error")
    for error in errors:
        table.add_row(error.what, str(error.labelled), str(error.found), _number(error.error))
    table_console().print(table)


def _number(value: float) -> str:
    return "–" if isnan(value) else f"{value:.3f}"
