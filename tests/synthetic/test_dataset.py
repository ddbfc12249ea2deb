"""Synthetic data sets on disk."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from leanpose.data.readers import DatasetConfig
from leanpose.errors import LeanposeError
from leanpose.skeleton import BODY19, COCO17
from leanpose.synthetic import render_scene, write_synthetic
from leanpose.synthetic.dataset import read_synthetic


def test_the_files_hold_the_scenes(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    files = write_synthetic(
        tmp_path / "set", 6, 9, (128, 96), "body19", (1, 2), progress=lambda *step: done.append(step)
    )
    assert done == [(i, 6) for i in range(1, 7)]
    content = json.loads(files.annotations.read_text())
    assert len(content["images"]) == files.count == 6
    assert len(content["annotations"]) == files.people
    assert content["categories"][0]["keypoints"] == list(BODY19.keypoints)
    with tarfile.open(files.images) as archive:
        assert archive.getnames() == [image["file_name"] for image in content["images"]]
        for index, image in enumerate(content["images"]):
            member = archive.extractfile(image["file_name"])
            assert member is not None
            pixels = cv2.imdecode(np.frombuffer(member.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
            assert pixels is not None
            scene = render_scene(9, index, (128, 96), people=(1, 2), skeleton="body19")
            assert np.abs(pixels.astype(int) - scene.image).mean() < 8  # JPEG
            people = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            assert len(people) == len(scene.boxes)
            for person, keypoints, box, area in zip(people, scene.keypoints, scene.boxes, scene.areas, strict=True):
                written = np.array(person["keypoints"]).reshape(-1, 3)
                seen = keypoints[:, 2] > 0
                np.testing.assert_allclose(written[seen], keypoints[seen], atol=0.006)
                assert (written[~seen] == 0).all()
                assert person["num_keypoints"] == seen.sum()
                assert person["area"] == area
                np.testing.assert_array_equal(person["bbox"], (*box[:2], *(box[2:] - box[:2])))
                assert person["iscrowd"] == 0


def test_coco_tools_evaluate_against_it(tmp_path: Path) -> None:
    from faster_coco_eval import COCO as FasterCOCO
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    files = write_synthetic(tmp_path, 8, 1, skeleton="coco17")
    with contextlib.redirect_stdout(io.StringIO()):
        truth: Any = COCO(str(files.annotations))  # its types say that results come from a file
        assert len(FasterCOCO(str(files.annotations)).getAnnIds()) == files.people
        perfect = [
            {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 1.0}
            for a in truth.loadAnns(truth.getAnnIds())
            if a["num_keypoints"]
        ]
        evaluation = COCOeval(truth, truth.loadRes(perfect), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    one = write_synthetic(tmp_path / "one", 5, 4, (96, 72))
    two = write_synthetic(tmp_path / "two", 5, 4, (96, 72), workers=2)
    assert one.images.read_bytes() == two.images.read_bytes()
    assert one.annotations.read_bytes() == two.annotations.read_bytes()


def test_a_failed_write_leaves_nothing_half_done(tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path, 4, size=(64, 48), progress=stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(LeanposeError, match="file"):
        write_synthetic(tmp_path / "file" / "set", 1, size=(64, 48))
    with pytest.raises(LeanposeError, match="at least 1"):
        write_synthetic(tmp_path, 0)


def test_the_command_draws_a_set(tmp_path: Path) -> None:
    import typer
    from typer.testing import CliRunner

    from leanpose.cli.data import synth

    app = typer.Typer()
    app.command()(synth)
    arguments = [str(tmp_path / "set"), "--count", "3", "--size", "96x72", "--people", "1-2", "--skeleton", "coco17"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "set" / "annotations.json").read_text())
    assert [(image["height"], image["width"]) for image in content["images"]] == [(96, 72)] * 3
    wrong = CliRunner().invoke(app, [str(tmp_path / "other"), "--size", "big"])
    assert isinstance(wrong.exception, LeanposeError)


def test_a_flipped_bit_in_a_file_is_noticed(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "set", 2, 9, (64, 48), "coco17")
    config = DatasetConfig(format="synthetic", images=Path("set"), count=2, seed=9, size=(64, 48))
    assert len(read_synthetic(config, COCO17, tmp_path, training=True).people) > 0
    for name in ("images.tar", "annotations.json", "checksums.json"):
        path = tmp_path / "set" / name
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        with pytest.raises(LeanposeError, match=r"is corrupt or was changed; delete .*set to render"):
            read_synthetic(config, COCO17, tmp_path, training=True)
        path.write_bytes(content)
