"""A server that sends bytes of a test's choice, for answers that no real server would give."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from tests.rig.server import HOST


@contextlib.contextmanager
def speaking(*replies: bytes) -> Iterator[tuple[str, list[int]]]:
    """A server that sends bytes of our choice, one reply for each request of a connection."""
    connections: list[int] = []
    with socket.create_server((HOST, 0)) as server:

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                for reply in replies:
                    if not connection.recv(65536):
                        return
                    connection.sendall(reply)
                connection.recv(65536)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connections.append(connection.fileno())
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.getsockname()[1]}", connections
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def http(body: bytes, *headers: str) -> bytes:
    """A whole answer."""
    head = "".join(f"{one}\r\n" for one in ("HTTP/1.1 200 OK", *headers))
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(*parts: bytes) -> bytes:
    """An answer in pieces; the empty piece is its end."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
