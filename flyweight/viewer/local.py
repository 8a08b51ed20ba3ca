"""A small server for one machine: the viewer where nothing but the core is installed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from urllib.parse import urlsplit

from flyweight.errors import ConfigError
from flyweight.viewer.site import LARGEST, Reply, Site

__all__ = ["LOOPBACK", "serve"]

LOOPBACK = "127.0.0.1"
IDLE_SECONDS = 30
"""How long a client may take to send its request, or to read a part of the answer."""


def serve(site: Site, port: int, ready: Callable[[str, Callable[[], None]], None]) -> None:
    """Serve the site on the loopback address until it is shut down.

    `port` 0 takes a free one. `ready` gets the address and what shuts the server down, once it listens. ConfigError
    for a port that is taken.
    """
    try:
        server = _Server((LOOPBACK, port), _handler(site))
    except (OSError, OverflowError) as error:
        raise ConfigError(f"port {port} cannot be used: {error}; choose another with --port, 0 for any") from error
    with server:
        ready(f"http://{LOOPBACK}:{server.server_address[1]}/", server.shutdown)
        server.serve_forever(poll_interval=0.1)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is none of ours."""


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE_SECONDS
        server_version = "flyweight"
        sys_version = ""

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            self._send(site.get(path[1:]) if path.startswith("/") else _refused(400, "no such address"))

        def do_POST(self) -> None:
            self._send(self._posted())

        def _posted(self) -> Reply:
            origin = self.headers.get("Origin", "")
            if urlsplit(origin).netloc != self.headers.get("Host") or "json" not in self.headers.get_content_type():
                return _refused(403, "questions are taken from the page itself")
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal():
                return _refused(411, "how long is the body?")
            if int(length) > LARGEST:
                return _refused(413, f"a question may have {LARGEST:,} bytes")
            return site.post(urlsplit(self.path).path[1:], self.rfile.read(int(length)))

        def _send(self, reply: Reply) -> None:
            # A name that leads here from outside (DNS rebinding) must not make the store readable to its page.
            if not _own(self.headers.get("Host", "")):
                reply = _refused(403, "this server answers on the loopback address alone")
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if isinstance(reply.body, bytes):
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            for part in (reply.body,) if isinstance(reply.body, bytes) else reply.body:
                self.wfile.write(part)
                self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            """A page that polls would fill the terminal."""

    return Handler


def _own(host: str) -> bool:
    """Whether a Host header names this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _refused(status: int, message: str) -> Reply:
    return Reply(status, "application/json", f'{{"error":{{"message":"{message}"}}}}'.encode())
