"""`leanpose data`: check, convert, pack, shard and render (`synth`) data sets."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Exit, Option, Typer

from leanpose.cli.exit_codes import exit_if_skipped
from leanpose.cli.options import (
    counted,
    counting,
    new_table,
    parse_sides,
    print_some,
    table_console,
)
from leanpose.console import escaped, one_line, printable
from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    import numpy as np

    from leanpose.data.annotations import PoseDataset
    from leanpose.data.pack_file import PackConfig, PackFile
    from leanpose.data_checks import CheckReport
    from leanpose.data_checks.findings import Level
    from leanpose.skeleton import Skeleton
    from leanpose.training.recipe import Recipe

data_app = Typer(help="Check, convert, pack, render or label data sets.", no_args_is_help=True)
LEVELS: "dict[Level, str]" = {"broken": "red", "odd": "yellow", "suspect": "cyan"}


@data_app.command()
def check(
    paths: Annotated[list[Path], Argument(help="Annotation files, or folders to look for them in.")],
    images: Annotated[Path | None, Option(help="Folder or .tar of the images. [default: found]")] = None,
    skeleton: Annotated[str | None, Option(help="What the files label: a name or a YAML file.")] = None,
    category: Annotated[str | None, Option(help="Category to check, if the files have several.")] = None,
    contact_sheet: Annotated[Path, Option(help="Contact sheet to write.")] = Path("data-check.png"),
    examples: Annotated[int, Option(min=0, help="Examples to print per kind of finding.")] = 3,
    strict: Annotated[bool, Option(help="Also fail on `odd` findings, not only on `broken` ones.")] = False,
    out: Annotated[Path | None, Option("--out", "-o", help="Write all findings to this JSON file.")] = None,
) -> None:
    """Validate data sets: findings as tables, and a contact sheet of people with their keypoints.

    Reads COCO, YOLO-pose, CVAT, Label Studio, Labelme, DeepLabCut, SLEAP, plain CSV, LSP and MPII. Sets given together
    are compared, which detects images that are in two splits. Exit code 1: there are `broken` findings, which would
    stop or spoil training (missing or corrupt images, coordinates in another resolution, left and right swapped on
    many people, leaks between splits …; with --strict also `odd` ones). A few suspected swaps never fail the check.
    """
    from leanpose.data_checks import check_data, draw_contact_sheet, report_dict
    from leanpose.files import write_text
    from leanpose.locks import lock_together
    from leanpose.skeleton import get_skeleton

    labelled = get_skeleton(skeleton) if skeleton else None
    with counting("decoding", "images") as advance:
        report = check_data(paths, images=images, skeleton=labelled, category=category, progress=advance)
    _print_sets(report)
    _print_findings(report, examples)
    with lock_together(contact_sheet, out):
        write_contact_sheet(contact_sheet, lambda: draw_contact_sheet(report))
        if out is not None:
            write_text(out, json.dumps(report_dict(report), indent=1))
            print(f"Findings: {out}")
    broken, odd, suspect = (report.count(level) for level in LEVELS)
    print(f"{broken} broken, {odd} odd, {suspect} suspects.")
    if broken or (strict and odd):
        raise Exit(1)


@data_app.command()
def convert(
    source: Annotated[Path, Argument(help="Annotation file, or a folder with one data set.")],
    out: Annotated[Path, Argument(help="File to write, or a folder for it.")],
    to: Annotated[str, Option(help="coco, yolo, cvat, labelstudio, csv or dlc.")] = "coco",
    images: Annotated[Path | None, Option(help="Folder or .tar of the images. [default: found]")] = None,
    skeleton: Annotated[
        str | None, Option(help="Skeleton of the file, or the one to write: a name or a YAML file.")
    ] = None,
    category: Annotated[str | None, Option(help="Category to write, if the file has several.")] = None,
    skeleton_out: Annotated[Path | None, Option(help="Also write the skeleton to this YAML file.")] = None,
) -> None:
    """Convert annotations to another format.

    Reads COCO, YOLO-pose, CVAT, Label Studio, Labelme, DeepLabCut, SLEAP and plain CSV; the format is detected. What
    the target format cannot hold is listed. For YOLO, the images are linked or copied next to the labels; frames of
    SLEAP are written there as images.
    """
    from leanpose.data.convert import convert_labels, require_writer
    from leanpose.files import write_text
    from leanpose.skeleton import SKELETONS, get_skeleton, skeleton_yaml

    require_writer(to)
    labelled = get_skeleton(skeleton) if skeleton else None
    done = convert_labels(source, out, to, images=images, skeleton=labelled, category=category)
    people, count = len(done.labels.people), len(done.labels.images)
    print(f"{counted(people, 'person', 'people')} in {counted(count, 'image')}: {done.path}")
    for title, sentences in (("Changed", done.changed), (f"Lost in {to}", done.lost)):
        if sentences:
            print(f"{title}: {'; '.join(sentences)}")
    if skeleton_out is not None:
        found = done.labels.skeleton
        named = found if found.name in SKELETONS else replace(found, name=skeleton_out.stem)
        write_text(skeleton_out, skeleton_yaml(named))
        print(f"Skeleton: {skeleton_out}")


@data_app.command()
def pack(
    datasets: Annotated[
        list[str], Argument(help="Annotation files or folders; or a recipe, with overrides (key=value).")
    ],
    out: Annotated[Path | None, Option("--out", "-o", help="File to write. [default: the recipe's data.cache]")] = None,
    images: Annotated[Path | None, Option(help="Folder or .tar of the images of one set. [default: found]")] = None,
    skeleton: Annotated[str | None, Option(help="What the files label: a name or a YAML file.")] = None,
    category: Annotated[str | None, Option(help="Category to pack, if the files have several.")] = None,
    size: Annotated[str | None, Option(help="Height x width of the crops to train on. [default: 256x192]")] = None,
    model: Annotated[str | None, Option(help="Take size and padding from this model instead.")] = None,
    padding: Annotated[
        float | None, Option(min=1.0, help="Crop width relative to the person box. [default: 1.25]")
    ] = None,
    encoding: Annotated[Literal["raw", "jpeg"], Option(help="raw is fastest, jpeg smallest.")] = "raw",
    margin: Annotated[float, Option(min=1.0, help="Stored width relative to the model's crop.")] = 1.5,
    density: Annotated[float, Option(min=0.1, help="Resolution relative to the model's crop.")] = 1.0,
) -> None:
    """Pre-crop all people into one file with the labels, so that training decodes no full images.

    The file is a data set of its own ({format: pack, annotations: FILE}); one made from a recipe is also its
    data.cache. Interrupted runs resume.
    """
    import time

    from leanpose.data.pack_file import pack_path
    from leanpose.data.pack_writer import pack_people
    from leanpose.data.summary import summary_sentences

    recipe = _recipe_of(datasets)
    if recipe is not None:
        given = {"--images": images, "--skeleton": skeleton, "--category": category, "--size": size, "--model": model}
        if named := [option for option, value in given.items() if value is not None]:
            raise LeanposeError(f"{named[0]} is for annotation files; a recipe sets it itself.")
        config, sets, known, messages = _recipe_to_pack(recipe)
        out = out or recipe.data.cache
    else:
        from leanpose.data.sets import read_sets

        config, paths = _pack_config(model, size), [Path(path) for path in datasets]
        sets, known, messages = read_sets(paths, images=images, skeleton=skeleton, category=category)
    if out is None:
        raise LeanposeError("No output file: give --out FILE, or data.cache in the recipe.")
    for sentence in (*messages, *summary_sentences(summary for each in sets for summary in each.summaries)):
        print(sentence)
    config = replace(config, margin=margin, density=density, encoding=encoding, padding=padding or config.padding)
    file, began, done = pack_path(out), time.monotonic(), list[int]()
    with counting("packing", "people") as advance:

        def count(number: int, total: int) -> None:
            done.append(number)
            advance(number, total)

        cache = pack_people(sets, known, config, file, count)
    if done[0]:
        print(f"{counted(done[0], 'person', 'people')} already packed by an earlier run.")
    seconds, megabytes = time.monotonic() - began, len(cache.data) / 1e6
    print(f"{counted(len(cache), 'person', 'people')} in {file}: {megabytes:.1f} MB, {seconds:.1f} seconds.")
    _print_coverage(sets, cache, recipe)
    print_left_out(list(cache.broken.values()))
    exit_if_skipped(cache.broken)


def _recipe_to_pack(recipe: "Recipe") -> "tuple[PackConfig, list[PoseDataset], Skeleton, list[str]]":
    """The configuration of a recipe's pack, the training sets, their skeleton, and no messages."""
    from leanpose.models.registry import skeleton_of
    from leanpose.training.build import pack_config, read_training_sets

    return pack_config(recipe), read_training_sets(recipe), skeleton_of(recipe.model, recipe.skeleton), []


def _print_coverage(sets: "Sequence[PoseDataset]", cache: "PackFile", recipe: "Recipe | None") -> None:
    """Print which share of augmented crops lies outside of a pack's coarse crops."""
    from leanpose.data.augmentation import Augmentation
    from leanpose.data.crop_coverage import MAX_OUTSIDE, outside_share
    from leanpose.data.pack_file import CropLookup

    if recipe is not None and not recipe.augmentation.enabled:
        return
    augmentation, whose = (Augmentation(), "SDPose's") if recipe is None else (recipe.augmentation, "the recipe's")
    people, config = [person for each in sets for person in each.people], cache.config
    lookup = CropLookup(people, cache)
    share = outside_share(people, lookup, augmentation, cache.skeleton, config.input_size, config.padding)
    warning, hint = ("Warning: ", "; a larger --margin keeps more") if share > MAX_OUTSIDE else ("", "")
    print(f"{warning}{share:.2%} of the pixels of crops under {whose} augmentation lie outside the stored crops{hint}.")


@data_app.command()
def shard(
    pack: Annotated[Path, Argument(help="A pack (`leanpose data pack`).")],
    url: Annotated[str, Argument(help="Where the shards go: a folder, or s3://, gs://, az://, https:// …")],
    out: Annotated[Path | None, Option("--out", "-o", help="Index to write. [default: PACK.shards]")] = None,
    megabytes: Annotated[float, Option(min=0.01, max=4000, help="Size of a shard.")] = 32.0,
) -> None:
    """Split a pack into shards for object storage, from which training streams; recipes then name the index."""
    from leanpose.data.pack_file import PackFile
    from leanpose.data.shard_writer import write_shards

    opened = PackFile(pack)
    index = out or opened.path.with_suffix(".shards")
    shards = 0
    with counting("sharding", "shards") as advance:

        def count(number: int, total: int) -> None:
            nonlocal shards
            shards = total
            advance(number, total)

        cache = write_shards(opened, url, index, megabytes=megabytes, progress=count)
    print(f"{counted(len(cache), 'person', 'people')} in {counted(shards, 'shard')} in {url}, read by {index}.")


def _recipe_of(arguments: list[str]) -> "Recipe | None":
    """The recipe named by the first argument, with the overrides in the others; None if it names none."""
    from leanpose.files import load_yaml
    from leanpose.training.recipe import find_recipe, load_recipe

    first, *settings = arguments
    path = Path(first)
    if path.is_dir() or (path.suffix and path.suffix not in (".yaml", ".yml")):
        return None
    if path.exists() and "model" not in load_yaml(path, "file"):
        return None  # YOLO's
    try:
        file = find_recipe(first)
    except LeanposeError as error:
        raise LeanposeError(f"There is no folder '{first}'. {error}") from error
    return load_recipe(file, settings)


def _pack_config(model: str | None, size: str | None) -> "PackConfig":
    """The crops that a pack for a model, or for an input size, has to hold."""
    from leanpose.cli.export import fresh_model
    from leanpose.data.pack_file import PackConfig
    from leanpose.weights import load_model

    if model is None:
        height, width = parse_sides(size or "256x192", "--size", "height x width, such as 256x192")
        if max(height, width) > 8192:
            raise LeanposeError(f"--size {size} is too large for a model's crop; the maximum is 8192.")
        return PackConfig((height, width))
    if size is not None:
        raise LeanposeError("--model also determines the crop size; give only one of --model and --size.")
    net = fresh_model(model) or load_model(model)
    return PackConfig(net.input_size, padding=net.codec.padding)


@data_app.command()
def synth(
    out: Annotated[Path, Argument(help="Folder for images.tar and annotations.json.")],
    count: Annotated[int, Option(help="Number of images.")] = 1000,
    seed: Annotated[int, Option(help="The same seed gives the same images.")] = 0,
    size: Annotated[str, Option(help="Height x width in pixels.")] = "256x192",
    people: Annotated[str, Option(help="Minimum and maximum number of people per image.")] = "1-3",
    skeleton: Annotated[str, Option(help="Keypoints to write: a name or YAML file.")] = "coco_wholebody133",
    workers: Annotated[int, Option(help="Number of rendering processes.")] = 1,
) -> None:
    """Render a data set of synthetic people with all keypoints: a tar archive of JPEG images and a COCO file."""
    from leanpose.synthetic import write_synthetic

    height_width = parse_sides(size, "--size", "height x width, such as 256x192")
    least_most = parse_sides(people, "--people", "a minimum and a maximum, such as 1-3", "-")
    with counting("rendering", "images") as advance:
        files = write_synthetic(out, count, seed, height_width, skeleton, least_most, workers=workers, progress=advance)
    print(f"{files.count} images of {files.people} people: {files.images} and {files.annotations}")


def _print_sets(report: "CheckReport") -> None:
    from rich.text import Text

    table = new_table("Data sets", "file", "skeleton", ">images", ">people", *(f">{level}" for level in LEVELS))
    for checked in report.sets:
        where = f"images: {checked.source.name if checked.source is not None else 'not found'}"
        name = Text.assemble(f"{printable(str(Path(*checked.file.parts[-3:])))}\n", (escaped(where), "dim"))
        counts = [len(checked.images), len(checked.people), *(report.count(level, checked.file) for level in LEVELS)]
        table.add_row(name, checked.skeleton.name, *map(str, counts))
    table_console().print(table)
    for file, reason in report.skipped.items():
        print(one_line(f"not checked: {file} ({reason})"))
    for checked in report.sets:
        for sentence in checked.summary_sentences():
            print(sentence)
    for sentence in report.notes:
        print(one_line(sentence))


def _print_findings(report: "CheckReport", examples: int) -> None:
    from rich.text import Text

    from leanpose.data_checks import KINDS

    totals = Counter(finding.kind for finding in report.findings)
    table = new_table("Findings", "level", "what", ">count", show_lines=examples > 0)
    for kind, (level, description) in KINDS.items():
        if kind in totals:
            some = [f for f in report.findings if f.kind == kind][:examples]
            lines = [("\n  " + printable(f"{finding.file.name}: {finding.text}"), "dim") for finding in some]
            table.add_row(Text(level, LEVELS[level]), Text.assemble(description, *lines), str(totals[kind]))
    if totals:
        table_console().print(table)


def print_left_out(sentences: "Sequence[str]") -> None:
    """How many images are left out, and some of the reasons."""
    if sentences:
        print(f"Left out: {len(sentences)}")
        print_some(sentences)


def write_contact_sheet(path: Path, draw: "Callable[[], np.ndarray]") -> None:
    """Write a contact sheet, or say why there is none."""
    from leanpose.drawing.files import write_image

    try:
        sheet = draw()
    except LeanposeError as error:
        print(f"No contact sheet: {error}")
        return
    write_image(sheet, path)
    print(f"Contact sheet: {path}")
