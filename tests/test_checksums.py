"""One flipped bit, anywhere in anything that is read again: what comes back is what was written, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import leanpose
from leanpose.backends.base import ModelSpec
from leanpose.backends.exported import KEY, ExportCard
from leanpose.backends.onnx import metadata_of, open_session
from leanpose.checksums import check_seal, file_checksum, seal
from leanpose.data.coco import read_coco
from leanpose.data.images import BrokenImageError
from leanpose.data.pack_file import PackConfig, PackFile
from leanpose.data.pack_writer import pack_people
from leanpose.data.readers import DatasetConfig
from leanpose.errors import LeanposeError
from leanpose.export.exporter import move_files
from leanpose.export.program import _write_proto
from leanpose.inference.detectors import CHECKSUMS, Detector
from leanpose.models.backbones.base import read_backbone, save_backbone
from leanpose.models.base import PoseModel
from leanpose.models.registry import create_model
from leanpose.pseudo_labels.labelling import ResumeFile
from leanpose.pseudo_labels.parts import Part
from leanpose.skeleton import COCO17
from leanpose.training.resume import load_state, save_state
from leanpose.weights import describe, load_model, save_model
from tiny import TINY_MODEL, write_tiny_coco

FLIPS = 200
Files = tuple[list[Path], Callable[[], Any]]
"""Files, and what reads them: a value that can be compared."""


@pytest.fixture(scope="module")
def model() -> PoseModel:
    torch.manual_seed(0)
    return create_model("sdpose_t", **TINY_MODEL)


def state(folder: Path, model: PoseModel) -> Files:
    """Two states, so that a corrupt one has another to fall back to: the step tells which was read."""
    for step in (20, 40):
        save_state(folder, {"run": {"step": step}, "task": {"w": torch.full((40, 10), float(step))}})

    def read() -> Any:
        found = load_state(folder)
        assert torch.equal(found["task"]["w"], torch.full((40, 10), float(found["run"]["step"])))
        assert found["run"]["step"] in (20, 40)
        return 0

    return [folder / "state.pt"], read


def weights(folder: Path, model: PoseModel) -> Files:
    save_model(model, folder / "m.safetensors", training_data=["none"], licence="none", metrics={"AP": 0.5})

    def read() -> Any:
        loaded = load_model(folder / "m.safetensors")
        card = [loaded.mean, loaded.std, loaded.config, loaded.codec.to_dict(), loaded.skeleton]
        return card, {name: value.tolist() for name, value in loaded.state_dict().items()}

    return [folder / "m.safetensors"], read


def backbone(folder: Path, model: PoseModel) -> Files:
    path = folder / "b.safetensors"
    save_backbone({"w": torch.arange(99.0), "b": torch.ones(7)}, path, variant="x", training_data=[], licence="none")
    return [path], lambda: {name: value.tolist() for name, value in read_backbone(path, "x").items()}


def raw_crops(folder: Path, model: PoseModel, encoding: Any = "raw") -> Files:
    write_tiny_coco(folder, people=3)
    source = DatasetConfig(format="coco", images=Path("images"), annotations=Path("annotations.json"))
    dataset = read_coco(source, COCO17, folder, training=True)
    pack_people([dataset], COCO17, PackConfig((64, 48), encoding=encoding), folder / "crops.pack")

    def read() -> Any:
        cache = PackFile(folder / "crops.pack")
        rows = cache.find(dataset.people)
        return cache.config, cache.broken, [(p.tobytes(), m.tolist()) for p, m in map(cache.read, rows.tolist())]

    return [folder / "crops.pack"], read


def jpeg_crops(folder: Path, model: PoseModel) -> Files:
    return raw_crops(folder, model, "jpeg")


def onnx_file(folder: Path, model: PoseModel) -> Files:
    """A graph in the place of a network, so that two hundred sessions are opened in a second."""
    from onnx import TensorProto, helper, numpy_helper

    table = np.arange(60, dtype=np.float32)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [60]) for name in ("images", "heatmaps")]
    graph = helper.make_graph(
        [helper.make_node("Add", ["images", "w"], ["heatmaps"])], "g", [values[0]], [values[1]],
        [numpy_helper.from_array(table, "w")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    _write_proto(proto, ExportCard(ModelSpec.of(model), True, False), folder / "staged.onnx")
    move_files(folder / "staged.onnx", folder / "m.onnx")

    def read() -> Any:
        session = open_session(folder / "m.onnx", cuda=False, threads=1)
        return metadata_of(session, folder / "m.onnx").get(KEY), np.asarray(
            session.run(["heatmaps"], {"images": table})[0]
        ).tolist()

    return [folder / "m.onnx"], read


def openvino_files(folder: Path, model: PoseModel) -> Files:
    (folder / "m.xml").write_text("<net><layer/></net>\n")
    (folder / "m.bin").write_bytes(bytes(range(200)))
    seal(folder / "m.xml", folder / "m.bin")

    def read() -> Any:
        check_seal(folder / "m.xml", folder / "m.bin")
        content = (folder / "m.xml").read_bytes()
        return content[: content.index(b"</net>")], (folder / "m.bin").read_bytes()

    return [folder / "m.xml", folder / "m.bin"], read


def unfinished_labels(folder: Path, model: PoseModel) -> Files:
    path, settings = folder / "labels.json.partial", {"annotations": "0"}
    first = ResumeFile(path, settings)
    part = Part("accepted", np.full((4, 3), 3.25), 30.0, 0.25)
    for image in range(1, 4):
        first.append(image, {image: {"face": part}})
    whole = {image: {p: {"face": part.to_list()} for p in people} for image, people in first.done.items()}

    def read() -> Any:
        found = {i: {p: {n: x.to_list() for n, x in parts.items()} for p, parts in people.items()} for i, people in ResumeFile(path, settings).done.items()}  # fmt: skip
        assert found.items() <= whole.items(), "a line that was truncated is looked for again, none is another one"
        return 0

    return [path], read


@pytest.mark.parametrize(
    "write",
    [state, weights, backbone, raw_crops, jpeg_crops, onnx_file, openvino_files, unfinished_labels],
)
def test_a_flipped_bit_never_gives_another_result(
    write: Callable[[Path, PoseModel], Files], model: PoseModel, tmp_path: Path
):
    files, read = write(tmp_path, model)
    expected = read()
    rng = np.random.default_rng(0)
    refused = 0
    for path in files:
        content = path.read_bytes()
        places = rng.integers(0, 8 * len(content), FLIPS // len(files)).tolist()
        places += list(range(8 * len(content) - 24, 8 * len(content)))  # and in the seal
        for place in places:
            damaged = bytearray(content)
            damaged[place // 8] ^= 1 << place % 8
            path.write_bytes(damaged)
            try:
                assert read() == expected, f"bit {place} of {path.name}"
            except (LeanposeError, BrokenImageError):
                refused += 1
        path.write_bytes(content)
    assert read() == expected
    assert refused > FLIPS / 2 or write is state  # whose other file is read then


PACKAGE = Path(leanpose.__file__).parent


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.safetensors")), ids=lambda path: path.name)
def test_a_changed_card_of_the_packages_weights_is_noticed(path: Path, tmp_path: Path):
    assert describe(path)["sha256"]
    content = path.read_bytes()
    place = content.index(b"licence") + 15
    changed = tmp_path / path.name
    changed.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(LeanposeError, match="its card is not what was written"):
        describe(changed)


def test_a_changed_detector_of_the_package_is_noticed(monkeypatch: pytest.MonkeyPatch):
    files = list(PACKAGE.rglob("*.onnx"))
    assert {file: file_checksum(file) for file in files} == CHECKSUMS
    monkeypatch.setitem(CHECKSUMS, files[0], "00000000")
    with pytest.raises(LeanposeError, match="is corrupt: its checksum differs"):
        Detector.load("auto")


def test_a_damaged_state_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    files, _ = state(tmp_path, None)  # pyright: ignore[reportArgumentType]
    content = files[0].read_bytes()
    files[0].write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])
    assert load_state(tmp_path)["run"]["step"] == 20
    assert caplog.messages == [
        f"{files[0]} is corrupt, or another program has changed it: its leanpose_crc32 differs. The run resumes from the previous "
        "state, of step 20."
    ]
    (tmp_path / "state-previous.pt").write_bytes(b"half")
    with pytest.raises(LeanposeError, match=r"state\.pt is corrupt"):
        load_state(tmp_path)


def test_a_kill_between_the_two_renamings_leaves_a_state(tmp_path: Path):
    files, _ = state(tmp_path, None)  # pyright: ignore[reportArgumentType]
    files[0].unlink()
    assert load_state(tmp_path)["run"]["step"] == 20


def test_whatever_a_sealed_states_content_raises_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def misled(
        *_: object, **__: object
    ) -> None:  # as torch's reader is where a state names a function with other arguments
        raise TypeError("_rebuild_tensor_v2() missing 2 required positional arguments")

    save_state(tmp_path, {"run": {"step": 1}})
    monkeypatch.setattr("torch.load", misled)
    with pytest.raises(LeanposeError, match=r"state\.pt is corrupt \(TypeError\)"):
        load_state(tmp_path)
