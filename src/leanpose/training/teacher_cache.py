"""A teacher's outputs on disk: a second student that sees the same crops trains without teacher passes.

Crops are a function of (seed, epoch, person), so the outputs are too, and what is read is bit for bit what was computed.
A file an epoch holds a record of fixed length for each person, in which its tensors follow each other and a checksum ends
them; a record that is missing or torn counts as not there.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leanpose.codecs.base import Heatmaps, SimCC
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write
from leanpose.models.output import PoseOutput

PLAN_FILE = "plan.json"
_CHECKSUM = 4  # bytes


class TeacherCache:
    """The outputs of one teacher for one schedule of crops.

    Args:
        folder: made if missing.
        plan: everything that the outputs depend on, in values of JSON.
        example: an output of the teacher for one crop; says which tensors there are.
        people, epochs: of the schedule.

    Raises:
        LeanposeError: the folder holds the outputs of another plan, or its disk has no room for this one.
    """

    def __init__(self, folder: Path, plan: dict[str, Any], example: PoseOutput, *, people: int, epochs: int) -> None:
        self.folder = folder
        self._tensors = [(name, tuple(value.shape[1:]), value.dtype) for name, value in _tensors_of(example).items()]
        self._lengths = [prod(shape) * dtype.itemsize for _, shape, dtype in self._tensors]
        self._record = sum(self._lengths) + _CHECKSUM
        kept = [[name, list(shape), str(dtype)] for name, shape, dtype in self._tensors]
        # As the file gives it back, which knows no tuples.
        self._plan = json.loads(json.dumps({**plan, "people": people, "tensors": kept}))
        self._require_room(people * epochs * self._record)

    def _require_room(self, size: int) -> None:
        """See that the folder is this plan's or free, and the disk large enough; nothing is written yet."""
        path, plan = self.folder / PLAN_FILE, self._plan
        if path.exists():
            try:
                there = json.loads(path.read_text())
            except (OSError, ValueError):
                there = None
            if not isinstance(there, dict):
                raise LeanposeError(f"The teacher cache's {path} cannot be read; delete the folder to start anew.")
            for field, asked in plan.items():
                if there.get(field) != asked:
                    raise LeanposeError(
                        f"The teacher cache {self.folder} holds other outputs: its {field} is {there.get(field)}, here it is "
                        f"{asked}. Delete it, or give another distillation.teacher_cache."
                    )
            return
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise LeanposeError(f"The teacher cache {self.folder} is a folder with other files; give an empty one.")
        parent = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.exists())
        free = shutil.disk_usage(parent).free
        if free < size:
            raise LeanposeError(
                f"The teacher cache {self.folder} needs {size / 1e9:.1f} GB for the whole schedule, but {free / 1e9:.1f} GB "
                "are free; set fewer epochs, or no distillation.teacher_cache."
            )

    def read(self, epoch: int, people: Sequence[int], device: torch.device) -> PoseOutput | None:
        """The outputs for these people in this epoch; None if those of any are not there."""
        records = []
        try:
            with self._path(epoch).open("rb") as file:
                for person in people:
                    file.seek(person * self._record)
                    record = file.read(self._record)
                    if len(record) < self._record or _checksum(record[:-_CHECKSUM]) != record[-_CHECKSUM:]:
                        return None
                    records.append(record)
        except OSError:
            return None
        joined = torch.frombuffer(bytearray(b"".join(records)), dtype=torch.uint8).view(len(records), self._record)
        parts = joined[:, :-_CHECKSUM].split(self._lengths, dim=1)
        return _output_of(
            {
                name: part.contiguous().view(dtype).view(len(records), *shape).to(device)
                for (name, shape, dtype), part in zip(self._tensors, parts, strict=True)
            }
        )

    def write(self, epoch: int, people: Sequence[int], output: PoseOutput) -> None:
        """Keep the outputs for these people in this epoch.

        Raises:
            LeanposeError: the disk is full, or the folder cannot be written.
        """
        tensors = _tensors_of(output)
        for name, shape, dtype in self._tensors:
            found = tensors[name]
            assert (tuple(found.shape[1:]), found.dtype) == (shape, dtype), f"{name} is not as the plan says"
        parts = [tensors[name].cpu().contiguous().flatten(1).view(torch.uint8) for name, _, _ in self._tensors]
        records = torch.cat(parts, dim=1).numpy()
        path = self._path(epoch)
        try:
            if not (self.folder / PLAN_FILE).exists():
                with atomic_write(self.folder / PLAN_FILE) as temporary:
                    temporary.write_text(json.dumps(self._plan, indent=1))
            path.touch()
            with path.open("r+b") as file:
                for person, record in zip(people, records, strict=True):
                    file.seek(person * self._record)
                    content = record.tobytes()
                    file.write(content + _checksum(content))
        except OSError as error:
            raise LeanposeError(f"Cannot write the teacher cache's {path}: {error.strerror or error}.") from error

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04d}.bin"


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM, "little")


def _tensors_of(output: PoseOutput) -> dict[str, Tensor]:
    """What a distillation compares with: the prediction, and tokens and features where there are any."""
    prediction = output.prediction
    assert isinstance(prediction, Heatmaps | SimCC), "only teachers of heatmaps or bins are cached"
    tensors = {
        **vars(prediction),
        "keypoint_tokens": output.keypoint_tokens,
        "visual_tokens": output.visual_tokens,
        "features": output.features if isinstance(prediction, SimCC) else None,  # nobody compares heatmaps' features
    }
    return {name: value for name, value in tensors.items() if value is not None}


def _output_of(tensors: dict[str, Tensor]) -> PoseOutput:
    prediction = Heatmaps(tensors["maps"]) if "maps" in tensors else SimCC(tensors["x"], tensors["y"])
    tokens = (tensors.get("keypoint_tokens"), tensors.get("visual_tokens"))
    return PoseOutput(prediction, *tokens, features=tensors.get("features"))
