"""The training loop: one file that a debugger can step through, over Lightning Fabric.

All randomness is a pure function of (seed, epoch, index) or (seed, step), and the saved state holds the rest, so a run
that is killed and resumed takes exactly the same steps as an uninterrupted one.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from leanpose.data.batch import Batch
from leanpose.data.dataset import ImageDataset
from leanpose.errors import LeanposeError, StoppedError
from leanpose.evaluation.report import headline, primary_metric
from leanpose.files import any_damage, atomic_write
from leanpose.models.base import ImageModel
from leanpose.signals import STOPPING
from leanpose.training.batches import Clock, epoch_batches, untimed
from leanpose.training.log import RunLog, RunProgress
from leanpose.training.optimizers import build_optimizers, frozen_norms, learning_rate_factor, update_average
from leanpose.training.processes import any_process, gather_names
from leanpose.training.recipe import TrainingRecipe, changed_settings
from leanpose.training.resume import load_state, save_state, steps_per_epoch
from leanpose.training.task import Task
from leanpose.weights import save_model

LOG = logging.getLogger(__name__)
LOG_EVERY = 20
"""Optimiser steps between two rows of the training log, and between two checks for non-finite values."""


@dataclass
class RunState:
    """The state of a run. All of it is saved, and it fully determines the next step."""

    step: int = 0
    epoch: int = 0
    best: float = -math.inf
    best_epoch: int = -1
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.step < 2**62 and 0 <= self.epoch < 2**62 and not math.isnan(self.best)):
            raise ValueError("step, epoch or best")

    def summary(self, folder: Path, metrics: dict[str, float], broken: dict[str, str]) -> RunSummary:
        """The summary of the run in this folder."""
        return RunSummary(folder, metrics, self.best, self.best_epoch, self.seconds, broken)


@dataclass(frozen=True)
class RunSummary:
    """Summary of a finished run: its last metrics, its best, and skipped images."""

    folder: Path
    metrics: dict[str, float]
    best: float
    best_epoch: int
    seconds: float
    broken: dict[str, str]
    stages: tuple[RunSummary, ...] = ()
    """For a run in several stages: the summary of each."""


class _NonFiniteError(Exception):
    """The weights have been updated with a loss or a gradient that is not finite."""


def finished_run(folder: Path, epochs: int) -> RunSummary | None:
    """The summary of the run in a folder; None if it is not finished.

    Raises:
        LeanposeError: its state is corrupt.
    """
    if not (folder / "last.safetensors").is_file():
        return None
    with any_damage("saved state of the run", folder):
        saved = load_state(folder)
        state = RunState(**saved["run"])
        if state.epoch < epochs:
            return None
        return state.summary(folder, {**saved["metrics"]}, {**saved["broken"]})


@dataclass(frozen=True)
class Validation:
    """The validation of a run: computes the metrics by name of a model in eval mode."""

    name: str
    evaluate: Callable[[Any], dict[str, float]]


class Trainer:
    """Trains a model from a recipe in a folder.

    Args:
        recipe: the whole run.
        folder: gets `recipe.yaml`, `state.pt`, `best.safetensors`, `last.safetensors`, `train.csv`, `val.csv`,
            `tensorboard/`.
        task: the model with its losses; `resume` overwrites its weights.
        dataset: the training data.
        fabric: devices and precision.
        validation: without it there is no validation and only the last weights are saved.
        resume: resume from the folder's saved state.
        root_dir: the folder named in messages on resuming; for a stage, that of the whole run. None: `folder`.
        quiet: no progress bar (a line per epoch instead).
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        folder: Path,
        task: Task,
        dataset: ImageDataset[Any],
        fabric: Fabric,
        *,
        validation: Validation | None = None,
        resume: bool = False,
        root_dir: Path | None = None,
        quiet: bool = False,
    ) -> None:
        self.recipe, self.folder, self.fabric = recipe, folder, fabric
        self.root_dir = root_dir or folder
        self.unwrapped, self.model, self.dataset, self.validation = task, task.model, dataset, validation
        parts = fabric.world_size * recipe.grad_accum_steps
        if recipe.batch_size % parts or len(dataset) < parts:
            raise LeanposeError(
                f"{fabric.world_size} processes times grad_accum_steps {recipe.grad_accum_steps} must divide "
                f"batch_size {recipe.batch_size} and be at most the number of {dataset.unit} ({len(dataset)})."
            )
        self.steps_per_epoch = steps_per_epoch(len(dataset), recipe.batch_size)
        if task.teacher is not None:
            task.teacher.model.to(fabric.device)
        if fabric.device.type == "cuda":
            task.to(memory_format=torch.channels_last)  # like the crops; on CPUs oneDNN chooses its own weight layout
        self.task, *self.optimizers = fabric.setup(
            cast(Task, torch.compile(task, dynamic=False)) if recipe.compile else task,
            *build_optimizers(recipe.optimizer, task),
        )
        self.ema = deepcopy(task.model).requires_grad_(False) if recipe.ema else None
        self.state = RunState()
        self.broken: dict[str, str] = {}
        self.metrics: dict[str, float] = {}
        self._stop_signal, self._measuring = 0, False
        self._losses: dict[str, Tensor] = {}  # their sums since the last row of the log
        self._averaged_steps = 0
        self.clock: Clock = untimed
        self._finite = torch.ones((), dtype=torch.bool, device=fabric.device)  # all losses since `_remember`
        self._remembered: dict[str, Any] = {}
        self._watchful = False  # whether each step's loss is checked before the weights change
        if resume:
            with any_damage("saved state of the run", folder):
                self._restore(load_state(folder))
        self.log = RunLog(folder, self.state.step) if fabric.is_global_zero else None
        self.progress = RunProgress(
            recipe.schedule.epochs, self.steps_per_epoch, quiet=quiet or not fabric.is_global_zero
        )

    def run(self) -> RunSummary:
        """Train to the last epoch.

        Raises:
            StoppedError: after Ctrl-C or SIGTERM, with the state saved.
            LeanposeError: a loss is not finite, or a file cannot be written.
        """
        with self._listen_for_signals(), self.progress.bar:
            self._validate_if_due()  # if the run was killed between an epoch's end and its validation
            while self.state.epoch < self.recipe.schedule.epochs:
                self._train_epoch()
                self._save_state()
                self._validate_if_due()
        if self.fabric.is_global_zero:
            self._save_weights("last.safetensors")
        if self.log is not None:
            self.log.close()
        self.broken = gather_names(self.fabric, self.broken)
        return self.state.summary(self.folder, self.metrics, self.broken)

    def _train_epoch(self) -> None:
        epoch = self.state.epoch
        while self.state.epoch == epoch:
            try:
                self._take_steps()
                self.state.epoch += 1
            except _NonFiniteError:
                # The weights are invalid since then: repeat the same steps, checking each before its update.
                self._restore(self._remembered)
                self._watchful = True
        self._watchful = False

    def _take_steps(self) -> None:
        """The remaining steps of an epoch.

        Raises:
            _NonFiniteError: a loss or its gradient was not finite in one of the steps since `_remember`.
        """
        state, recipe = self.state, self.recipe
        self.dataset.set_epoch(state.epoch)
        self.unwrapped.start_epoch(state.epoch, recipe.schedule.epochs)
        for norm in frozen_norms(self.unwrapped):
            norm.eval()
        first = state.step - state.epoch * self.steps_per_epoch
        parts = epoch_batches(self.dataset, recipe, self.fabric, epoch=state.epoch, start=first, clock=self.clock)
        self._remember()
        last_save = time.monotonic()
        for number in range(first + 1, self.steps_per_epoch + 1):
            total = self.take_step(parts)
            log_now = state.step % LOG_EVERY == 0
            # On a GPU every check synchronises, so there are few; on a CPU the values are known already.
            look = log_now or number == self.steps_per_epoch or self.fabric.device.type == "cpu"
            self.progress.advance(state.epoch, state.step, recipe.batch_size, float(total) if look else None)
            if log_now or number == self.steps_per_epoch:
                self._require_finite()
                if log_now:
                    self._log_losses()
                self._remember()
            if not look:
                continue
            if any_process(self.fabric, self._stop_signal != 0):
                self._require_finite()
                self._save_state()
                raise self._stopped()
            if any_process(self.fabric, time.monotonic() - last_save > 60 * recipe.checkpoint_minutes):
                self._require_finite()
                self._save_state()
                last_save = time.monotonic()

    def take_step(self, parts: Iterator[Batch]) -> Tensor:
        """One optimiser step over the next batch of an epoch; returns its loss, on the device, without
        synchronisation."""
        began = time.monotonic()
        total = self._step([self._next_part(parts) for _ in range(self.recipe.grad_accum_steps)])
        self.state.step += 1
        self.state.seconds += time.monotonic() - began
        return total

    def _require_finite(self) -> None:
        """
        Raises:
            _NonFiniteError: a loss or its gradient was not finite since `_remember`.
        """
        if any_process(self.fabric, not bool(self._finite)):
            raise _NonFiniteError

    def _remember(self) -> None:
        """Keep everything that the next step depends on, to return to it; on the device, without synchronisation."""
        self._remembered = deepcopy(self._run_state())
        self._finite.fill_(True)

    def _losses_of(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a micro-batch.

        Raises:
            LeanposeError: batch normalization gets a single value per channel.
        """
        try:
            return self.task(*batch.inputs)
        except ValueError as error:
            if not str(error).startswith("Expected more than 1 value per channel"):
                raise
            raise self._too_few_values() from error

    def _too_few_values(self) -> LeanposeError:
        return LeanposeError(
            f"Batch normalization gets only one value per channel: use a larger batch_size ({self.recipe.batch_size}), "
            f"fewer grad_accum_steps ({self.recipe.grad_accum_steps}), more people ({len(self.dataset)}) or a larger "
            f"model_options.input_size."
        )

    def _step(self, parts: list[Batch]) -> Tensor:
        """One optimiser step over the micro-batches of one batch; returns its loss."""
        recipe, state = self.recipe, self.state
        # Random layers use the step's own seed, so there is no generator state to save.
        seed = hash((recipe.seed, state.step, self.fabric.global_rank)) % 2**63
        # `torch.manual_seed` records a stack trace for each unused kind of device, and keeps them all.
        on_cpu = self.fabric.device.type == "cpu"
        torch.default_generator.manual_seed(seed) if on_cpu else torch.manual_seed(seed)
        factor = learning_rate_factor(recipe.schedule, state.step, self.steps_per_epoch)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group["base_lr"]
        # The forward pass changes running statistics even if the step is discarded.
        before = (
            ([buffer.clone() for buffer in self.unwrapped.buffers()], self._losses.copy()) if self._watchful else None
        )
        total = torch.zeros((), device=self.fabric.device)
        for i, batch in enumerate(parts):
            waiting = i < len(parts) - 1
            with (
                self.fabric.no_backward_sync(self.task, enabled=waiting)
                if self.fabric.world_size > 1
                else nullcontext()
            ):
                with self.clock("forward"):
                    losses = self._losses_of(batch)
                    loss = sum(losses.values(), start=torch.zeros((), device=self.fabric.device)) / len(parts)
                with self.clock("backward"):
                    self.fabric.backward(loss)
            total += loss.detach()
            for name, value in (losses | self.unwrapped.observed).items():
                previous = self._losses.get(name)
                value = value.detach().float() / len(parts)
                self._losses[name] = value if previous is None else previous + value
        with self.clock("optimizer"):
            limit = recipe.optimizer.grad_clip_norm or math.inf
            norm = torch.nn.utils.clip_grad_norm_(self.unwrapped.parameters(), limit)
        self._finite &= torch.isfinite(total + norm)
        if before is not None and any_process(self.fabric, not bool(self._finite)):
            buffers, self._losses = before
            for buffer, value in zip(self.unwrapped.buffers(), buffers, strict=True):
                buffer.copy_(value)
            self._refuse_non_finite(parts, float(total))
        with self.clock("optimizer"):
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if self.ema is not None and recipe.ema is not None:
                update_average(self.ema, self.model, 1 - recipe.ema if state.step else 1.0)
        self._averaged_steps += 1
        return total

    def _refuse_non_finite(self, parts: list[Batch], total: float) -> None:
        """Stop before the weights become invalid: the saved state is the one before this step."""
        self._save_state()
        names = [self.dataset.describe(i) for batch in parts for i in batch.indices.tolist()]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more (all in nan.txt)" if len(names) > 8 else "")
        with atomic_write(self.folder / "nan.txt") as path:
            path.write_text("\n".join(names) + "\n")
        raise LeanposeError(
            f"The loss or its gradient is not finite at step {self.state.step} (loss {total}); the weights before that "
            f"step are saved in {self.folder}. The batch contained {shown}."
        )

    def _validate_if_due(self) -> None:
        """Measure and save after every `validation.interval` epochs and after the last, once."""
        recipe, epoch = self.recipe, self.state.epoch
        due = epoch > 0 and (epoch % recipe.validation.interval == 0 or epoch == recipe.schedule.epochs)
        at_boundary = self.state.step == epoch * self.steps_per_epoch
        if self.validation is None or not due or not at_boundary:
            return
        if self.log is not None and not self.log.has("val", self.state.step):
            model = self._measured_model()
            self.progress.say(f"epoch {epoch}: validating on {self.validation.name}")
            self.metrics = self._evaluate(self.validation, model)
            model.train()
            self.progress.say(f"epoch {epoch}: {headline(self.metrics)}")
            if (figure := self.metrics[primary_metric(self.metrics)]) > self.state.best:
                self.state.best, self.state.best_epoch = figure, epoch
                self._save_weights("best.safetensors")
            # The row is written last: a run killed before that validates again.
            self._save_state()
            self.log.write("val", self.state.step, {"epoch": epoch, "seconds": self.state.seconds, **self.metrics})
        self.fabric.barrier()

    def _evaluate(self, validation: Validation, model: ImageModel) -> dict[str, float]:
        """
        Raises:
            StoppedError: a signal came; the state before is saved, and a resumed run validates again.
        """
        self._measuring = True
        try:
            return validation.evaluate(model)
        except KeyboardInterrupt:
            if not self._stop_signal:
                raise
            raise self._stopped() from None
        finally:
            self._measuring = False

    def _stopped(self) -> StoppedError:
        """The processes that received a signal report it to all."""
        return StoppedError(
            f"Stopped at step {self.state.step}; resume with: leanpose train --resume {self.root_dir}",
            self._stop_signal or signal.SIGTERM,
        )

    def _measured_model(self) -> ImageModel:
        """The weights that are validated and saved: the averaged ones, if any."""
        if self.ema is None:
            return self.model.eval()
        for mine, current in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            mine.copy_(current)
        return self.ema.eval()

    def _save_weights(self, name: str) -> None:
        metrics = {k: float(v) for k, v in self.metrics.items()}
        model = self._measured_model()
        save_model(model, self.folder / name, metrics=metrics, **self.recipe.card.model_dump())
        model.train()

    def _save_state(self) -> None:
        if not self.fabric.is_global_zero:
            return
        save_state(self.folder, self._run_state())

    def _run_state(self) -> dict[str, Any]:
        """Everything that determines the next step, and the summary of the run."""
        return {
            "run": vars(self.state).copy(),
            "recipe": self.recipe.to_yaml(),
            "task": self.unwrapped.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "losses": self._losses,
            "averaged_steps": self._averaged_steps,
            "metrics": self.metrics,
            "broken": self.broken,
            "teacher": self._teacher_identity,
        }

    @property
    def _teacher_identity(self) -> str | None:
        return self.unwrapped.teacher.identity if self.unwrapped.teacher is not None else None

    def _restore(self, state: dict[str, Any]) -> None:
        if state.get("teacher") != self._teacher_identity:
            raise LeanposeError(
                f"The run in {self.folder} was distilled from {state.get('teacher')}, but its recipe's teacher is now "
                f"{self._teacher_identity}; restore the old weights, or start a new run."
            )
        changed = changed_settings(state["recipe"], self.recipe.to_yaml())
        if changed:
            LOG.warning(f"The recipe in {self.folder} has changed since the run was stopped: {', '.join(changed)}.")
        self.state = RunState(**state["run"])
        self.unwrapped.load_state_dict(state["task"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self._losses = {name: value.to(self.fabric.device) for name, value in state["losses"].items()}
        self._averaged_steps = state["averaged_steps"]
        self.metrics, self.broken = {**state["metrics"]}, {**state["broken"]}

    def _log_losses(self) -> None:
        if self.log is not None:
            means = {name: float(value) / self._averaged_steps for name, value in self._losses.items()}
            rate = self.optimizers[-1].param_groups[0]["lr"]
            epoch = self.state.step / self.steps_per_epoch
            self.log.write(
                "train", self.state.step, {"epoch": epoch, "lr": rate, "seconds": self.state.seconds, **means}
            )
        self._losses, self._averaged_steps = {}, 0

    def _next_part(self, parts: Iterator[Batch]) -> Batch:
        try:
            batch = next(parts)
            self.broken.update(batch.broken)
            if not len(batch.indices):
                first = next(iter(batch.broken.values()))
                raise LeanposeError(f"None of the {len(batch.broken)} images tried for a batch can be read: {first}")
            return batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            self._require_finite()
            self._save_state()
            if self._stop_signal:  # that process also received it, before it had its own group
                raise self._stopped() from error
            raise LeanposeError(
                f"A DataLoader worker was killed (out of memory?) at step {self.state.step}; the state is saved, "
                f"resume with: leanpose train --resume {self.root_dir}"
            ) from error

    @contextmanager
    def _listen_for_signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM finish the step and save, or end a validation; a second Ctrl-C stops at once."""

        def listen(number: int, _: Any) -> None:
            self._stop_signal = number  # nothing is printed here: the signal may have interrupted a print
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if self._measuring:
                raise KeyboardInterrupt

        previous = {number: signal.signal(number, listen) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
