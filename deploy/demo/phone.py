"""The phone of the demonstration: a web server that keeps what apprise sends it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Phone:
    """A notification target."""

    url: str  #: for apprise
    messages: list[str] = field(default_factory=list)  #: title and body of each, oldest first

    def last_message(self) -> str | None:
        """What arrived last, if anything did."""
        return self.messages[-1] if self.messages else None


@contextlib.contextmanager
def listening() -> Iterator[Phone]:
    """A phone that is on while the context is open."""
    phone = Phone(url="")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            phone.messages.append(f"{message['title']}\n\n{message['message']}")
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    phone.url = f"json://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield phone
    finally:
        server.shutdown()
        server.server_close()
