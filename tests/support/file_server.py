"""A web server on this machine that publishes files, and misbehaves as it is told to."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Act:
    """How one request is answered, where that is not as it should be.

    Attributes:
        status: sent in place of the right one.
        headers: sent in place of, or besides, the right ones; None leaves one out.
        body: sent in place of the right one.
        send: no more bytes of the body than this, then ``stall`` or the connection is closed.
        stall: keep the connection open, and send nothing until ``go_on`` or the end.
        then_all: after a stall that ended send the rest.
        drip_s: send the body in bytes, one after each such pause.
    """

    status: int | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    send: int | None = None
    stall: bool = False
    then_all: bool = False
    drip_s: float = 0.0


@dataclass
class Page:
    """One published file.

    Attributes:
        body: its bytes.
        ranges: whether a part of it can be asked for.
        etag: what the server calls this version, quoted; may be empty.
        acts: for the first requests, one each.
    """

    body: bytes
    ranges: bool = True
    etag: str = ""
    acts: deque[Act] = field(default_factory=deque)


@dataclass
class Asked:
    """One request, as it came, and how many bytes were sent."""

    path: str
    range: str | None
    if_range: str | None
    sent: int = 0


class FileServer:
    """Pages by path, and what was asked for."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pages: dict[str, Page] = {}
        self.asked: list[Asked] = []
        self.go_on = threading.Event()

    def publish(self, path: str, body: bytes, *acts: Act, **options: object) -> str:
        """Publish a file; returns its address."""
        self.pages[path] = Page(body, acts=deque(acts), **options)  # type: ignore[arg-type]
        return self.url + path

    def count(self, path: str) -> int:
        return sum(each.path == path for each in self.asked)

    def sent(self) -> int:
        return sum(each.sent for each in self.asked)


class _Handler(http.server.BaseHTTPRequestHandler):
    files: FileServer

    def do_GET(self) -> None:
        asked = Asked(self.path, self.headers.get("Range"), self.headers.get("If-Range"))
        self.files.asked.append(asked)
        page = self.files.pages.get(self.path)
        if page is None:
            self.send_error(404)
            return
        act = page.acts.popleft() if page.acts else Act()
        status, headers, body = self.answer(page, asked)
        body = body if act.body is None else act.body
        headers["Content-Length"] = str(len(body))
        headers |= act.headers
        self.send_response(act.status or status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            while act.drip_s and not self.files.go_on.wait(act.drip_s):
                self.send_body(b"x", asked)
            first = body if act.send is None else body[: act.send]
            self.send_body(first, asked)
            if act.stall:
                self.files.go_on.wait(60)
                if act.then_all:
                    self.send_body(body[len(first) :], asked)
        self.close_connection = True

    def answer(self, page: Page, asked: Asked) -> tuple[int, dict[str, str | None], bytes]:
        headers: dict[str, str | None] = {"ETag": page.etag} if page.etag else {}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.range or "")
        if match is None or not page.ranges or asked.if_range not in {None, page.etag}:
            return 200, headers, page.body
        start = int(match[1])
        if start >= len(page.body):
            return 416, headers | {"Content-Range": f"bytes */{len(page.body)}"}, b""
        part = page.body[start : int(match[2]) + 1 if match[2] else None]
        headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(page.body)}"
        return 206, headers, part

    def send_body(self, data: bytes, asked: Asked) -> None:
        for start in range(0, len(data), 1 << 16):
            self.wfile.write(data[start : start + (1 << 16)])
            self.wfile.flush()
            asked.sent += len(data[start : start + (1 << 16)])

    def log_message(self, *_: object) -> None:
        return


@contextlib.contextmanager
def serving() -> Iterator[FileServer]:
    """Run a server while the body runs."""
    handler = type("Handler", (_Handler,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        handler.files = FileServer(httpd.server_port)  # type: ignore[attr-defined]
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield handler.files  # type: ignore[attr-defined]
        finally:
            handler.files.go_on.set()  # type: ignore[attr-defined]
            httpd.shutdown()
            thread.join()
