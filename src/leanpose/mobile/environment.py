"""The Python that has a converter's packages: another environment than leanpose's, whose versions they do not bear."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from leanpose.checksums import checksum
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, cache_folder, describe_os_error
from leanpose.locks import lock_file
from leanpose.mobile.formats import MobileFormat

INSTALL_SECONDS = 3600
READY = "leanpose-ready"  # written into an environment once it is complete


def converter_python(
    format: MobileFormat,
    python: Path | None = None,
    *,
    install: bool = False,
    advance: Callable[[str], None] = lambda _: None,
) -> Path:
    """The Python to convert with: the one given, else the environment in leanpose's cache folder, else this one if it has all.

    Args:
        python: one that has the packages.
        install: make the environment where it is missing.
        advance: told what is under way.

    Raises:
        LeanposeError: there is none, or the environment cannot be made.
    """
    if python is not None:
        found = shutil.which(python)
        if found is None:
            raise LeanposeError(f"There is no Python at {python}, which --converter-python names.")
        return Path(found).absolute()  # not resolved: an environment is known by the link in it
    folder = environment_folder(format)
    if (folder / READY).exists():
        return _python_of(folder)
    if install:
        advance(f"installing {', '.join(format.modules)}")
        _make(folder, format)
        return _python_of(folder)
    if all(importlib.util.find_spec(module) is not None for module in format.modules):
        return Path(sys.executable)
    raise LeanposeError(
        f"Writing {format.title} needs {' and '.join(format.modules)} in an environment of their own; add "
        f"--install-converter, which downloads {format.download_mb} MB once (on the disk {format.disk_mb} MB, in {folder}), "
        "or name a Python that has them with --converter-python."
    )


def environment_folder(format: MobileFormat) -> Path:
    """Where leanpose keeps a converter's environment: another place for other versions of its packages or of Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    packages = checksum(b"".join(file.read_bytes() for file in format.requirements))
    return cache_folder() / "converters" / f"{format.name}-{packages}-{version}"


def _python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _make(folder: Path, format: MobileFormat) -> None:
    with lock_file(folder, wait=True):
        if (folder / READY).exists():  # another process has made it meanwhile
            return
        try:
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation has left
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise describe_os_error(folder, error) from error
        _run([sys.executable, "-m", "venv", str(folder)], folder)
        # The lists are complete. Wheels alone, so that nothing of what is downloaded runs before it is asked to.
        options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        for file in format.requirements:
            _run([str(_python_of(folder)), "-m", "pip", "install", *options, "-r", str(file)], folder)
        with atomic_write(folder / READY) as temporary:
            temporary.touch()


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LeanposeError(
            f"{folder} is not made: the installation took more than {INSTALL_SECONDS} seconds."
        ) from error
    except OSError as error:
        raise LeanposeError(f"{folder} is not made: {command[0]} cannot be run ({error.strerror or error}).") from error
    if ended.returncode != 0:
        lines = [line.strip() for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("ERROR:", "Error:"))] or lines or ["no reason given"]
        raise LeanposeError(f"{folder} is not made: {errors[-1].removeprefix('ERROR: ')[:300]}")
