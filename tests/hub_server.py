"""A stand-in of the Hugging Face hub on this machine: as much of its API as uploading and downloading one model takes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

READER, WRITER = "hf_reader", "hf_writer"
"""Tokens of an account that may only read, and of one that may write."""


@dataclass
class StandInHub:
    """What the hub holds.

    Attributes:
        endpoint: its address, for `HF_ENDPOINT`.
        repositories: by name, their commits by id, the oldest first; a commit holds whole files by name.
        hidden, gated: names of repositories that exist, but may not be read.
        broken: whether every answer is 500.
        objection: what it has against the metadata of every `README.md`; nothing where it is empty.
        requests: methods and paths so far.
    """

    endpoint: str = ""
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    broken: bool = False
    objection: str = ""
    requests: list[str] = field(default_factory=list)

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        """Add a commit; gives its id."""
        commits = self.repositories.setdefault(name, {})
        latest = next(reversed(commits.values()), {})
        oid = hashlib.sha1(f"{name} {len(commits)}".encode()).hexdigest()
        commits[oid] = latest | files
        return oid

    def find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | str:
        """A commit's id and files, or the hub's code of the error."""
        if name in self.gated:
            return "GatedRepo"
        if name in self.hidden or not self.repositories.get(name):
            return "RepoNotFound"
        commits = self.repositories[name]
        oid = next(reversed(commits)) if revision == "main" else revision
        return (oid, commits[oid]) if oid in commits else "RevisionNotFound"


@contextmanager
def serve_hub() -> Iterator[StandInHub]:
    """Run a hub without repositories."""
    hub = StandInHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, content: object = b"", status: int = 200, **headers: str) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def handle_request(self) -> None:
            path = unquote(urlparse(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if hub.broken:
                self.answer(status=500)
            elif self.command in ("GET", "HEAD"):
                self.read(path)
            elif self.command == "PUT":
                hub.objects[path.removeprefix("/lfs/")] = body
                self.answer()
            elif path != "/api/validate-yaml" and self.headers.get("Authorization") != f"Bearer {WRITER}":
                self.answer(status=403)
            else:
                self.write(path, body)

        do_GET = do_HEAD = do_POST = do_PUT = handle_request

        def read(self, path: str) -> None:
            """A file, a list of files, or what is known of a repository."""
            resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path)
            found = resolve or tree or re.fullmatch(r"/api/models/([^/]+/[^/]+)()", path)
            # The client asks for other things besides, which a mirror need not have.
            held = hub.find(found[1], found[2] or "main") if found else "RepoNotFound"
            if isinstance(held, str) or found is None:
                self.answer(status=403 if held == "GatedRepo" else 404, X_Error_Code=str(held))
                return
            oid, files = held
            if tree:
                self.answer([{"type": "file", "path": name, "size": len(files[name]), "oid": "0"} for name in files])
            elif not resolve:
                self.answer({"id": found[1], "sha": oid})
            elif resolve[3] not in files:
                self.answer(status=404, X_Error_Code="EntryNotFound", X_Repo_Commit=oid)
            else:
                content = files[resolve[3]]
                self.answer(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=oid)

        def write(self, path: str, body: bytes) -> None:
            """Make a repository, say how files are uploaded, or commit them."""
            if path == "/api/validate-yaml":
                errors = [{"message": hub.objection}] if hub.objection else []
                self.answer({"warnings": [], "errors": errors}, 400 if errors else 200)
            elif path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                status = 409 if name in hub.repositories else 200
                hub.repositories.setdefault(name, {})
                self.answer({"url": f"{hub.endpoint}/{name}"}, status)
            elif "/preupload/" in path:
                modes = (
                    (file["path"], "lfs" if ".safetensors" in file["path"] else "regular")
                    for file in json.loads(body)["files"]
                )
                self.answer(
                    {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes]}
                )
            elif path.endswith("/objects/batch"):
                objects = [
                    wanted | {"actions": {"upload": {"href": f"{hub.endpoint}/lfs/{wanted['oid']}"}}}
                    for wanted in json.loads(body)["objects"]
                ]
                self.answer({"transfer": "basic", "objects": objects})
            else:
                found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path)
                assert found is not None, path
                if found[2] != "main":
                    self.answer(status=404, X_Error_Code="RevisionNotFound")
                    return
                files = {}
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                    elif line["key"] == "lfsFile":
                        files[line["value"]["path"]] = hub.objects[line["value"]["oid"]]
                oid = hub.commit(found[1], files)
                self.answer({"success": True, "commitOid": oid, "commitUrl": f"{hub.endpoint}/{found[1]}/commit/{oid}"})

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True  # a client keeps its connection
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
