"""Other programs' checkpoints, read without running anything that is in them.

A `.pth` file is a pickle, which can name any function to be called. PyTorch's restricted reader
(`torch.load(weights_only=True)`) knows tensors and plain containers alone. Training toolboxes store more beside the
weights: log buffers, NumPy arrays, a configuration. Their names are let through one by one, each to an inert stand-in
that keeps, at most, the numbers; neither the toolbox is imported nor NumPy's code called. Any other name is refused.
"""

from __future__ import annotations

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from leanpose.errors import LeanposeError

_NUMBERS = "fiub"  # the kinds of NumPy types whose bytes are read as numbers


class Inert:
    """Stands for an object of another program. It takes whatever it is given, and does and keeps nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def inert_attribute(*_: Any) -> Inert:
    """Stands for `getattr`, by which a log buffer names its own methods; it looks nothing up."""
    return Inert()


class StoredType(Inert):
    """Stands for `numpy.dtype`: its code, such as `f8`."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code if isinstance(code, str) else ""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and ">" in state[1:2]:
            self.code = ""  # bytes in another order than this machine's are not read

    def numbers(self) -> np.dtype[Any] | None:
        """The type, if it is one of plain numbers."""
        kind, size = self.code[:1], self.code[1:]
        if kind not in _NUMBERS or size not in ("1", "2", "4", "8"):
            return None
        try:
            return np.dtype("<" + self.code)
        except TypeError:
            return None


class StoredArray(Inert):
    """Stands for `numpy.ndarray`: its shape, type and bytes, read as numbers only when asked for."""

    content: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.content = state if isinstance(state, tuple) else ()

    def numbers(self) -> np.ndarray | None:
        """The array, if it is one of plain numbers in C order."""
        if len(self.content) != 5:
            return None
        _, shape, stored, fortran, content = self.content
        dtype = stored.numbers() if isinstance(stored, StoredType) else None
        if dtype is None or fortran or not isinstance(content, bytes):
            return None
        try:
            return np.frombuffer(content, dtype).reshape(shape)
        except (TypeError, ValueError):
            return None


def stored_array(*_: Any) -> StoredArray:
    """Stands for the function by which NumPy makes an empty array, which is then filled."""
    return StoredArray()


# What toolboxes put beside the weights. `dict` itself stands for dictionaries with another name.
_STAND_INS: list[Any] = [
    (Inert, "mmengine.logging.history_buffer.HistoryBuffer"),
    (inert_attribute, "builtins.getattr"),
    (dict, "mmengine.config.config.ConfigDict"),
    (dict, "mmcv.utils.config.ConfigDict"),
    (dict, "addict.addict.Dict"),
    (stored_array, "numpy.core.multiarray._reconstruct"),
    (stored_array, "numpy._core.multiarray._reconstruct"),
    (StoredArray, "numpy.ndarray"),
    (StoredType, "numpy.dtype"),
    *((StoredType, f"numpy.dtypes.{kind}DType") for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
    (Inert, "numpy.core.multiarray.scalar"),
    (Inert, "numpy._core.multiarray.scalar"),
    (bytes, "builtins.bytes"),
]


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a file, and what it says of them.

    Attributes:
        tensors: by the names that the file's program gives them, floating-point ones as float32.
        dataset: what mmpose notes of the data that a model was trained on (`dataset_meta`): names of keypoints and so on.
        config: the text of the configuration that it was trained with; empty where there is none.
        notes: how the file was taken apart, a sentence each.
    """

    tensors: dict[str, Tensor]
    dataset: Mapping[str, Any] = field(default_factory=dict)
    config: str = ""
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.pth`, `.pt`, `.bin` or `.safetensors` file of another program; nothing in it is executed.

    Raises:
        LeanposeError: there is no such file, it is no checkpoint, it is damaged, or it asks for something that is not
            known to be harmless, which is named.
    """
    if path.is_dir():
        raise LeanposeError(f"{path} is a folder, not a checkpoint.")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError as error:
        raise LeanposeError(f"There is no file {path}.") from error
    except OSError as error:
        raise LeanposeError(f"Cannot read {path}: {error.strerror or error}.") from error
    _refuse_by_look(path, head)
    if head[8:9] == b"{":
        return _clean(_read_safetensors(path), path)
    return _take_apart(_unpickle(path), path)


def _refuse_by_look(path: Path, head: bytes) -> None:
    start = head.lstrip()[:64].lower()
    if not head:
        raise LeanposeError(f"{path} is empty.")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise LeanposeError(
            f"{path} is a web page, not a checkpoint: the address that it came from did not give the file itself."
        )
    if start.startswith(b"version https://git-lfs"):
        raise LeanposeError(f"{path} is a pointer of Git LFS, not the checkpoint itself; fetch it with `git lfs pull`.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from leanpose.weights.storage import KEY

    try:
        with safetensors.safe_open(path, "pt") as file:
            if KEY in (file.metadata() or {}):
                raise LeanposeError(f"{path} is a file of leanpose already; it needs no conversion.")
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise LeanposeError(f"{path} is damaged, cut off or no safetensors file ({error}).") from error


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # of a pickle that torch did not write
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise LeanposeError(f"{path} is damaged, cut off or no checkpoint of PyTorch{_which(path)}.") from error


def _refusal(path: Path, message: str) -> LeanposeError:
    """The sentence for a file that the restricted reader gave up on."""
    for before, after in (("GLOBAL ", " was not an allowed"), ("GLOBAL ", " whose module"), ("function ", "")):
        _, found, rest = message.partition(before)
        name = rest.split(after)[0].split("\n")[0].strip() if after else rest.split("\n")[0].strip()
        if found and (not after or after in rest) and not _ends_with(path, name):
            return LeanposeError(
                f"{path} is not opened: beside weights it asks for '{name}', which may run code on your machine."
            )
    for name in _named_by_plain_pickle(path):
        if not name.startswith(("torch.", "collections.")):
            return LeanposeError(f"{path} is not opened: it asks for '{name}', which may run code on your machine.")
    return LeanposeError(f"{path} is damaged, cut off or no checkpoint of PyTorch{_which(path)}.")


def _named_by_plain_pickle(path: Path) -> list[str]:
    """What a whole pickle that torch did not write asks for; the restricted reader knows torch's own alone."""
    texts, names = [], []
    try:
        with path.open("rb") as file:
            for code, argument, _ in pickletools.genops(file):
                if code.name == "STACK_GLOBAL":
                    names.append(".".join(texts[-2:]))
                elif code.name in ("GLOBAL", "INST"):
                    names.append(str(argument).replace(" ", "."))
                elif isinstance(argument, str):
                    texts.append(argument)
    except ValueError:  # no pickle, or cut off: by chance, parts of it can look like names
        return []
    return names


def _ends_with(path: Path, name: str) -> bool:
    """Whether the file breaks off in the middle of this name."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 256))
        end, last = file.read(), name.rpartition(".")[2].encode()
    return end.endswith(last) or end[:-1].endswith(last)  # the reader takes the last byte for the end of a line


def _which(path: Path) -> str:
    """What the file may be instead."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("constants.pkl") for name in names):
            return " (it looks like a TorchScript program, which holds code)"
        if not any(name.endswith("data.pkl") for name in names):
            return " (it is an ordinary zip archive; unpack it first)"
    return ""


def _take_apart(content: Any, path: Path) -> Checkpoint:
    """Find the weights in what a program has saved around them."""
    if not isinstance(content, Mapping):
        raise LeanposeError(f"{path} holds {_kind(content)}, not the named weights of a model.")
    notes: list[str] = []
    meta = content.get("meta")
    weights: Any = content
    for key in ("state_dict", "model", "model_state_dict", "ema_state_dict"):
        if isinstance(content.get(key), Mapping):
            weights = content[key]
            if key == "ema_state_dict":
                notes.append("the moving average of the weights was taken, since there are no others")
            elif key == "state_dict" and isinstance(content.get("ema_state_dict"), Mapping):
                # mmengine's hook exchanges the two when it saves.
                notes.append("the moving average of the weights was taken, which mmengine stores as `state_dict`")
            break
    named = {str(key): _tensor(value) for key, value in weights.items()}
    tensors = {key: value for key, value in named.items() if value is not None}
    if not tensors:
        raise LeanposeError(f"{path} holds no weights: it has {_list(content)}.")
    meta = meta if isinstance(meta, Mapping) else {}
    dataset = meta.get("dataset_meta")
    config = meta.get("cfg") or meta.get("config")
    return _clean(
        tensors,
        path,
        dataset=dataset if isinstance(dataset, Mapping) else {},
        config=config if isinstance(config, str) else "",
        notes=tuple(notes),
    )


def _clean(
    tensors: dict[str, Tensor],
    path: Path,
    *,
    dataset: Mapping[str, Any] | None = None,
    config: str = "",
    notes: tuple[str, ...] = (),
) -> Checkpoint:
    """Drop what is no part of a network, and the prefix of a wrapper that all names have."""
    kept = {key: value for key, value in tensors.items() if key not in ("steps", "n_averaged")}
    while kept and all(key.startswith("module.") for key in kept):
        kept = {key.removeprefix("module."): value for key, value in kept.items()}
    kept = {key: value for key, value in kept.items() if not key.startswith("data_preprocessor.")}
    if not kept:
        raise LeanposeError(f"{path} holds no weights.")
    for key, value in kept.items():
        if value.is_floating_point():
            kept[key] = value.float()
            if not kept[key].isfinite().all():
                raise LeanposeError(f"{path} is of no use: its '{key}' is not finite.")
    return Checkpoint(kept, dataset or {}, config, notes)


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value.detach()
    numbers = value.numbers() if isinstance(value, StoredArray) else None
    return None if numbers is None else torch.from_numpy(numbers.copy())


def _kind(content: Any) -> str:
    return "a tensor" if isinstance(content, Tensor) else f"a {type(content).__name__}"


def _list(content: Mapping[Any, Any]) -> str:
    keys = [f"'{key}'" for key in list(content)[:6]]
    return "no entries" if not keys else ", ".join(keys) + (" and more" if len(content) > 6 else "")
