"""`leanpose eval --format image_folder`: measure a classifier on pictures sorted by class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from leanpose.cli.options import new_table

SHOWN = 20  # classes named on the terminal; all go to --out


def evaluate_classifier(
    model: str, images: Path, split: Any, cycle: Any, batch_size: int, workers: int, device: str, out: Path | None
) -> None:
    """Print top-1 and top-5 accuracy and the classes that are told apart worst; write every number to `out`."""
    from rich.console import Console
    from rich.progress import Progress

    from leanpose.classification.data import read_class_folder
    from leanpose.classification.deit import load_classifier
    from leanpose.classification.evaluate import evaluate_classes
    from leanpose.device import choose_device
    from leanpose.evaluation.report import headline
    from leanpose.files import atomic_write

    network = load_classifier(model).to(choose_device(device))
    folder = read_class_folder(images, network.class_names, split)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=len(folder))
        measured = evaluate_classes(
            network,
            folder,
            batch_size=batch_size,
            workers=workers,
            cycle=cycle,
            advance=lambda count: progress.advance(task, count),
        )
    console, size = Console(), "x".join(map(str, network.input_size))
    console.print(
        f"[bold]{network.name}[/bold] {size} on {images}: {len(measured.labels)} pictures of {len(network.class_names)} classes, "
        f"{cycle} cycle",
        highlight=False,
    )
    console.print(headline(measured.metrics), highlight=False)
    rows = measured.rows(network.class_names)
    worst = sorted(rows, key=lambda row: row["top-1"])[:SHOWN]
    table = new_table("", "class", ">pictures", ">top-1")
    for row in worst:
        table.add_row(row["class"], str(row["pictures"]), f"{100 * row['top-1']:.1f}")
    console.print(table)
    if len(rows) > SHOWN:
        console.print(f"The other {len(rows) - SHOWN} classes are better; --out FILE.json has all.", highlight=False)
    for sentence in measured.broken.values():
        console.print(f"skipped: {sentence}", style="yellow", highlight=False)
    if out is not None:
        settings = {"model": network.name, "images": str(images), "split": split, "cycle": cycle}
        figures = {"settings": settings, "figures": measured.metrics, "by_class": rows, "broken": measured.broken}
        with atomic_write(out) as path:
            path.write_text(json.dumps(figures, indent=1, ensure_ascii=False))
