"""A harness for libFuzzer, by Atheris: `python tests/fuzz/atheris_readers.py NAME [-max_total_time=600 …]`.

It starts from the valid file of a reader of `fuzz/readers.py`, damages it inside its structure half of the time and as coverage
says otherwise, and stops at the first traceback, crash, hang, or memory beyond what a reader may take. Binary formats gain the
most: image, tiff, mp4, mat, weights, state, tar and pose onnx. Atheris is for Linux and macOS, and in no lock: `pip install atheris`.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

try:
    import atheris  # pyright: ignore[reportMissingImports]
except ImportError:
    sys.exit("This needs Atheris: pip install atheris. `make fuzz` does without.")

with atheris.instrument_imports(include=["leanpose"]):  # pyright: ignore[reportAttributeAccessIssue]
    from fuzz.readers import BYTES, SECONDS, TARGETS
    from leanpose.errors import LeanposeError


def main(name: str, options: list[str]) -> None:
    """Fuzz a reader until something is found, or as long as `options`, libFuzzer's own, say."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = target.seed(Path(folder) / "set")
        valid = path.read_bytes()
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        (corpus / "valid").write_bytes(valid)

        def read(data: bytes) -> None:
            path.write_bytes(data)
            with contextlib.suppress(LeanposeError):
                target.read(path)

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            random = Random(seed)
            damaged = target.mutate(data or valid, random) if random.random() < 0.5 else atheris.Mutate(data, most)
            return damaged[:most]

        limits = [f"-timeout={SECONDS:.0f}", f"-rss_limit_mb={BYTES // 1_000_000 + 1000}"]
        atheris.Setup(
            [sys.argv[0], *limits, f"-max_len={4 * len(valid)}", *options, str(corpus)], read, custom_mutator=mutate
        )
        atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"Say which reader: {', '.join(TARGETS)}.")
    main(sys.argv[1], sys.argv[2:])
