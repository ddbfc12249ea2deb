"""A converter as a child process: requests and answers are lines of JSON, arrays lie in files."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from leanpose.errors import LeanposeError

_LINES = 20  # of the log, for `leanpose --debug`


class ConverterError(Exception):
    """What a converter said last, for whoever looks at the traceback."""


class ConverterProcess:
    """A child that answers one request after the other; it ends with the `with`.

    Args:
        python: of the environment that has the converter's packages.
        script: to run there; see `converters/child.py`.
        title: of the format, for messages.
        folder: an existing one, for the child to work in and for its log.
    """

    def __init__(self, python: Path, script: Path, title: str, folder: Path) -> None:
        self._title, self._log = title, folder / "converter.log"
        # Whatever leads this Python to leanpose and its packages must not lead the other one there.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [str(python), "-s", "-u", str(script.resolve())]
        with open(self._log, "wb") as log:
            try:
                self._child = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=folder, env=environment
                )
            except OSError as error:
                raise LeanposeError(f"{python} cannot be run: {error.strerror or error}.") from error
        self._answers: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._answers.put(line)
        self._answers.put(b"")

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            LeanposeError: the converter cannot do it, takes longer than this many seconds, or ends by itself.
        """
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which the answer says
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            self._child.kill()
            raise LeanposeError(
                f"The converter of {self._title} did not answer within {seconds:g} seconds and was ended."
            ) from self._last_words()
        if not line:
            self._answers.put(line)  # for whoever asks again
            code = self._child.wait()
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
            raise LeanposeError(
                f"The converter of {self._title} ended {how}; `leanpose --debug` shows what it said last."
            ) from self._last_words()
        try:
            answer = json.loads(line)
        except ValueError:
            answer = {"error": "its answer cannot be read"}
        if "error" in answer:
            raise LeanposeError(f"The converter of {self._title} failed: {answer['error']}.") from self._last_words()
        return answer

    def _last_words(self) -> ConverterError:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return ConverterError("\n".join(lines[-_LINES:]))

    def __enter__(self) -> ConverterProcess:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with suppress(BrokenPipeError):
            self._child.stdin.close()  # which ends it
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
