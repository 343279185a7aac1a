"""Does a file server answer? An open port does not say so: the kernel accepts for what hangs.

So the server's program is called, by the procedure NULL, which every version of NFS has and
which does nothing. Any well-formed reply proves that it works; a refusal of the version too.

Limits: NFS over TCP, without RPC-over-TLS and without asking rpcbind for another port. A server
that answers NULL may still hang on a disk of its own.

Source: RFC 5531 (RPC), sections 9 and 11; RFC 7530 and RFC 1813 (procedure NULL).
"""

from __future__ import annotations

import enum
import secrets
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from opsd.clock import Deadline
from opsd.errors import DeadlineExceeded, TransientError

PORT = 2049
_NFS = 100003  # program number
_CALL, _REPLY, _RPC_VERSION = 0, 1, 2
_WRONG_VERSION = 2  # status of a call
_LAST = 1 << 31  # flag of the last fragment of a message
_MOST_BYTES = 4096  # of a reply; NULL's has 28
_FAST = 0.05  # what is left to the system when the time is over


class Outcome(enum.StrEnum):
    """What came of a call."""

    ANSWERED = "answered"
    SILENT = "silent"  #: it let us connect, or not even that, and said nothing in time
    REFUSED = "refused"  #: the machine is up, and nothing listens there
    UNREACHABLE = "unreachable"  #: there is no way to it, or nobody knows its name
    STRANGE = "strange"  #: something else answers on that port


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a file server said, or what became of the question."""

    outcome: Outcome
    detail: str = ""  #: in words, when it is not simply well
    seconds: float = 0.0
    is_served: bool = True  #: whether it knows this version of NFS

    @property
    def is_alive(self) -> bool:
        """Whether the server's program works."""
        return self.outcome is Outcome.ANSWERED


#: Makes a connection: host, port.
Connect = Callable[[str, int], socket.socket]


def null(
    host: str,
    port: int = PORT,
    *,
    version: int,
    deadline: Deadline,
    connect: Connect | None = None,
) -> Answer:
    """Call procedure NULL of NFS; whatever goes wrong is the answer.

    Args:
        host: name or address.
        port: of its NFS service.
        version: of NFS: 3 or 4.
        deadline: for connecting and for the reply together.
        connect: makes the connection, as from another machine; from here if there is none.

    Raises:
        PermanentError: `connect` cannot connect to anything.
    """
    began_s = deadline.clock.monotonic()
    answer = _called(host, port, version, deadline, connect or _connector(deadline))
    return replace(answer, seconds=deadline.clock.monotonic() - began_s)


def _called(host: str, port: int, version: int, deadline: Deadline, connect: Connect) -> Answer:
    try:
        with connect(host, port) as connection:
            return _call(connection, version, deadline)
    except (TimeoutError, DeadlineExceeded):
        return Answer(outcome=Outcome.SILENT, detail="no answer in time")
    except ConnectionRefusedError:
        return Answer(outcome=Outcome.REFUSED, detail=f"port {port} is closed")
    except (ConnectionError, EOFError):
        return Answer(outcome=Outcome.STRANGE, detail="it hung up without an answer")
    except (OSError, TransientError, ValueError) as exc:
        return Answer(outcome=Outcome.UNREACHABLE, detail=_why(exc))


def _why(exc: Exception) -> str:
    match exc:
        case OSError():
            return exc.strerror or "no way to it"
        case ValueError():  # too long, or with characters that no name has
            return "that is no name of a machine"
    return str(exc)


def _connector(deadline: Deadline) -> Connect:
    return lambda host, port: socket.create_connection(
        (host, port), timeout=max(_FAST, deadline.remaining())
    )


def _call(connection: socket.socket, version: int, deadline: Deadline) -> Answer:
    """Send the call and read what comes."""
    number = secrets.randbits(32)
    nobody = (0, 0)  # credentials and verifier: none
    body = struct.pack(">10I", number, _CALL, _RPC_VERSION, _NFS, version, 0, *nobody, *nobody)
    connection.settimeout(max(_FAST, deadline.remaining()))
    connection.sendall(struct.pack(">I", _LAST | len(body)) + body)
    (length,) = struct.unpack(">I", _read(connection, 4, deadline))
    length &= ~_LAST
    if not struct.calcsize(">3I") <= length <= _MOST_BYTES:
        return Answer(outcome=Outcome.STRANGE, detail="it does not speak RPC")
    reply = _read(connection, length, deadline)
    if struct.unpack_from(">2I", reply) != (number, _REPLY):
        return Answer(outcome=Outcome.STRANGE, detail="it answers what was not asked")
    if _status(reply) == _WRONG_VERSION:
        detail = f"it does not serve NFS version {version}"
        return Answer(outcome=Outcome.ANSWERED, detail=detail, is_served=False)
    return Answer(outcome=Outcome.ANSWERED)


def _status(reply: bytes) -> int | None:
    """Of an accepted call; None: it was denied, by the server's rules for clients."""
    try:
        denied, _, length = struct.unpack_from(">3I", reply, 8)
        (status,) = struct.unpack_from(">I", reply, 20 + length)
    except struct.error:
        return None
    return None if denied else int(status)


def _read(connection: socket.socket, count: int, deadline: Deadline) -> bytes:
    """So many bytes.

    Raises:
        TimeoutError: they did not come in time.
        EOFError: they never come.
    """
    held = b""
    while len(held) < count:
        connection.settimeout(max(_FAST, deadline.remaining()))
        piece = connection.recv(count - len(held))
        if not piece:
            raise EOFError
        held += piece
    return held
