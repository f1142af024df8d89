"""The server of the page: on the loopback address alone, with three files and four questions.

A browser runs pages of strangers too, so a request must name this server as its host (a name that
was made to point here does not), questions are JSON of the page itself, and nothing in a request
names a file. Chapter: `docs/whatif.md`.
"""

import os
import sys
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from mu_ref.border.ranges import PORT
from mu_ref.border.reading import parse_json
from mu_ref.border.text import json_text
from mu_ref.errors import MuRefError
from npu_sim.errors import WorkloadError
from npu_sim.explore.answers import Answers, page_facts
from npu_sim.explore.asked import blamed, passes, scenario_of

__all__ = ["Server", "open_server"]

LOOPBACK = "127.0.0.1"
LARGEST = 16_384  # bytes of a question: two sides are a tenth of it
PATIENCE_S = 30  # for the rest of a request, and for the next one

PAGE: Mapping[str, tuple[str, str]] = MappingProxyType({
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
})  # fmt: skip

HEADERS: Mapping[str, str] = MappingProxyType({
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
                               "connect-src 'self'; img-src data:; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
})  # fmt: skip


class Server(ThreadingHTTPServer):
    """Listens on the loopback address; see `open_server`."""

    allow_reuse_address = os.name != "nt"  # there it would share the port with another program
    daemon_threads = True  # an answer that nobody waits for keeps no program alive

    def __init__(self, port: int) -> None:
        super().__init__((LOOPBACK, port), Handler)
        self.answers = Answers()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    @property
    def hosts(self) -> tuple[str, str]:
        """What a request may call this server."""
        return f"{LOOPBACK}:{self.server_port}", f"localhost:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, but not that a browser has gone away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def open_server(port: int) -> Server:
    """Return a server that listens.

    Args:
        port: in `PORT`.

    Returns:
        The server; `serve_forever` answers.

    Raises:
        WorkloadError: the port is not free, or not allowed.
    """
    PORT.check("--port", port, WorkloadError)
    try:
        return Server(port)
    except OSError as error:
        raise WorkloadError(
            f"--port must be one that is free, got {port}: {error.strerror}; give another, or 0"
        ) from error


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "npu-sim", ""
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        """Send a file of the page, or what it is made of."""
        path = self.path.partition("?")[0]
        if not self._is_ours():
            return
        if path in PAGE:
            name, kind = PAGE[path]
            self._send(200, kind, _file(name))
        elif path == "/api/page":
            self._answer(200, page_facts())
        else:
            self._refuse(404, "no such page; see /")

    def do_POST(self) -> None:
        """Answer a question."""
        asks = {"/api/roofline": self._ask_one, "/api/tiles": self._ask_one,
                "/api/compare": self._ask_two}  # fmt: skip
        if not self._is_ours():
            return
        if self.path not in asks:
            self._refuse(404, "no such question; see /")
            return
        body = self._body()
        if body is None:
            return
        try:
            asked = parse_json(body.decode("utf-8"), "a question", "JSON", WorkloadError)
            asks[self.path](asked)
        except (MuRefError, UnicodeDecodeError) as error:
            self._answer(400, {"error": str(error), "control": None})
        except MemoryError:
            self._answer(400, {"error": "this needs more memory than there is; ask for less",
                               "control": None})  # fmt: skip

    def _ask_one(self, given: Any) -> None:
        _check_texts(given)
        answers = self.server.answers
        answer = answers.roofline if self.path == "/api/roofline" else answers.tiles
        try:
            found = answer(given)
        except MuRefError as error:
            # the quickest that refuses it too says where it is wrong
            asks = (scenario_of, answers.roofline, answers.simulated)
            ask = next((one for one in asks if not passes(given, one)), answers.simulated)
            self._answer(422, {"error": str(error), "control": blamed(given, ask)})
            return
        self._answer(200, found)

    def _ask_two(self, asked: Any) -> None:
        sides = asked if isinstance(asked, dict) else {}
        for name in ("a", "b"):
            _check_texts(sides.get(name))
        self._answer(200, self.server.answers.comparison(sides["a"], sides["b"]))

    def _is_ours(self) -> bool:
        """Refuse what another page has sent, or what another name leads here."""
        hosts = self.server.hosts
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in hosts:
            self._refuse(403, f"the host must be {hosts[0]}")
            return False
        if origin is not None and origin not in [f"http://{host}" for host in hosts]:
            self._refuse(403, "only the page of this server may ask")
            return False
        return True

    def _body(self) -> bytes | None:
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
        length = self.headers.get("Content-Length", "")
        if kind != "application/json":  # what a form of another page cannot send
            self._refuse(415, "a question must be application/json")
        elif not (length.isascii() and length.isdigit()):
            self._refuse(411, "a question must say how long it is")
        elif len(length) > 9 or int(length) > LARGEST:
            self._refuse(413, f"a question must have at most {LARGEST} bytes")
        else:
            return self.rfile.read(int(length))
        return None

    def _refuse(self, status: int, text: str) -> None:
        self.close_connection = True  # a body that is not read would be taken for a request
        self._answer(status, {"error": text, "control": None})

    def _answer(self, status: int, data: Mapping[str, Any]) -> None:
        self._send(status, "application/json", json_text(data).encode("utf-8"))

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)),
                            **HEADERS}.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing: the terminal belongs to the user."""


def _check_texts(given: Any) -> None:
    """Refuse what is no table of controls."""
    if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
        raise WorkloadError("a question must be an object with a text for each control")


@cache
def _file(name: str) -> bytes:
    return files("npu_sim").joinpath("explore", "page", name).read_bytes()
