"""A web server of this machine, for a folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def serve(folder: Path, types: dict[str, str] | None = None, headers: dict[str, str] | None = None) -> Iterator[str]:
    """Serve a folder's files; gives the address, `http://127.0.0.1:PORT`.

    Args:
        types: what the server says that some paths are, such as `{"/photo": "image/jpeg"}`.
        headers: are sent with each file.
    """

    class Handler(SimpleHTTPRequestHandler):
        def guess_type(self, path: object) -> str:
            named = "/" + Path(str(path)).relative_to(folder).as_posix()
            return (types or {}).get(named) or super().guess_type(str(path))

        def end_headers(self) -> None:
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
