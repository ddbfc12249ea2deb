"""The loop: what it leaves behind, and that nothing that happens to a run changes what it learns."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from leanpose.codecs import SimCCCodec
from leanpose.data.readers import DatasetConfig
from leanpose.errors import LeanposeError, StoppedError
from leanpose.locks import lock_folder
from leanpose.report.runs import read_run
from leanpose.training import loop
from leanpose.training.build import build_model
from leanpose.training.log import read_table
from leanpose.training.recipe import load_recipe, parse_recipe
from leanpose.training.resume import load_state
from leanpose.training.train import train
from leanpose.weights import load_model
from tiny import tiny_recipe, write_tiny_coco, write_tiny_recipe


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_tiny_coco(tmp_path / "data")
    return tmp_path / "data"


def process_of(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "leanpose", "train", *(str(a) for a in arguments)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums of several threads are rounded otherwise than those of the processes that run beside the tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last.safetensors")


def rows_without_times(path: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(path.open())]


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


SIMCC: dict[str, Any] = {
    "model": "rtmpose_t",
    "model_options": {"input_size": [64, 64], "embed_dim": 32, "gau_qk_dim": 16},
    "distillation": {"method": "none"},
    "schedule": {"epochs": 1, "warmup_steps": 0},
}


def test_a_simcc_model_trains_by_a_recipe(data: Path, tmp_path: Path) -> None:
    path = write_tiny_recipe(tmp_path / "r.yaml", data, **SIMCC, codec={"sigma": 2, "decoding": "dark"})
    summary = train(load_recipe(path), tmp_path / "run", quiet=True)
    model = load_model(tmp_path / "run" / "last.safetensors")
    assert model.codec == SimCCCodec((64, 64), sigma=(2.0, 2.0), decoding="dark")
    assert "AP" in summary.metrics
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert load_recipe(tmp_path / "run" / "recipe.yaml").codec.beta == 10  # the model's own, written out


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        ({"blur_kernel_size": 11}, "codec.blur_kernel_size does not fit 'rtmpose_t', whose codec is 'simcc'"),
        ({"decoding": "quarter"}, "The codec 'simcc' has no decoding 'quarter'"),
    ],
)
def test_settings_of_another_codec_are_refused(data: Path, codec: dict[str, Any], words: str) -> None:
    with pytest.raises(LeanposeError, match=words):
        build_model(parse_recipe(tiny_recipe(data, **SIMCC, codec=codec)))


def test_heatmaps_have_one_sigma(data: Path) -> None:
    with pytest.raises(LeanposeError, match="one number for heatmaps"):
        build_model(parse_recipe(tiny_recipe(data, codec={"sigma": [2, 3]})))


def test_a_run_leaves_weights_logs_and_its_recipe(data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(write_tiny_recipe(tmp_path / "r.yaml", data, ema=0.9))
    summary = train(recipe, tmp_path / "run", quiet=True)
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {
        "recipe.yaml", "state.pt", "last.safetensors", "best.safetensors", "val.csv", "tensorboard",
    }  # fmt: skip
    saved = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert saved.card.training_data == ["annotations"], "what the recipe does not state"
    same = {"codec": recipe.codec, "skeleton": recipe.skeleton, "card": recipe.card}
    assert saved.model_copy(update=same) == recipe
    assert (recipe.skeleton, saved.skeleton) == (None, "coco17")  # the model's own, written out
    assert saved.codec.sigma == 2  # the model's own, written out
    model = load_model(tmp_path / "run" / "last.safetensors")
    assert model.input_size == (64, 48)
    assert "AP" in summary.metrics
    rows = list(csv.DictReader((tmp_path / "run" / "val.csv").open()))
    assert [row["epoch"] for row in rows] == ["2", "3"]


def test_what_is_frozen_stays_as_it_was_and_the_rest_learns(data: Path, tmp_path: Path) -> None:
    frozen = {"lr_mult": {"backbone.stages.0": 0, "backbone.stem": 0}, "weight_decay": 0.1, "name": "adamw"}
    path = write_tiny_recipe(tmp_path / "r.yaml", data, **SIMCC, optimizer=frozen, ema=0.5)
    recipe = load_recipe(path, ["schedule.epochs=2", "validation.interval=1"])
    torch.manual_seed(recipe.seed)
    before = build_model(recipe).state_dict()
    train(recipe, tmp_path / "run", quiet=True)
    after = weights(tmp_path / "run")
    stays = {name for name in after if name.startswith(("backbone.stages.0.", "backbone.stem."))}
    assert any(name.endswith("running_mean") for name in stays)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert not stays & changed
    assert any(name.startswith("backbone.stages.3.") and name.endswith("running_mean") for name in changed)
    assert all(name in changed for name in after if name not in stays and after[name].is_floating_point())


@pytest.mark.parametrize("optimizer", [pytest.param("adam", marks=pytest.mark.slow), "adamw", "muon"])
def test_training_learns(data: Path, tmp_path: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "save_state", lambda folder, state: None)  # half of the time of 60 epochs
    recipe = load_recipe(
        write_tiny_recipe(tmp_path / "r.yaml", data, augmentation={"enabled": False}),
        [f"optimizer.name={optimizer}", "optimizer.lr=0.005", "schedule.epochs=60", "validation.interval=60"],
    )
    train(recipe, tmp_path / "run", quiet=True)
    losses = [float(row["pose"]) for row in csv.DictReader((tmp_path / "run" / "train.csv").open())]
    # Beside the mean pose, which the first steps find, the network has begun to tell the images apart.
    assert losses[-1] < 0.9 * losses[1]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("workers", "wait_for_step"), [pytest.param(0, 4, marks=pytest.mark.slow), (2, 5)])
def test_a_killed_run_resumes_to_bit_identical_weights(
    data: Path, tmp_path: Path, workers: int, wait_for_step: int, command: Callable[..., Any]
) -> None:
    """SIGKILL inside the second epoch (3 steps each), at whatever the process is doing then; one image is broken."""
    (data / "images" / "3.jpg").write_bytes(b"")
    changes: dict[str, Any] = {"ema": 0.9, "auxiliary_heatmap_weight": 1.0, "checkpoint_minutes": 0}
    recipe = write_tiny_recipe(tmp_path / "r.yaml", data, **changes)
    train(load_recipe(recipe, ["schedule.epochs=4"]), tmp_path / "whole", quiet=True)  # in this process, which loads

    killed, environment = tmp_path / "killed", {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        process_of(recipe, f"data.num_workers={workers}", "schedule.epochs=4", "--out", killed),
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    step = 0
    while step < wait_for_step:
        assert time.monotonic() < deadline
        assert process.poll() is None, "the run ended before it could be killed"
        if (killed / "state.pt").exists():
            step = load_state(killed)["run"]["step"]
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "last.safetensors").exists()

    resumed = command("train", "--resume", killed)
    assert resumed.returncode == 3, resumed.stderr
    assert "1 image could not be read" in resumed.stdout
    assert_same_weights(killed, tmp_path / "whole")
    assert rows_without_times(killed / "val.csv") == rows_without_times(tmp_path / "whole" / "val.csv")
    assert not list(killed.glob(".*")), "no partial files and no lock"


def test_a_run_from_packed_crops_packs_them_once_and_uses_them(data: Path, tmp_path: Path) -> None:
    """The second run has no images at all: it is evaluated on the pack, too, with the same figures."""
    packed = tmp_path / "crops.pack"
    recipe = load_recipe(write_tiny_recipe(tmp_path / "r.yaml", data), [f"data.cache={packed}", "schedule.epochs=1"])
    first = train(recipe, tmp_path / "first", quiet=True)
    stamp = packed.stat().st_mtime_ns
    for image in (data / "images").iterdir():
        image.rename(image.with_suffix(".moved"))
    source = DatasetConfig(format="pack", annotations=packed)
    again = recipe.model_copy(update={"data": recipe.data.model_copy(update={"val": source})})
    second = train(again, tmp_path / "second", quiet=True)
    assert packed.stat().st_mtime_ns == stamp
    assert_same_weights(tmp_path / "first", tmp_path / "second")
    assert second.metrics == pytest.approx(first.metrics, abs=1e-3)


def test_the_log_says_what_each_mixed_set_adds_to_the_loss(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the loss against the labels, which is their sum; the steps themselves are those without."""
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    values = tiny_recipe(data, distillation={"method": "none"}, schedule={"epochs": 1, "warmup_steps": 0})
    source = values["data"]["train"][0]
    values["data"]["train"] = [{**source, "name": name, "weight": weight} for name, weight in (("a", 1), ("b", 3))]
    values["data"]["val"] = None
    said: list[str] = []
    train(parse_recipe(values), tmp_path / "run", quiet=True, say=said.append)
    assert "An epoch takes 6 steps over 24 people: 6 (25%) of a, 0.5 times its 12; 18 (75%) of b" in " ".join(said)
    rows = read_table(tmp_path / "run" / "train.csv")
    assert len(rows) == 6
    for row in rows:
        assert float(row["labels/a"]) + float(row["labels/b"]) == pytest.approx(float(row["pose"]), rel=1e-4)
    assert [*read_run(tmp_path / "run").terms] == ["pose"]


def test_a_signal_to_all_processes_saves_and_says_how_to_go_on(data: Path, tmp_path: Path) -> None:
    """SIGTERM, as clusters send it, to loader workers too; they must not die of it."""
    recipe = write_tiny_recipe(tmp_path / "r.yaml", data)
    folder = tmp_path / "run"
    process = subprocess.Popen(
        process_of(recipe, "schedule.epochs=100000", "data.num_workers=2", "--out", folder), stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (folder / "state.pt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert "Traceback" not in error
    assert f"leanpose train --resume {folder}" in error
    stopped = int(re.search(r"Stopped at step (\d+)", error).group(1))  # pyright: ignore[reportOptionalMemberAccess]
    assert load_state(folder)["run"]["step"] == stopped


def test_a_signal_ends_a_validation_and_a_resumed_run_equals_the_whole_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its logs too, but for the times: a row every four steps, so that one lies across the stop."""
    monkeypatch.setattr(loop, "LOG_EVERY", 4)
    recipe = load_recipe(write_tiny_recipe(tmp_path / "r.yaml", data))
    train(recipe, tmp_path / "whole", quiet=True)
    evaluate = loop.Trainer._evaluate

    def stop(self: loop.Trainer, validation: loop.Validation, model: Any) -> dict[str, float]:
        def measured(_: Any) -> dict[str, float]:
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("the signal ends the validation")

        return evaluate(self, loop.Validation(validation.name, measured), model)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_evaluate", stop)
        with pytest.raises(StoppedError, match="Stopped at step 6; resume with") as stopped:
            train(recipe, tmp_path / "run", quiet=True)
    assert stopped.value.signal == signal.SIGTERM
    train(recipe, tmp_path / "run", resume=True, quiet=True)
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
    for name in ("train.csv", "val.csv"):
        assert rows_without_times(tmp_path / "run" / name) == rows_without_times(tmp_path / "whole" / name), name


def test_a_second_run_in_a_folder_is_refused_and_changes_nothing(
    data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    recipe = write_tiny_recipe(tmp_path / "r.yaml", data)
    with lock_folder(tmp_path / "run"):
        for arguments in ([recipe, "--out", tmp_path / "run"], ["--resume", tmp_path / "run"]):
            (tmp_path / "run" / "recipe.yaml").write_text(load_recipe(recipe).to_yaml())
            result = command("train", *arguments)
            assert result.returncode == 1
            assert re.search(rf"run is being written by process {os.getpid()} on \S+ since", result.stderr)
            assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".folder.lock", "recipe.yaml"]


def test_a_recipe_that_changed_between_two_parts_of_a_run_is_said(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = load_recipe(write_tiny_recipe(tmp_path / "r.yaml", data), ["schedule.epochs=1"])
    train(recipe, tmp_path / "run", quiet=True)
    train(load_recipe(tmp_path / "run" / "recipe.yaml"), tmp_path / "run", resume=True, quiet=True)
    assert not caplog.messages
    changed = load_recipe(tmp_path / "run" / "recipe.yaml", ["optimizer.lr=0.5"])
    train(changed, tmp_path / "run", resume=True, quiet=True)
    assert "has changed since the run was stopped: optimizer.lr." in caplog.text


def test_accumulated_parts_make_one_step(data: Path, tmp_path: Path) -> None:
    recipe = write_tiny_recipe(tmp_path / "r.yaml", data)
    train(load_recipe(recipe, ["schedule.epochs=1", "grad_accum_steps=2"]), tmp_path / "parts", quiet=True)
    assert load_state(tmp_path / "parts")["run"]["step"] == 3


def test_a_broken_image_is_skipped_and_named_at_the_end(
    data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    (data / "images" / "3.jpg").write_bytes(b"")
    result = command("train", write_tiny_recipe(tmp_path / "r.yaml", data), "--out", tmp_path / "run")
    assert result.returncode == 3, result.stderr
    assert "1 image could not be read and were skipped" in result.stdout
    assert "3.jpg" in result.stdout


def test_another_takes_the_place_of_a_broken_image_that_is_alone_in_its_part(data: Path, tmp_path: Path) -> None:
    (data / "images" / "3.jpg").write_bytes(b"")
    recipe = load_recipe(
        write_tiny_recipe(tmp_path / "r.yaml", data, batch_size=4, grad_accum_steps=4), ["schedule.epochs=1"]
    )
    summary = train(recipe, tmp_path / "run", quiet=True)
    assert list(summary.broken) == [str(data / "images" / "3.jpg")]
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())


def test_a_folder_without_the_images_is_named(data: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    (tmp_path / "empty").mkdir()
    result = command(
        "train",
        write_tiny_recipe(tmp_path / "r.yaml", data),
        f"data.train.0.images={tmp_path / 'empty'}",
        "--out",
        tmp_path / "run",
    )
    assert result.returncode == 1
    assert "images tried for a batch can be read: Cannot read the image" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_a_loss_that_is_not_finite_stops_with_names_and_a_saved_state(data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(write_tiny_recipe(tmp_path / "r.yaml", data, optimizer={"lr": 1e30}))
    with pytest.raises(LeanposeError, match=r"not finite.*person \d+ of .*\d+\.jpg"):
        train(recipe, tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "nan.txt").read_text().count("person") == 4
    state = load_state(tmp_path / "run")
    assert state["run"]["step"] >= 1
    statistics = [value for name, value in state["task"].items() if "running" in name]
    assert statistics
    assert all(value.isfinite().all() for value in statistics), "the failed step's statistics are not kept"


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_state_before_a_loss_that_is_not_finite_is_restored_exactly(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float | None
) -> None:
    recipe = load_recipe(write_tiny_recipe(tmp_path / "r.yaml", data, batch_size=2, ema=ema))
    losses_of, step = loop.Trainer._losses_of, loop.Trainer._step

    def spoil(trainer: Any, batch: Any) -> dict[str, torch.Tensor]:
        factor = float("nan") if trainer.state.step == 8 else 1.0
        return {name: loss * factor for name, loss in losses_of(trainer, batch).items()}

    def stop(trainer: Any, parts: Any) -> torch.Tensor:
        if trainer.state.step == 8:
            trainer._save_state()
            raise StoppedError("here", signal.SIGTERM)
        return step(trainer, parts)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Trainer, "_losses_of", spoil)
        with pytest.raises(LeanposeError, match="at step 8 "):
            train(recipe, tmp_path / "spoilt", quiet=True)
    monkeypatch.setattr(loop.Trainer, "_step", stop)
    with pytest.raises(StoppedError):
        train(recipe, tmp_path / "stopped", quiet=True)
    spoilt, stopped = (load_state(tmp_path / name) for name in ("spoilt", "stopped"))
    ours, expected = (dict(_tensors({k: v for k, v in s.items() if k != "run"})) for s in (spoilt, stopped))
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


def _tensors(values: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(values, torch.Tensor):
        yield name, values
    elif isinstance(values, (dict, list)):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def test_a_run_killed_before_its_validation_is_logged_keeps_its_best(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leanpose.training.log import RunLog

    recipe = load_recipe(write_tiny_recipe(tmp_path / "r.yaml", data), ["validation.interval=1", "schedule.epochs=2"])
    whole = train(recipe, tmp_path / "whole", quiet=True)
    write = RunLog.write

    def killed(self: RunLog, table: str, *row: Any) -> None:
        if table == "val":
            raise KeyboardInterrupt
        write(self, table, *row)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "run", quiet=True)
    resumed = train(recipe, tmp_path / "run", resume=True, quiet=True)
    assert (resumed.best, resumed.best_epoch) == (whole.best, whole.best_epoch)
    assert resumed.metrics == whole.metrics
    assert (tmp_path / "run" / "val.csv").read_text().count("\n") == 3


def test_a_full_disk_ends_with_one_sentence_and_the_old_state(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(write_tiny_recipe(tmp_path / "r.yaml", data))
    train(recipe, tmp_path / "run", quiet=True)
    before = (tmp_path / "run" / "state.pt").read_bytes()
    from leanpose.training.resume import save_state

    def full(self: Path, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LeanposeError, match="disk is full"):
        save_state(tmp_path / "run", {"step": 1})
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob("*.partial*"))


def test_mistakes_are_found_before_the_first_batch(data: Path, tmp_path: Path) -> None:
    recipe = write_tiny_recipe(tmp_path / "r.yaml", data)
    train(load_recipe(recipe, ["schedule.epochs=1"]), tmp_path / "run", quiet=True)
    with pytest.raises(LeanposeError, match="already contains a run"):
        train(load_recipe(recipe), tmp_path / "run", quiet=True)
    with pytest.raises(LeanposeError, match="of other sizes, not this"):
        train(
            load_recipe(recipe, [f"init_from={tmp_path / 'run' / 'last.safetensors'}", "model_options.embed_dim=32"]),
            tmp_path / "other",
            quiet=True,
        )
    with pytest.raises(LeanposeError, match="no ImageNet weights"):
        train(load_recipe(recipe, ["pretrained=backbone"]), tmp_path / "other", quiet=True)
    for name in ("state.pt", "state-previous.pt"):
        (tmp_path / "run" / name).write_bytes(b"half")
    with pytest.raises(LeanposeError, match="corrupt"):
        train(load_recipe(recipe), tmp_path / "run", resume=True, quiet=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(LeanposeError, match="Cannot write"):
        train(load_recipe(recipe), tmp_path / "file" / "run", quiet=True)


def test_bad_calls_of_the_command_get_one_sentence_and_a_failing_exit_code(
    data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    recipe = write_tiny_recipe(tmp_path / "r.yaml", data)
    (data / "truncated.json").write_text((data / "annotations.json").read_text()[:100])
    for arguments in (
        [recipe, "batchsize=3"],
        [recipe, "data.train.0.annotations=missing.json"],
        [recipe, "data.train.0.annotations=truncated.json"],
        [recipe, "model=sdpose_x"],
        [recipe, "model_options.deph=1"],
        [],
        ["--resume", tmp_path / "nothing"],
    ):
        result = command("train", *arguments, *(["--out", tmp_path / "out"] if recipe in arguments else []))
        assert result.returncode == 1, arguments
        assert "Traceback" not in result.stderr, arguments
        assert result.stderr.strip().count("\n") == 0, result.stderr


def test_a_run_starts_from_what_fits_of_another_model(data: Path, tmp_path: Path) -> None:
    from leanpose.training.build import build_model

    recipe = write_tiny_recipe(tmp_path / "r.yaml", data, schedule={"epochs": 1, "warmup_steps": 0})
    train(load_recipe(recipe), tmp_path / "run", quiet=True)
    settings = [
        f"init_from={tmp_path / 'run'}",
        "strict=false",
        "model=distilpose_s",
        "model_options.head_hidden=null",
    ]
    started = build_model(load_recipe(recipe, settings)).state_dict()
    fresh = build_model(load_recipe(recipe, settings[2:])).state_dict()
    before = weights(tmp_path / "run")
    assert torch.equal(started["layers.0.mlp.0.weight"], before["layers.0.mlp.0.weight"])
    assert torch.equal(started["backbone.bn1.running_mean"], before["backbone.bn1.running_mean"])
    assert torch.equal(started["head.1.weight"], fresh["head.1.weight"])
    with pytest.raises(LeanposeError, match=r"contains a 'sdpose_t', not this 'distilpose_s'"):
        build_model(load_recipe(recipe, [settings[0], *settings[2:]]))
    with pytest.raises(LeanposeError, match="Nothing in"):
        build_model(
            load_recipe(recipe, [*settings[:2], "model=simplebaseline_r50", "model_options={input_size: [64, 64]}"])
        )
