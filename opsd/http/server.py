"""Answer HTTP from a thread of the daemon, whatever clients do.

Requests, connections and threads are bounded, so that nobody on the network can keep the daemon
from its work.

Limits: plain HTTP, for the machine itself or the cluster's network. Whoever opens all
connections and keeps them busy keeps everybody else out, the kubelet's probes included.
"""

from __future__ import annotations

import os
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import structlog
from waitress import create_server, wasyncore

from opsd.errors import PermanentError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = structlog.get_logger()

_THREADS = 3  # one may wait for a page; the kubelet does not
_MOST_CONNECTIONS = 50
_SILENT_S = 15  # then a connection is closed
_MOST_HEADER_BYTES = 16 << 10
_MOST_BODY_BYTES = 16 << 10
_LOOK_S = 1.0


class Server:
    """One listening address. A context: it answers inside."""

    def __init__(self, app: WSGIApplication, *, address: str, port: int) -> None:
        """Bind an address; nobody is answered before the context is entered.

        Args:
            app: what answers.
            address: IPv4 or IPv6.
            port: 0: any that is free; see `port`.

        Raises:
            PermanentError: it cannot be bound.
        """
        try:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listening = socket.create_server((address, port), family=family)
        except OSError as exc:
            where = f"listen on {address} port {port}"
            reason = os.strerror(exc.errno or 0)
            raise PermanentError(f"{where}: {reason}; change http.listen") from exc
        self.port: int = listening.getsockname()[1]
        self._sockets: dict[int, Any] = {}
        self._server: Any = create_server(
            app,
            map=self._sockets,
            sockets=[listening],
            ident=None,
            threads=_THREADS,
            connection_limit=_MOST_CONNECTIONS,
            channel_timeout=_SILENT_S,
            cleanup_interval=_SILENT_S,
            max_request_header_size=_MOST_HEADER_BYTES,
            max_request_body_size=_MOST_BODY_BYTES,
            asyncore_use_poll=True,
        )
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        self._is_closed = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        log.info("http.listening", port=self.port)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_closed.set()
        self._server.pull_trigger()
        self._thread.join()

    def _serve(self) -> None:
        try:
            while not self._is_closed.is_set():
                wasyncore.loop(timeout=_LOOK_S, use_poll=True, map=self._sockets, count=1)
        finally:
            self._server.task_dispatcher.shutdown(timeout=_LOOK_S)
            wasyncore.close_all(self._sockets)
