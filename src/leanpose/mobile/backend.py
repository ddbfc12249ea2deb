"""A mobile file as a backend: a child process computes, crop by crop."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from leanpose.backends.exported import ExportCard, ExportedBackend
from leanpose.errors import LeanposeError
from leanpose.files import any_damage
from leanpose.mobile.formats import MobileFormat
from leanpose.mobile.process import ConverterProcess

OPEN_SECONDS = 300
CROP_SECONDS = 60


class MobileBackend(ExportedBackend):
    """A file that a converter has written, opened by that converter's process.

    Args:
        process: of the format's environment.
        format: of the file.
        path: the file; weights lie beside it.
        card: what it is.
        outputs: the names of its outputs, in order.

    Attributes:
        seconds: of each crop, as the child has measured it.

    Raises:
        LeanposeError: it cannot be opened.
    """

    def __init__(
        self, process: ConverterProcess, format: MobileFormat, path: Path, card: ExportCard, outputs: Sequence[str]
    ) -> None:
        super().__init__(card, outputs)
        self.name, self.seconds = format.name, []
        self._process, self._folder = process, path.parent
        threads = torch.get_num_threads()
        request = {"file": str(path), "precision": card.precision, "outputs": list(outputs), "threads": threads}
        process.ask({"do": "open", **request}, OPEN_SECONDS)

    def compute(self, images: np.ndarray) -> Sequence[np.ndarray]:
        """Run the file on each crop; the outputs in order.

        Raises:
            LeanposeError: it cannot be run, or its outputs are none.
        """
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            given, taken = Path(folder, "in.npz"), Path(folder, "out.npz")
            np.savez(given, images=images)
            request = {"do": "run", "images": str(given), "outputs": str(taken)}
            self._process.ask(request, CROP_SECONDS * len(images))
            with any_damage("output of the converter", taken), np.load(taken, allow_pickle=False) as file:
                outputs = [file[name] for name in self._outputs]
                seconds = file["seconds"].tolist()
        if any(len(output) != len(images) for output in outputs):
            raise LeanposeError(
                f"{self.name} gives {[len(output) for output in outputs]} rows for {len(images)} crops."
            )
        self.seconds += seconds
        return outputs

    @property
    def milliseconds(self) -> float:
        """Of a crop, the median."""
        return 1e3 * float(np.median(self.seconds))
