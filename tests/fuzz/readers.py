"""Every reader of files that come from elsewhere, with small valid files to begin with, how these are corrupt, and what holds of a
value that is read in spite of the corruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from clips import write_clip
from data_builders import write_lsp, write_tar
from detector_files import answering
from fuzz import label_files, mutators
from leanpose.backends import open_exported
from leanpose.backends.foreign import parse
from leanpose.conversion.onnx_graph import read_graph
from leanpose.data.annotations import ImageRef
from leanpose.data.convert import WRITERS, convert_labels
from leanpose.data.images import read_image
from leanpose.data.inputs import ImageFile
from leanpose.data.pack_file import PackConfig, PackFile
from leanpose.data.pack_writer import pack_people
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data.sets import training_sets
from leanpose.data.shard_writer import write_shards
from leanpose.data.ubody import read_split_list
from leanpose.data_checks import check_data, report_dict
from leanpose.errors import LeanposeError
from leanpose.files import load_yaml
from leanpose.inference.box_file import BoxFile
from leanpose.inference.detectors import Detector
from leanpose.models.backbones.base import describe_backbone, read_backbone, save_backbone
from leanpose.models.registry import create_model
from leanpose.pseudo_labels.labelling import BodyDataset
from leanpose.report.runs import draw_loss_terms, part_table, read_run, run_table
from leanpose.skeleton import COCO17, WHOLEBODY133, get_skeleton
from leanpose.training.recipe import load_recipe, parse_recipe
from leanpose.training.resume import load_state, save_state
from leanpose.video.reader import VideoReader, looks_like_video
from leanpose.weights import describe, load_model, save_model
from pose_files import constant_file
from tiny import TINY_MODEL, tiny_recipe

SECONDS, BYTES = 20.0, 1_500_000_000
"""What a reader may take."""


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        seed: writes a valid file, with what it needs around it, into an empty folder, and gives its path.
        mutate: makes a corrupt file's bytes of the valid one's.
        read: reads a file, and looks at what it has read.
        few: inputs that the tests try.
        share: of `make fuzz`'s inputs, compared with the others'.
    """

    seed: Callable[[Path], Path]
    mutate: mutators.Mutator
    read: Callable[[Path], object]
    few: int = 200
    share: float = 1.0


def attempt(target: Target, valid: bytes, path: Path, seed: str) -> LeanposeError | None:
    """Read a corrupt file: None, or the sentence that says what is wrong with it.

    Raises:
        Exception: a traceback, or a value that cannot be right.
    """
    path.write_bytes(target.mutate(valid, Random(seed)))
    try:
        target.read(path)
    except LeanposeError as error:
        return error
    finally:
        for other in path.parent.glob("written*"):
            other.unlink()
    return None


def _require_sound(people: Any) -> None:
    """What training and evaluation rely on."""
    assert people.people, "a set of nobody is an error"
    for one in people.people:
        points = one.keypoints
        assert points.dtype == np.float32, points.dtype
        assert np.isfinite(points).all(), points
        assert (np.abs(points[points[:, 2] > 0, :2]) < 1e7).all(), points
        assert set(points[:, 2].tolist()) <= {-1.0, 0.0, 1.0, 2.0}, points
        assert np.isfinite(one.box).all(), one.box
        assert (one.box[2:] > one.box[:2]).all(), one.box
        assert np.abs(one.box).max() < 1e7, one.box
        assert 0 < one.area < 1e15, one.area
        assert np.isfinite(one.score), one.score
        assert str(one.image), "an image"
    assert people.ground_truth is None or json.dumps(people.ground_truth["annotations"], allow_nan=False)


def _people(**settings: Any) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        config = DatasetConfig(annotations=Path(path.name), **settings)
        skeleton = WHOLEBODY133 if settings["format"] == "coco_wholebody" else COCO17
        failed = None
        for training in (True, False):
            try:
                _require_sound(read_people(config, skeleton, path.parent, training=training))
            except LeanposeError as error:
                failed = error
        if failed is not None:
            raise failed

    return read


def _labels(path: Path) -> None:
    for kind in WRITERS:
        if kind != "yolo":  # it copies the images, which takes longer than all else
            convert_labels(path, path.parent / f"written-{kind}.txt", kind)


def _auto(path: Path) -> None:
    _people(format="auto")(path)


def _boxes(folder: Path) -> Path:
    content = json.loads(label_files.coco(folder).read_text())
    (folder / "boxes.json").write_text(json.dumps({**content, "annotations": content["annotations"]}))
    return folder / "boxes.json"


def _read_boxes(path: Path) -> None:
    boxes = BoxFile(path)
    image = ImageFile(path.parent / "images" / "0001.jpg", "0001.jpg", 1)
    boxes.doubts([image])
    found, scores = boxes.boxes(image)
    assert np.isfinite(found).all()
    assert (np.abs(found) < 1e7).all(), found
    assert np.isfinite(scores).all()
    boxes.require_numbers([image])


def _detections(folder: Path) -> Path:
    label_files.coco(folder)
    rows = [{"image_id": i, "category_id": 1, "bbox": [10.0, 10.0, 50.0, 90.0], "score": 0.9} for i in (1, 2)]
    (folder / "detections.json").write_text(json.dumps(rows))
    return folder / "detections.json"


def _read_detections(path: Path) -> None:
    config = DatasetConfig(
        format="coco", annotations=Path("annotations.json"), images=Path("images"), bbox_file=Path(path.name)
    )
    _require_sound(read_people(config, COCO17, path.parent, training=False))


def _recipe(folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(parse_recipe(tiny_recipe(folder)).to_yaml())
    return path


def _read_recipe(path: Path) -> None:
    recipe = load_recipe(path)
    assert 0 <= recipe.seed < 2**63
    yaml.safe_load(recipe.to_yaml())


def _skeleton(folder: Path) -> Path:
    path = folder / "skeleton.yaml"
    values = COCO17.to_dict() | {"pairs": [[1, 2], [3, 4]]}
    path.write_text(yaml.safe_dump(values))
    return path


def _read_skeleton(path: Path) -> None:
    skeleton = get_skeleton(path)
    assert np.isfinite(skeleton.sigmas).all(), skeleton.sigmas
    assert min(skeleton.sigmas) > 0, skeleton.sigmas
    assert sorted(skeleton.flip_indices) == list(range(len(skeleton)))


def _description(folder: Path) -> Path:
    path = folder / "pose.yaml"
    path.write_text(
        yaml.safe_dump(
            {"kind": "heatmaps", "outputs": ["h"], "skeleton": "coco17", "mean": [0.5] * 3, "std": [0.5] * 3}
        )
    )
    return path


def _weights(folder: Path) -> Path:
    torch.manual_seed(0)
    path = folder / "model.safetensors"
    model = create_model("sdpose_t", **TINY_MODEL)
    save_model(model, path, training_data=["none"], licence="none", metrics={"AP": 0.5}, dtype=torch.float16)
    return path


def _read_weights(path: Path) -> None:
    describe(path)
    load_model(path)


def _backbone(folder: Path) -> Path:
    path = folder / "backbone.safetensors"
    save_backbone({"w": torch.zeros(2)}, path, variant="hrnet_w32", training_data=[], licence="none")
    return path


def _read_backbone(path: Path) -> None:
    describe_backbone(path)
    read_backbone(path, "hrnet_w32")


def _pose_onnx(folder: Path) -> Path:
    maps = np.zeros((1, 17, 16, 12), np.float32)
    return constant_file(folder / "pose.onnx", ["batch", 3, 64, 48], {"heatmaps": maps})


def _run_pose(path: Path) -> None:
    backend = open_exported(path)
    height, width = backend.spec.input_size
    points, scores = backend.predict_keypoints(np.zeros((1, height, width, 3), np.uint8))
    assert points.shape == (1, len(backend.spec.skeleton), 2)
    assert np.isfinite(points).all()
    assert np.isfinite(scores).all()


def _exported(folder: Path) -> Path:
    """With a card of leanpose."""
    import onnx

    path = _pose_onnx(folder)
    model = onnx.load(path)
    codec = {"name": "heatmap", "input_size": [64, 48], "heatmap_size": [16, 12]}
    card = {
        "model": "x", "skeleton": COCO17.to_dict(), "codec": codec, "mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [64, 48],
        "export": {"preprocessing": False, "decoding": False, "precision": "fp32"},
    }  # fmt: skip
    onnx.helper.set_model_props(model, {"leanpose": json.dumps(card)})
    onnx.save(model, path)
    return path


def _detector(folder: Path) -> Path:
    rows = np.array([[[10, 10, 40, 60, 0.9], [0, 0, 5, 5, 0.1]]], np.float32)
    return answering(folder / "detector.onnx", {"dets": rows, "labels": np.zeros((1, 2), np.int64)}, size=(64, 64))


def _detect(path: Path) -> None:
    detector = Detector.load(path)
    boxes, scores = detector([np.zeros((64, 64, 3), np.uint8)])[0]
    assert np.isfinite(boxes).all()
    assert np.isfinite(scores).all()


def _clip(folder: Path) -> Path:
    return write_clip(folder / "clip.mp4", frames=4, size=(32, 48))


def _watch(path: Path) -> None:
    looks_like_video(path)
    with VideoReader(path) as video:
        for number, frame in enumerate(video):
            assert frame.pixels.shape[:2] == video.size or frame.pixels.ndim == 3
            if number > 20:
                break


def _read_frame(path: Path) -> None:
    assert read_image(ImageRef(str(path), "000002.png")).ndim == 3


def _run(folder: Path) -> Path:
    settings = parse_recipe(tiny_recipe(Path())).model_dump(mode="json")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    (folder / "train.csv").write_text("step,epoch,lr,seconds,pose,teacher\n20,1,0.1,5,0.5,0.25\n40,2,0.1,9,0.4,-0.2\n")
    (folder / "val.csv").write_text("step,epoch,seconds,AP,AR,AP .5\n20,1,5,0.1,0.2,0.3\n40,2,9,0.2,0.3,0.4\n")
    return folder / "val.csv"


def _train_log(folder: Path) -> Path:
    return _run(folder).with_name("train.csv")


def _run_recipe(folder: Path) -> Path:
    return _run(folder).with_name("recipe.yaml")


def _report(path: Path) -> None:
    import matplotlib.pyplot as plt

    run = read_run(path.parent)
    run_table([run])
    part_table([run])
    draw_loss_terms([run])
    plt.close("all")


def _state(folder: Path) -> Path:
    state = {"run": {"step": 1, "epoch": 0}, "model": {"w": torch.zeros(2, 3)}, "metrics": {"AP": 0.5}, "broken": ["x"]}
    save_state(folder, state)
    return folder / "state.pt"


def _read_state(path: Path) -> None:
    assert isinstance(load_state(path.parent), dict)


def _pack(folder: Path) -> Path:
    label_files.coco(folder)
    config = DatasetConfig(format="coco", annotations=Path("annotations.json"), images=Path("images"))
    people = read_people(config, COCO17, folder, training=True)
    pack_people([people], COCO17, PackConfig(input_size=(64, 48), encoding="raw"), folder / "crops.pack")
    return folder / "crops.pack"


def _shards(folder: Path) -> Path:
    path = _pack(folder)
    write_shards(PackFile(path), str(folder / "bucket"), folder / "crops.shards", megabytes=0.02)
    return folder / "crops.shards"


def _read_pack(path: Path) -> None:
    cache = PackFile(path)
    for row in cache.rows.tolist():
        pixels, matrix = cache.read(row)
        assert pixels.ndim == 3
        assert np.isfinite(matrix).all()


def _tar(folder: Path) -> Path:
    label_files.coco(folder)
    members = {name: (folder / "images" / name).read_bytes() for name in ("0001.jpg", "0002.jpg")}
    return write_tar(folder / "images.tar", members)


def _read_tar(path: Path) -> None:
    config = DatasetConfig(format="coco", annotations=Path("annotations.json"), images=Path(path.name))
    for one in read_people(config, COCO17, path.parent, training=True).people:
        read_image(one.image)


def _image(suffix: str, **settings: Any) -> Callable[[Path], Path]:
    def seed(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"image{suffix}"
        pixels = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 85
        image = Image.fromarray(pixels if suffix == ".tiff" else (pixels >> 8).astype(np.uint8))
        image.save(path, **settings)
        return path

    return seed


def _read_image(path: Path) -> None:
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def _mat(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return write_lsp(folder, people=2)


def _read_mat(path: Path) -> None:
    _people(format="lsp", images="images")(path)


def _convolution(folder: Path) -> Path:
    from onnx import TensorProto, helper, numpy_helper

    names = ("images", "features")
    images, features = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in names)
    node = helper.make_node("Conv", ["images", "w"], ["features"], pads=[1, 1, 1, 1])
    weights = numpy_helper.from_array(np.zeros((3, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph([node], "g", [images], [features], [weights])
    path = folder / "network.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


def _read_convolution(path: Path) -> None:
    graph = read_graph(path)
    graph.run({graph.input.name: np.zeros((1, 3, 8, 8), np.float32)}, ["features"])


def _split_list(folder: Path) -> Path:
    np.save(folder / "list.npy", np.array(["talk", "walk"]))
    return folder / "list.npy"


def _body(path: Path) -> None:
    dataset = BodyDataset.open(path, path.parent / "images")
    for people in dataset.people_by_image().values():
        for position in people:
            dataset.keypoints(position)
            dataset.box(position)


def _check(path: Path) -> None:
    json.dumps(report_dict(check_data([path])), allow_nan=False)


def _openvino(folder: Path) -> Path:
    import openvino

    path = _pose_onnx(folder)
    openvino.save_model(openvino.convert_model(path), folder / "pose.xml")
    return folder / "pose.xml"


TARGETS: dict[str, Target] = {
    "coco": Target(label_files.coco, mutators.change_json, _people(format="coco", images="images")),
    "coco_wholebody": Target(
        label_files.wholebody, mutators.change_json, _people(format="coco_wholebody", images="images"), 60
    ),
    "mpii": Target(label_files.mpii, mutators.change_json, _people(format="mpii", images="images"), 100),
    "auto": Target(label_files.coco, mutators.change_json, _auto, 60),
    "labelme": Target(label_files.labelme, mutators.change_json, _auto),
    "label studio": Target(label_files.label_studio, mutators.change_json, _auto),
    "cvat": Target(label_files.cvat, mutators.change_xml, _auto),
    "csv": Target(label_files.csv_table, mutators.change_csv, _auto),
    "deeplabcut": Target(label_files.dlc, mutators.change_csv, _auto),
    "yolo": Target(label_files.yolo, mutators.change_yaml, _auto, 100),
    "yolo lines": Target(
        label_files.yolo_lines, mutators.change_words, lambda path: _auto(path.parents[2] / "data.yaml"), 100
    ),
    "convert": Target(label_files.label_studio, mutators.change_json, _labels, 60),
    "convert coco": Target(label_files.coco, mutators.change_json, _labels, 40),
    "check": Target(label_files.coco, mutators.change_json, _check, 30, 0.3),
    "check labels": Target(label_files.cvat, mutators.change_xml, _check, 30, 0.3),
    "pseudo labels": Target(label_files.coco, mutators.change_json, _body, 60),
    "boxes": Target(_boxes, mutators.change_json, _read_boxes),
    "detections": Target(_detections, mutators.change_json, _read_detections, 100),
    "recipe": Target(_recipe, mutators.change_yaml, _read_recipe, 60),
    "skeleton": Target(_skeleton, mutators.change_yaml, _read_skeleton),
    "description": Target(
        _description, mutators.change_yaml, lambda path: parse(load_yaml(path, "description"), str(path))
    ),
    "training sets": Target(label_files.yolo, mutators.change_yaml, lambda path: training_sets(path.parent), 60),
    "weights": Target(_weights, mutators.change_safetensors, _read_weights, 40, 0.5),
    "backbone": Target(_backbone, mutators.change_safetensors, _read_backbone),
    "pose onnx": Target(_pose_onnx, mutators.change_onnx, _run_pose, 100),
    "exported onnx": Target(_exported, mutators.change_onnx, _run_pose, 100),
    "detector onnx": Target(_detector, mutators.change_onnx, _detect, 100),
    "openvino": Target(_openvino, mutators.change_xml, _run_pose, 0, 0.1),
    "convert onnx": Target(_convolution, mutators.change_onnx, _read_convolution, 60),
    "jpeg": Target(_image(".jpg"), mutators.change_bytes, _read_image, 60),
    "png": Target(_image(".png"), mutators.change_bytes, _read_image, 60),
    "webp": Target(_image(".webp"), mutators.change_bytes, _read_image, 60),
    "gif": Target(_image(".gif"), mutators.change_bytes, _read_image, 60),
    "tiff": Target(_image(".tiff", compression="tiff_deflate"), mutators.change_bytes, _read_image, 100),
    "mat": Target(_mat, mutators.change_bytes, _read_mat, 60),
    "mp4": Target(_clip, mutators.change_mp4, _watch, 100),
    "frame of an mp4": Target(_clip, mutators.change_mp4, _read_frame, 40),
    "val.csv": Target(_run, mutators.change_csv, _report, 30, 0.3),
    "train.csv": Target(_train_log, mutators.change_csv, _report, 30, 0.3),
    "recipe of a run": Target(_run_recipe, mutators.change_yaml, _report, 20, 0.2),
    "state": Target(_state, mutators.change_zip, _read_state, 100),
    "pack": Target(_pack, mutators.change_bytes, _read_pack, 100),
    "shards": Target(_shards, mutators.change_bytes, _read_pack, 100),
    "tar": Target(_tar, mutators.change_tar, _read_tar, 40, 0.5),
    "split list": Target(_split_list, mutators.change_bytes, read_split_list),
}
"""By name. `few` is chosen so that all of them take some 20 seconds."""
