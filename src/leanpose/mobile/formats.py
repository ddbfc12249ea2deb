"""What is known of each mobile format. How one is written and run is in `converters`, one file each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CONVERTERS = Path(__file__).parent / "converters"
"""Files that run in a converter's environment, and lists of the packages there. They are no modules of leanpose."""


@dataclass(frozen=True)
class MobileFormat:
    """A format, its files and its converter.

    Attributes:
        name: as `--format` has it.
        title: as its makers write it.
        suffixes: of the files; the first one's is that of the name that is given.
        source: what the converter reads.
        modules: what can be imported in an environment that can convert and run.
        download_mb, disk_mb: of the environment that leanpose makes, in Linux.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    source: Literal["onnx", "torch-export"]
    modules: tuple[str, ...]
    download_mb: int
    disk_mb: int

    @property
    def script(self) -> Path:
        """What the environment's Python runs."""
        return CONVERTERS / f"to_{self.name}.py"

    @property
    def requirements(self) -> list[Path]:
        """Lists of all packages of the environment, with versions, to be installed one after the other."""
        return sorted(CONVERTERS.glob(f"{self.name}*.txt"))


MOBILE_FORMATS = {
    known.name: known
    for known in (
        MobileFormat("ncnn", "ncnn", (".ncnn.param", ".ncnn.bin"), "onnx", ("ncnn", "pnnx"), 60, 210),
        MobileFormat(
            "litert", "LiteRT", (".tflite",), "torch-export", ("litert_torch", "ai_edge_litert"), 500, 2100
        ),
        MobileFormat("mnn", "MNN", (".mnn",), "onnx", ("MNN",), 30, 160),
    )
}  # fmt: skip
