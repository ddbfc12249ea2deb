"""Headless Chromium, driven by its DevTools protocol over a pipe: no package is needed for that."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run", "--disable-extensions", "--disable-gpu",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip


class Browser:
    """One tab. Messages are JSON, each ended by a zero byte.

    Attributes:
        events: what the tab has told without being asked, such as messages of its console.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = os.fdopen(read, "rb", buffering=0), os.fdopen(write, "wb", buffering=0)
        self._numbers, self._rest, self._session = itertools.count(1), b"", None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """Ask for something and wait for the answer."""
        number = next(self._numbers)
        session = {} if self._session is None else {"sessionId": self._session}
        message = {"id": number, "method": method, "params": parameters, **session}
        self._write.write(json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = self._read.read(1 << 20)
            assert piece, "Chromium has ended"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self.send("Browser.close")
        self._read.close()
        self._write.close()

    def open(self, url: str) -> None:
        """Go to a page; what it loads may not be there yet."""
        self.send("Page.navigate", url=url)
        self.evaluate(
            "new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))"
        )

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, or what its promise becomes."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        details = answer.get("exceptionDetails")
        assert details is None, details
        return answer["result"].get("value")

    def renderer_seconds(self) -> float:
        """The processor time that the tab's process has used."""
        session, self._session = self._session, None
        processes = self.send("SystemInfo.getProcessInfo")["processInfo"]
        self._session = session
        return max(process["cpuTime"] for process in processes if process["type"] == "renderer")

    def choose_file(self, selector: str, path: Path) -> None:
        """Put a file into an `<input type=file>`."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Show the page in a window of this size, with the user's wish for dark colours or not."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def open_browser(*flags: str) -> Iterator[Browser]:
    """A browser of its own, without people's settings."""
    assert CHROMIUM is not None
    its_input, our_output = os.pipe()
    our_input, its_output = os.pipe()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        # It reads from the descriptor 3 and writes to 4.
        script = f'exec "$@" 3<&{its_input} 4>&{its_output}'
        command = ["bash", "-c", script, "bash", CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, pass_fds=(its_input, its_output), stderr=subprocess.DEVNULL)
        os.close(its_input)
        os.close(its_output)
        try:
            browser = Browser(our_input, our_output)
            yield browser
            browser.close()
        finally:
            process.terminate()
            process.wait(30)
