"""A web server on this machine that misbehaves on request."""

import contextlib
import http.server
import os
import threading
from collections.abc import Iterator
from unittest import mock


class Site:
    """Files and behaviour of the server, and the requests it got.

    ``files`` are contents by path. Each request uses up one of ``tricks``: ``cut`` closes the
    connection half-way, ``stall`` stops half-way but keeps the connection open, ``drip`` sends ten
    pieces with a pause after each, a URL is redirected to, and a number is the status of an error.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.tricks: list[str | int] = []
        self.knows_ranges = True
        self.asked: list[tuple[str, str]] = []  # path, Range
        self.over = threading.Event()

    def url(self, path: str) -> str:
        return f"{self.address}/{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers.get("Range", "")
        path = self.path.lstrip("/")
        site.asked.append((path, wanted))
        trick = site.tricks.pop(0) if site.tricks else ""
        if isinstance(trick, int) or path not in site.files:
            self.send_error(trick or 404)
            return
        if "://" in str(trick):
            self.send_response(302)
            self.send_header("Location", trick)
            self.end_headers()
            return
        content = site.files[path]
        start = int(wanted[len("bytes=") : -1]) if wanted and site.knows_ranges else 0
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self._send(content[start:], trick)

    def _send(self, content: bytes, trick: str) -> None:
        size = -(-len(content) // 10)
        if trick == "drip":
            for begin in range(0, len(content), size):
                self.wfile.write(content[begin : begin + size])
                self.wfile.flush()
                self.site.over.wait(0.25)
            return
        self.wfile.write(content[: len(content) // 2] if trick else content)
        self.wfile.flush()
        if trick == "stall":
            self.site.over.wait(10)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    handler = type("Handler", (_Handler,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    handler.site = Site(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        # Requests to this machine must not go through a proxy.
        with mock.patch.dict(os.environ, {"no_proxy": "*"}):
            yield handler.site
    finally:
        handler.site.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
