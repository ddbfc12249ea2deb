"""`leanpose explain`: plots of a model's attention and predictions for one person."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from leanpose.cli.options import DetectorOption
from leanpose.errors import LeanposeError
from leanpose.files import require_own_folder

DEPTHS = ("depth", "cycles", "encoder_layers", "decoder_layers")
"""Model options that are printed."""


def explain(
    image: Annotated[Path, Argument(help="An image.")],
    model: Annotated[
        str, Option(help="A released name, a .safetensors file, or hf://USER/NAME.")
    ] = "leanpose-body-tokenpose",
    teacher: Annotated[str | None, Option(help="A heatmap model of the same keypoints and crops.")] = None,
    keypoint: Annotated[
        list[str] | None, Option(help="Keypoint whose attention is plotted (repeatable). [default: nose]")
    ] = None,
    compare: Annotated[
        list[str] | None, Option(help="Model whose weight distribution is compared (repeatable).")
    ] = None,
    box: Annotated[
        tuple[float, float, float, float] | None, Option(help="Box of the person, in pixels.", metavar="X1 Y1 X2 Y2")
    ] = None,
    detector: DetectorOption = "auto",
    person: Annotated[int, Option(min=0, help="Person to explain: 0 for the largest, 1 for the next …")] = 0,
    out: Annotated[
        Path | None, Option("--out", "-o", help="Output folder. [default: IMAGE_explained, next to the image]")
    ] = None,
) -> None:
    """Plot a model's attention, predictions and weight distribution."""
    if box is not None and (detector != "auto" or person):
        raise LeanposeError("Give --box, or --detector and --person, not both.")

    from leanpose.data.images import read_image
    from leanpose.explanation import explain as draw
    from leanpose.explanation.explain import MARKER, write_drawings
    from leanpose.explanation.person import check_box, choose_box
    from leanpose.inference.detectors import Detector
    from leanpose.weights import load_model

    folder = out or image.with_name(f"{image.stem}_explained")
    require_own_folder(folder, MARKER, "explanation")  # before models are loaded
    photo, net = read_image(image), load_model(model)
    teacher_net = None if teacher is None else load_model(teacher)
    label, *labels = _labels([model, *(compare or [])])
    others = {name: load_model(file) for name, file in zip(labels, compare or [], strict=True)}
    if box is not None:
        chosen, whence = check_box(photo, box), "--box"
    else:
        found = Detector.load(detector)
        chosen, people = choose_box(photo, found, person)
        whence = f"{person + 1} of {people} by size, from {found.name}" if people > 1 else f"from {found.name}"
    size, config = "×".join(map(str, net.input_size)), asdict(net.config)
    depth = "".join(f", {key}={config[key]}" for key in DEPTHS if key in config)
    print(f"Model:    {model} ({net.name}, {len(net.skeleton)} keypoints, {size}{depth})")
    print(f"Person:   {' '.join(f'{side:.0f}' for side in chosen)}, {whence}")
    drawings = draw(photo, chosen, net, label=label, keypoints=keypoint or [], teacher=teacher_net, others=others)
    if not any(drawing.name in ("keypoint_attention.png", "query_attention.png") for drawing in drawings):
        print("          This model has no attention between keypoints: not plotted.")
    write_drawings(folder, drawings)
    print(f"Images: in {folder}")
    width = max(len(drawing.name) for drawing in drawings)
    for drawing in drawings:
        print(f"          {drawing.name:{width}}  {drawing.title}")


def _labels(names: list[str]) -> list[str]:
    """Short names for models, or the whole ones where the short ones are not all different."""
    short = [_label(name) for name in names]
    return short if len(set(short)) == len(set(names)) else names


def _label(name: str) -> str:
    """A released name as it is; a file's own name, or its folder's for the best and last weights of a run."""
    path = Path(name)
    if path.suffix != ".safetensors":
        return name
    return path.parent.name if path.stem in ("best", "last") and path.parent.name else path.stem
