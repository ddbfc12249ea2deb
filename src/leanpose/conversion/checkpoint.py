"""Other programs' checkpoints, read without running anything that is in them.

A `.pth` file is a pickle, which can name any function to be called. PyTorch's restricted reader
(`torch.load(weights_only=True)`) knows tensors and plain containers alone. Training toolboxes store more beside the
weights: log buffers, NumPy arrays, a configuration. Their names are let through one by one, each to an inert stand-in
that keeps, at most, the numbers; neither the toolbox is imported nor NumPy's code called. Any other name is refused.
"""

from __future__ import annotations

import mmap
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leanpose.errors import LeanposeError
from leanpose.files import MODEST, describe_read_error, open_regular, open_safetensors, require_honest_archive
from leanpose.weights.storage import KEY

_CONTAINERS = (
    "state_dict", "model", "model_state_dict", "ema_state_dict", "state_dict_ema", "model_ema", "ema", "ema_model", "net",
    "network", "weights", "module", "params",
)  # fmt: skip
"""What programs save the weights under, in addition to other things."""
_AVERAGED = ("ema_state_dict", "state_dict_ema", "model_ema", "ema", "ema_model")
_WRAPPERS = ("module", "_orig_mod", "model", "net", "network", "model_ema", "ema", "ema_model")
"""What wrappers put before the names of all weights: DataParallel, torch.compile, Lightning, Hugging Face, averages."""
_MOSTLY = 0.9  # of the weights bear a wrapper's prefix; the others are those of losses and metrics next to it

# The codes of the NumPy types whose bytes are read as numbers.
_NUMBERS = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])


class PickleStub:
    """Stands for an object of another program. It takes whatever it is given, and does and keeps nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def stub_attribute(*_: Any) -> PickleStub:
    """Stands for `getattr`, by which a log buffer names its own methods; it looks nothing up."""
    return PickleStub()


class StoredType(PickleStub):
    """Stands for `numpy.dtype`: its code, such as `f8`."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code if isinstance(code, str) else ""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and ">" in state[1:2]:
            self.code = ""  # bytes in another order than this machine's are not read


class StoredArray(PickleStub):
    """Stands for `numpy.ndarray`: its shape, type and bytes, read as numbers only when asked for."""

    content: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.content = state if isinstance(state, tuple) else ()

    def numbers(self) -> np.ndarray | None:
        """The array, if it is one of plain numbers in C order."""
        try:
            _, shape, stored, fortran, content = self.content
            if fortran or stored.code not in _NUMBERS:
                return None
            return np.frombuffer(content, "<" + stored.code).reshape(shape)
        except (AttributeError, TypeError, ValueError):  # objects, or a state of another form
            return None


def empty_bytes(*_: Any) -> bytes:
    """Stands for `bytes`, which Python 2's empty ones are made by; with a number it would fill the memory with
    zeros."""
    return b""


def stored_array(*_: Any) -> StoredArray:
    """Stands for the function by which NumPy makes an empty array, which is then filled."""
    return StoredArray()


# What toolboxes put in addition to the weights. `dict` itself stands for dictionaries with another name.
_STAND_INS: list[Any] = [
    (PickleStub, "mmengine.logging.history_buffer.HistoryBuffer"),
    (stub_attribute, "builtins.getattr"),
    (dict, "mmengine.config.config.ConfigDict"),
    (dict, "mmcv.utils.config.ConfigDict"),
    (dict, "addict.addict.Dict"),
    (stored_array, "numpy.core.multiarray._reconstruct"),
    (stored_array, "numpy._core.multiarray._reconstruct"),
    (StoredArray, "numpy.ndarray"),
    (StoredType, "numpy.dtype"),
    *((StoredType, f"numpy.dtypes.{kind}DType") for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
    (PickleStub, "numpy.core.multiarray.scalar"),
    (PickleStub, "numpy._core.multiarray.scalar"),
    (empty_bytes, "builtins.bytes"),
]


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a file, and what it says of them.

    Attributes:
        tensors: by the names that the file's program gives them, floating-point ones as float32.
        dataset: what mmpose notes of the data that a model was trained on (`dataset_meta`): names of keypoints and so
            on.
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
        LeanposeError: there is no such file, it is not a checkpoint, it is corrupt, it declares more numbers than it
            holds, or it asks for something that is not known to be harmless.
    """
    try:
        with open_regular(path) as file:
            head = file.read(512)
    except OSError as error:
        raise describe_read_error(path, error) from error
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"version https://git-lfs")):
        raise LeanposeError(f"{path} is a web page or a pointer of Git LFS, not the checkpoint itself; fetch that.")
    if head[8:9] == b"{":
        tensors, notes = _network_weights(_read_safetensors(path), path)
        return Checkpoint(tensors, notes=tuple(notes))
    return _take_apart(_unpickle(path), path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with open_safetensors(path) as file:
        if KEY in (file.metadata() or {}):
            raise LeanposeError(f"{path} is already a leanpose file and needs no conversion.")
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)


def _unpickle(path: Path) -> Any:
    require_honest_archive(path, "checkpoint")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            # PyTorch's reader lets it make as many zeros as it asks for.
            if content.find(b"bytearray") >= 0:
                raise pickle.UnpicklingError("GLOBAL builtins.bytearray")
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # of a pickle that torch did not write
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"(?:GLOBAL|function) (\S+)", str(error))
        what = f" (it asks for '{asked[1]}')" if asked else ""
        raise LeanposeError(
            f"{path} is not opened: it is corrupt, or contains more than weights{what}, which may run code on your machine."
        ) from error
    except Exception as error:  # a corrupt pickle can fail in any way
        raise LeanposeError(f"{path} is corrupt, truncated or not a PyTorch checkpoint.") from error


def _take_apart(content: Any, path: Path) -> Checkpoint:
    """Find the weights in what a program has saved around them."""
    if not isinstance(content, Mapping):
        raise LeanposeError(f"{path} contains a {type(content).__name__}, not the named weights of a model.")
    held, averaged = content, False
    while keys := [key for key in _CONTAINERS if isinstance(held.get(key), Mapping)]:
        # mmengine's hook exchanges `state_dict` and `ema_state_dict` when it saves.
        exchanged = {"state_dict", "ema_state_dict"} <= set(keys)
        key = "state_dict" if exchanged else next((key for key in keys if key in _AVERAGED), keys[0])
        held, averaged = held[key], averaged or exchanged or key in _AVERAGED
    tensors = _plain_tensors({str(name): value for name, value in held.items()}, path)
    if not tensors:
        raise LeanposeError(
            f"{path} contains no weights: it has {', '.join(map(repr, list(content)[:6])) or 'no entries'}."
        )
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    dataset, config = meta.get("dataset_meta"), meta.get("cfg") or meta.get("config")
    tensors, notes = _network_weights(tensors, path)
    return Checkpoint(
        tensors,
        dataset=dataset if isinstance(dataset, Mapping) else {},
        config=config if isinstance(config, str) else "",
        notes=(*([_AVERAGE] if averaged else []), *notes),
    )


_AVERAGE = "the moving average of the weights was taken"


def _plain_tensors(named: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors and arrays among the values.

    Raises:
        LeanposeError: one is of another kind than numbers one after the other, or they declare far more numbers than
            the file
            holds: a tensor may repeat one number any number of times.
    """
    tensors: dict[str, Tensor] = {}
    declared = 0
    for name, value in named.items():
        numbers = value.numbers() if isinstance(value, StoredArray) else None
        if numbers is not None:
            tensors[name] = torch.from_numpy(numbers.copy())
        elif isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested:
                raise LeanposeError(
                    f"{path} cannot be used: its '{name}' is not a plain tensor (sparse, quantized or empty)."
                )
            declared += value.numel() * value.element_size()
            tensors[name] = value.detach()
    if declared > path.stat().st_size + MODEST:
        raise LeanposeError(
            f"{path} is not opened: its tensors declare {declared / 1e6:.0f} MB of numbers, far more than it holds."
        )
    return tensors


def _network_weights(tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors in float32 without what is not part of a network, and without the prefixes of wrappers; and what was
    done."""
    kept = {
        key: value
        for key, value in tensors.items()
        if key not in ("steps", "n_averaged") and not key.startswith("data_preprocessor.")
    }
    notes: list[str] = []
    while prefix := _wrapper_of(kept):
        others = [key for key in kept if not key.startswith(prefix)]
        if prefix.removesuffix(".") in _AVERAGED:
            notes.append(_AVERAGE)
        elif others:
            notes.append(f"{len(others)} tensors outside of '{prefix}' were left out, such as '{others[0]}'")
        kept = {key.removeprefix(prefix): value for key, value in kept.items() if key.startswith(prefix)}
    kept = {
        key: value.float() if value.is_floating_point() else value
        for key, value in kept.items()
        if key not in ("steps", "n_averaged") and not key.startswith("data_preprocessor.")
    }
    for key, value in kept.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise LeanposeError(f"{path} cannot be used: its '{key}' is not finite.")
    return kept, notes


def _wrapper_of(tensors: Mapping[str, Tensor]) -> str:
    """The prefix that a wrapper has put before the names of (nearly) all weights; empty: there is none.

    Of a network and its moving average side by side it is the average's.
    """
    first = Counter(key.split(".", 1)[0] for key in tensors if "." in key)
    for wrapper in _WRAPPERS:
        average = next((name for name in _AVERAGED if 2 * first[name] > first[wrapper]), None)
        together = first[wrapper] + (first[average] if average and average != wrapper else 0)
        if first[wrapper] and together >= _MOSTLY * len(tensors):
            return f"{average or wrapper}."
    return ""
