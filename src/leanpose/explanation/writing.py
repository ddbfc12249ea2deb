"""Writing the pictures into a folder of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leanpose.errors import LeanposeError
from leanpose.explanation.explain import Drawing
from leanpose.files import atomic_write, describe_os_error

MARKER = ".leanpose-explain"  # lists the pictures that were written, so that these alone are replaced


def check_folder(folder: Path) -> None:
    """Whether pictures may be written there.

    Raises:
        LeanposeError: it is a file, or holds something that is not an earlier explanation.
    """
    if folder.exists() and not folder.is_dir():
        raise LeanposeError(f"{folder} is a file; choose another --out.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise LeanposeError(f"{folder} holds something that is not an earlier explanation; choose another --out.")


def write(folder: Path, drawings: Sequence[Drawing]) -> None:
    """Write PNG files in place of those of an earlier explanation; whatever else lies there stays.

    Raises:
        LeanposeError: as for `check_folder`, or the folder cannot be written.
    """
    from PIL import Image

    check_folder(folder)
    marker = folder / MARKER
    try:
        for name in marker.read_text().splitlines() if marker.exists() else ():
            (folder / Path(name).name).unlink(missing_ok=True)
    except OSError as error:
        raise describe_os_error(folder, error) from error
    with atomic_write(marker) as path:
        path.write_text("".join(f"{drawing.name}\n" for drawing in drawings))
    for drawing in drawings:
        with atomic_write(folder / drawing.name) as path:
            Image.fromarray(drawing.image).save(path)
