"""Foreign checkpoints are read without running what is in them."""

from __future__ import annotations

import os
import pickle
import sys
import tracemalloc
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from leanpose import create_model
from leanpose.conversion.checkpoint import PickleStub, StoredArray, read_checkpoint, stub_attribute
from leanpose.errors import LeanposeError
from leanpose.weights import save_model

LEGACY = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def save(content: Any, path: Path, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.fixture
def log_buffer() -> Iterator[Any]:
    """A class of the name and the pickled form of mmengine's, in a module that is gone when the file is read."""

    class HistoryBuffer:
        def __init__(self) -> None:
            self.history = np.array([1.0, 2.0])

        def mean(self) -> float:
            return float(self.history.mean())

        def __getstate__(self) -> dict[str, Any]:
            return {**self.__dict__, "statistics_methods": {"mean": HistoryBuffer.mean}}

    name = "mmengine.logging.history_buffer"
    HistoryBuffer.__module__ = HistoryBuffer.mean.__module__ = name
    HistoryBuffer.__qualname__, HistoryBuffer.mean.__qualname__ = "HistoryBuffer", "HistoryBuffer.mean"
    for module in ("mmengine", "mmengine.logging", name):
        sys.modules[module] = types.ModuleType(module)
    sys.modules[name].__dict__["HistoryBuffer"] = HistoryBuffer
    yield HistoryBuffer()
    for module in ("mmengine", "mmengine.logging", name):
        sys.modules.pop(module, None)


@LEGACY
def test_what_a_toolbox_stores_beside_the_weights_is_let_through(tmp_path: Path, log_buffer: Any, zipped: bool) -> None:
    content = {
        "meta": {"cfg": "codec = 1", "dataset_meta": {"dataset_name": "coco", "sigmas": np.array([0.1, 0.2], "f4")}},
        "state_dict": {"a.weight": torch.ones(2, dtype=torch.float16), "a.count": torch.tensor(3)},
        "message_hub": {"log_scalars": {"loss": log_buffer}, "best": np.float64(0.7)},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}},
    }
    path = save(content, tmp_path / "a.pth", zipped)
    for module in [name for name in sys.modules if name.startswith("mmengine")]:
        del sys.modules[module]
    checkpoint = read_checkpoint(path)
    assert {key: value.dtype for key, value in checkpoint.tensors.items()} == {
        "a.weight": torch.float32,
        "a.count": torch.int64,
    }
    assert checkpoint.config == "codec = 1"
    sigmas = checkpoint.dataset["sigmas"]
    assert isinstance(sigmas, StoredArray)
    np.testing.assert_array_equal(sigmas.numbers(), np.array([0.1, 0.2], "f4"))
    assert "mmengine" not in sys.modules


@LEGACY
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ["touch {}"], "posix.system"),
        (Path.touch, [Path("exploded")], "pathlib"),
        (eval, ["open('{}', 'w')"], "eval"),
        (exec, ["open('{}', 'w')"], "exec"),
        (__import__, ["os"], "__import__"),
        (np.load, ["{}"], "numpy"),
    ],
    ids=["system", "method", "eval", "exec", "import", "numpy"],
)
def test_code_is_refused_by_name_and_does_not_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    zipped: bool,
    function: Any,
    arguments: list[Any],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [a.format(tmp_path / "exploded") if isinstance(a, str) else a for a in arguments]
    bomb = {"state_dict": {"a.weight": torch.ones(2)}, "meta": Call(function, *given)}
    path = save(bomb, tmp_path / "bomb.pth", zipped)
    with pytest.raises(LeanposeError, match=f"bomb.pth is not opened: .*it asks for '.*{name}"):
        read_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_code_in_a_plain_pickle_is_refused_by_name(
    tmp_path: Path, protocol: int, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "plain.pth"
    path.write_bytes(pickle.dumps({"state_dict": Call(eval, f"open('{tmp_path / 'exploded'}', 'w')")}, protocol))
    with pytest.raises(LeanposeError, match=r"plain.pth is not opened: .*may run code on your machine"):
        read_checkpoint(path)
    assert not (tmp_path / "exploded").exists()
    assert not recwarn.list


def test_a_text_is_not_taken_for_a_pickle_that_asks_for_something(tmp_path: Path) -> None:
    path = tmp_path / "text.pth"
    path.write_text("config\nof a network\n")  # `c` begins a name in a pickle
    with pytest.raises(LeanposeError, match=r"text\.pth is not opened: it is corrupt"):
        read_checkpoint(path)


def test_getattr_is_a_name_that_looks_nothing_up(tmp_path: Path) -> None:
    reach = Call(getattr, torch.Tensor, "numpy")
    path = save({"state_dict": {"a": torch.ones(1), "b": reach}}, tmp_path / "a.pth")
    assert list(read_checkpoint(path).tensors) == ["a"]
    assert type(stub_attribute(os, "system")) is PickleStub
    assert not callable(stub_attribute(os, "system"))


@pytest.mark.parametrize(
    ("wrapped", "note"),
    [
        (lambda w: w, ""),
        (lambda w: {"model": w, "epoch": 3}, ""),
        (lambda w: {"state_dict": {f"module.{k}": v for k, v in w.items()}}, ""),
        (lambda w: {"state_dict": w, "ema_state_dict": {"module.a.weight": torch.zeros(2)}}, "average"),
        (
            lambda w: {"ema_state_dict": {**{f"module.{k}": v for k, v in w.items()}, "steps": torch.tensor(9)}},
            "average",
        ),
        (lambda w: {"state_dict": {**w, "data_preprocessor.mean": torch.zeros(3, 1, 1)}}, ""),
        (lambda w: {"state_dict": {k: v.numpy() for k, v in w.items()}}, ""),
    ],
    ids=["bare", "model", "module", "swapped average", "average alone", "preprocessor", "numpy"],
)
def test_wrappings_come_off(tmp_path: Path, wrapped: Any, note: str) -> None:
    weights = {"a.weight": torch.tensor([1.0, 2.0]), "b.bias": torch.tensor([3.0])}
    checkpoint = read_checkpoint(save(wrapped(weights), tmp_path / "a.pth"))
    assert checkpoint.tensors.keys() == weights.keys()
    assert all(torch.equal(checkpoint.tensors[key], value) for key, value in weights.items())
    assert note in " ".join(checkpoint.notes)
    assert bool(note) == bool(checkpoint.notes)


@LEGACY
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_a_file_that_was_cut_off_is_called_damaged(tmp_path: Path, zipped: bool, share: float) -> None:
    path = save({"state_dict": {f"layer{i}.weight": torch.randn(50) for i in range(20)}}, tmp_path / "a.pth", zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(LeanposeError, match="corrupt, truncated"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a PyTorch checkpoint"),
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "pointer of Git LFS"),
        (b"just some words in a file", "not a PyTorch checkpoint"),
        (b"PK\x05\x06" + bytes(18), "it is corrupt"),
    ],
)
def test_what_is_no_checkpoint_is_said_in_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(LeanposeError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "contains a list"),
        (torch.ones(2), "contains a Tensor"),
        ({"epoch": 3, "meta": {}}, "contains no weights: it has 'epoch', 'meta'"),
        ({"state_dict": {"a": torch.tensor([float("nan")])}}, "its 'a' is not finite"),
    ],
)
def test_a_pickle_without_weights_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(LeanposeError, match=message):
        read_checkpoint(save(content, tmp_path / "a.pth"))


def test_safetensors_of_other_programs_are_read_and_own_ones_are_not(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "theirs.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "theirs.safetensors").tensors["a"], torch.ones(2))
    model = create_model(
        "sdpose_t", input_size=(64, 48), embed_dim=16, depth=1, num_heads=2, stem_width=8, stage1_width=4
    )
    save_model(model, tmp_path / "ours.safetensors", training_data=[], licence="CC0", metrics={})
    with pytest.raises(LeanposeError, match="is already a leanpose file"):
        read_checkpoint(tmp_path / "ours.safetensors")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match="There is no file"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(LeanposeError, match="is a folder"):
        read_checkpoint(tmp_path)


WEIGHTS = {"backbone.a": torch.ones(2), "head.b": torch.zeros(3)}


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in WEIGHTS.items()}


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (prefixed("model."), ()),
        (prefixed("_orig_mod."), ()),
        ({"state_dict": prefixed("module._orig_mod.")}, ()),
        ({"model": {"state_dict": prefixed("net.")}}, ()),
        ({"state_dict": {"backbone.a": torch.zeros(1)}, "state_dict_ema": prefixed("module.")}, ("average",)),
        ({"model": {"x": torch.zeros(1)}, "model_ema": {**prefixed("module."), "n_averaged": torch.ones(())}}, ("average",)),
        ({"state_dict": {**prefixed("model."), **prefixed("ema_model.module.")}}, ("average",)),
        ({**{f"model.{i}": torch.ones(1) for i in range(20)}, "loss.weight": torch.ones(1)}, ("1 tensors outside of 'model.'",)),
    ],
    ids=["model", "compiled", "parallel", "nested", "timm", "ema", "beside", "loss"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [".pth", ".safetensors"])
def test_what_programs_wrap_weights_in_is_taken_off(tmp_path: Path, content: Any, notes: tuple, kind: str) -> None:
    path = tmp_path / f"a{kind}"
    if kind == ".pth":
        save(content, path)
    elif all(isinstance(value, torch.Tensor) for value in content.values()):
        save_file(content, path)
    else:
        pytest.skip("safetensors has no containers")
    checkpoint = read_checkpoint(path)
    if "backbone.a" in checkpoint.tensors:
        assert checkpoint.tensors.keys() == WEIGHTS.keys()
        assert checkpoint.tensors["backbone.a"].tolist() == [1, 1]
    else:
        assert checkpoint.tensors.keys() == {str(i) for i in range(20)}
    assert len(checkpoint.notes) == len(notes)
    assert all(words in note for words, note in zip(notes, checkpoint.notes, strict=True))


class FilledBytes:
    """Pickles as so many zeros."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return self.kind, (2_000_000_000,)


def bombs() -> dict[str, Any]:
    half = torch.ones(1_000, dtype=torch.float16)
    return {
        "one number repeated": torch.zeros(1).expand(1_500_000_000),
        "many views of one storage": {f"w{i}": half.expand(1_000, 1_000) for i in range(100)},
        "sparse": torch.sparse_coo_tensor(torch.tensor([[0], [1]]), torch.ones(1), (1 << 20, 1 << 20)),
        "without storage": torch.empty(1 << 30, device="meta"),
        "bytearray": FilledBytes(bytearray),
    }


@LEGACY
@pytest.mark.parametrize("kind", [*bombs()])
def test_more_than_the_file_holds_is_not_made(tmp_path: Path, kind: str, zipped: bool) -> None:
    content = bombs()[kind]
    path = save({"state_dict": content if isinstance(content, dict) else {"w": content}}, tmp_path / "a.pth", zipped)
    tracemalloc.start()
    with pytest.raises(
        LeanposeError, match=r"far more than it holds|not a plain tensor|it asks for 'builtins.bytearray'"
    ):
        read_checkpoint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_zeros_that_nobody_needs_are_not_made(tmp_path: Path) -> None:
    path = save({"state_dict": {"w": torch.ones(2)}, "x": FilledBytes(bytes)}, tmp_path / "a.pth")
    assert read_checkpoint(path).tensors["w"].tolist() == [1, 1]


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leanpose.files.MODEST", 1_000_000)
    path = save({"w": torch.zeros(1_000_000)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(path) as stored, zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for part in stored.infolist():
            packed.writestr(part.filename, stored.read(part))
    assert (tmp_path / "a.pth").stat().st_size < 100_000
    with pytest.raises(LeanposeError, match="its parts unpack to 4 MB, far more than it holds"):
        read_checkpoint(tmp_path / "a.pth")


def test_safetensors_that_declare_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    with pytest.raises(LeanposeError, match="is corrupt, truncated or not a safetensors file"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pth")
    for path, kind in ((tmp_path / "a.pth", "named pipe"), (Path("/dev/zero"), "device")):
        with pytest.raises(LeanposeError, match=f"it is a {kind}, no regular file"):
            read_checkpoint(path)
