"""A login on one machine that works, and what can be opened through it.

Whoever waits for something of it does so `until` a deadline: then it is closed, and every wait
ends.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import paramiko

from opsd.clients.ssh.errors import Stage, Unreachable
from opsd.clients.ssh.known import HostKey, KnownHosts
from opsd.clients.ssh.login import (
    BROKEN,
    Target,
    authenticate,
    check_host_key,
    shake_hands,
    shown_key,
    socket_to,
    transport_to,
)
from opsd.clock import Deadline
from opsd.errors import PermanentError

if TYPE_CHECKING:
    from opsd.clients.ssh.keys import ClientKey


class Connection:
    """A login that works, until it is closed."""

    def __init__(self, target: Target, transport: paramiko.Transport) -> None:
        """Only `connect` makes one."""
        self.target = target
        self.transport = transport

    def close(self) -> None:
        """End it, whatever is under way; does not wait for the machine. Idempotent."""
        self.transport.close()

    @contextlib.contextmanager
    def until(self, deadline: Deadline) -> Iterator[None]:
        """Close it at the deadline, so that nothing waits for longer than that.

        Raises:
            DeadlineExceeded: no time is left.
        """
        timer = threading.Timer(deadline.remaining(), self.close)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def tunnel(self, address: str, port: int, *, deadline: Deadline) -> paramiko.Channel:
        """A stream to an address as this machine sees it.

        Raises:
            Unreachable: the machine cannot reach it, or does not answer.
            PermanentError: it does not forward.
            DeadlineExceeded: no time is left.
        """
        to = f"{address}:{port} through {self.target.name}"
        try:
            return self.transport.open_channel(
                "direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=deadline.remaining()
            )
        except paramiko.ChannelException as exc:
            if exc.code == paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED:
                hint = 'its sshd needs "AllowTcpForwarding yes", the key no "restrict"'
                raise PermanentError(
                    f"connect to {to}: {self.target.name} does not forward; {hint}"
                ) from exc
            raise Unreachable(f"connect to {to}: {exc.text}", stage=Stage.CONNECT) from exc
        except BROKEN as exc:
            raise Unreachable(
                f"connect to {to}: {self.target.name} does not answer", stage=Stage.CONNECT
            ) from exc


def connect(
    target: Target,
    *,
    key: ClientKey,
    known: KnownHosts,
    deadline: Deadline,
    through: Connection | None = None,
) -> Connection:
    """Log in by a key, to a machine whose host key is known.

    Raises:
        Unreachable: it does not answer, or stops to.
        HostKeyUnknown, HostKeyChanged: it may be another machine.
        LoginRefused: it does not let opsd in.
        PermanentError: what answers is no SSH server that opsd can speak with.
        DeadlineExceeded: no time was left from the beginning.
    """
    transport = _opened(target, known=known, deadline=deadline, through=through)
    try:
        check_host_key(target, transport, known)
        authenticate(target, transport, key=key, deadline=deadline)
    except BaseException:
        transport.close()
        raise
    return Connection(target, transport)


def host_key(
    target: Target, *, known: KnownHosts, deadline: Deadline, through: Connection | None = None
) -> HostKey:
    """The key that a machine shows, believed or not, of a type that is known if it has one.

    Raises:
        Unreachable, PermanentError, DeadlineExceeded: as `connect`; nobody logs in.
    """
    transport = _opened(target, known=known, deadline=deadline, through=through)
    try:
        return shown_key(transport)
    finally:
        transport.close()


def _opened(
    target: Target, *, known: KnownHosts, deadline: Deadline, through: Connection | None
) -> paramiko.Transport:
    """An encrypted connection to somebody."""
    stream = (
        through.tunnel(target.address, target.port, deadline=deadline)
        if through
        else socket_to(target, deadline)
    )
    try:
        transport = transport_to(stream, target, known)
        try:
            shake_hands(target, transport, deadline)
        except BaseException:
            transport.close()
            raise
    except BaseException:
        stream.close()
        raise
    return transport
