"""onnxruntime-web, which computes in the browser: one pinned version, fetched by the npm client once and verified."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from leanpose.errors import LeanposeError
from leanpose.files import any_damage, atomic_write, cache_folder, describe_read_error, read_regular

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Integrity hash of the package's archive, as in npm's lock files."""

NPM_SECONDS = 600  # for 33 MB
MAX_ARCHIVE_BYTES = 100_000_000  # bytes


@dataclass(frozen=True)
class BrowserRuntime:
    """The files of onnxruntime-web that one backend needs, in the package's folder `dist`.

    Attributes:
        module: what the page imports.
        loader: starts `binary`, and the threads.
        binary: the WebAssembly.
    """

    module: str
    loader: str
    binary: str

    @property
    def names(self) -> tuple[str, str, str]:
        """All three."""
        return self.module, self.loader, self.binary


RUNTIMES = {
    "wasm": BrowserRuntime("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": BrowserRuntime(
        "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"
    ),
}
"""By backend. The builds `jsep` (WebGPU, larger and slower) and `jspi` (not for all browsers) are not used."""

SHA256 = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
"""Hashes of the files that are used."""


def runtime_files(source: Path | None = None) -> dict[str, bytes]:
    """The files of `SHA256` by name, each verified.

    Args:
        source: the package's archive (`.tgz`) or its unpacked folder; None: leanpose's cache folder, or npm, whose
            archive is then unpacked there.

    Raises:
        LeanposeError: npm is missing or fails, a file is missing, or is not the one of the pinned version.
    """
    if source is not None:
        return _from_folder(source) if source.is_dir() else _from_archive(source)
    cache = cache_folder() / f"{PACKAGE}-{VERSION}"
    if cache.is_dir():
        try:
            return _from_folder(cache)
        except LeanposeError:
            pass  # corrupt or incomplete: fetched again
    files = _fetched()
    for name, content in files.items():
        with atomic_write(cache / name) as temporary:
            temporary.write_bytes(content)
    return files


def _fetched() -> dict[str, bytes]:
    """The files of the archive that npm downloads."""
    npm, wanted = shutil.which("npm"), f"{PACKAGE}@{VERSION}"
    if npm is None:
        raise LeanposeError(
            f"{wanted} is fetched with npm, which is not installed; or give it with --runtime FILE.tgz."
        )
    with tempfile.TemporaryDirectory(prefix="leanpose-npm-") as folder:
        command = [npm, "pack", wanted, "--pack-destination", folder, "--ignore-scripts"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=NPM_SECONDS, cwd=folder)
            failure = "" if answer.returncode == 0 else _last_reason(answer.stderr)
        except (OSError, subprocess.TimeoutExpired) as error:
            failure = str(error)
        archives = list(Path(folder).glob("*.tgz"))
        if failure or len(archives) != 1:
            reason = failure or "no archive was written"
            raise LeanposeError(f"npm could not fetch {wanted} ({reason}); offline, give it with --runtime FILE.tgz.")
        return _from_archive(archives[0])


def _last_reason(stderr: str) -> str:
    """What npm says of a failure, without the place of its log."""
    lines = [line.removeprefix("npm error").strip() for line in stderr.splitlines() if line.startswith("npm error")]
    return next((line for line in lines if line and not line.startswith(("code ", "errno ", "syscall "))), "it failed")


def _from_archive(path: Path) -> dict[str, bytes]:
    content = _read(path)
    algorithm, _, expected = INTEGRITY.partition("-")
    if base64.b64encode(hashlib.new(algorithm, content).digest()).decode() != expected:
        raise LeanposeError(f"{path} is not the archive of {PACKAGE} {VERSION}: its {algorithm} differs.")
    with any_damage("archive", path), tarfile.open(path) as archive:
        members = {name: archive.extractfile(f"package/dist/{name}") for name in SHA256}
        return _verified({name: file.read() for name, file in members.items() if file is not None}, path)


def _from_folder(folder: Path) -> dict[str, bytes]:
    place = folder / "dist" if (folder / "dist").is_dir() else folder
    return _verified({name: _read(place / name) for name in SHA256}, folder)


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_ARCHIVE_BYTES)
    except OSError as error:
        raise describe_read_error(path, error) from error


def _verified(files: dict[str, bytes], source: Path) -> dict[str, bytes]:
    for name, expected in SHA256.items():
        if hashlib.sha256(files[name]).hexdigest() != expected:
            raise LeanposeError(f"{name} in {source} is not the one of {PACKAGE} {VERSION}: its sha256 differs.")
    return files
