"""Read what the API server answered, and say a refusal in one line that a person understands.

A wrong answer must never pass for an empty cluster: what is cut short, is HTML or is JSON of
something else is an error, not a list without items.
"""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from opsd.clients.kube.errors import Conflict, Expired, Forbidden, NotFound, Refused, Unreachable
from opsd.clients.kube.objects.base import Outline, Struct
from opsd.errors import OpsdError
from opsd.secrets import redact
from opsd.text import printable, shortened

T = TypeVar("T")
ObjectT = TypeVar("ObjectT", bound=Outline)

_MOST_CHARACTERS = 300  # of the server's own words
_ILL = b"[-]"
_LONGEST_WAIT_S = 3600.0
_GZIP = 16 + zlib.MAX_WBITS  # zlib's way to say so
_NOT_ALLOWED = re.compile(r'User "([^"]+)" cannot (\w+) (?:resource )?"?([\w./-]+)"?')
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):([^:]+)")
_PASSING = (408, 425, 429)  # besides everything from 500 on
_REFUSALS: Mapping[int, type[OpsdError]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
}
_AT_ITEM = re.compile(r"\$\.items\[(\d+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes
    content_type: str = ""
    retry_after: str = ""  #: seconds, or empty
    is_whole: bool = True  #: false: cut short, or longer than is accepted


class ListMetadata(Struct):
    """Which version of the cluster a list shows, and where it goes on."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Page(Struct, Generic[T]):
    """A part of a list."""

    metadata: ListMetadata = ListMetadata()
    items: tuple[T, ...] | None = ()


class Cause(Struct):
    """One reason of several."""

    field: str = ""  #: ``metadata.uid``
    message: str = ""


class StatusDetails(Struct):
    """More of it."""

    causes: tuple[Cause, ...] = ()
    retry_after_seconds: int = 0


class Status(Struct):
    """What the API server says instead of an object."""

    kind: str = ""
    code: int = 0
    reason: str = ""
    message: str = ""
    details: StatusDetails = StatusDetails()


class _Named(Outline):
    """Any object."""


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
# When two threads are the first to use a type, msgspec 0.22 crashes the process.
_decoders_lock = threading.Lock()


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """The decoder of a type, made once."""
    with _decoders_lock:
        if kind not in _decoders:
            _decoders[kind] = msgspec.json.Decoder(kind)
        return _decoders[kind]


def read_object(kind: type[ObjectT], body: bytes, what: str) -> ObjectT:
    """One object.

    Raises:
        Unreachable: this is no object of the Kubernetes API.
        Refused: it is one, and a field of it is not what opsd knows.
    """
    found: ObjectT = _read(kind, body, what)
    if not found.uid:
        raise _garbage(body, what)
    return found


def read_page(kind: type[ObjectT], body: bytes, what: str) -> Page[ObjectT]:
    """A part of a list; raises as `read_object`."""
    page: Page[ObjectT] = _read(Page[kind], body, what)  # type: ignore[valid-type]
    if not page.metadata.resource_version:
        raise _garbage(body, what)
    return page


def unpacked(body: bytes, most_bytes: int) -> tuple[bytes, bool]:
    """A gzip stream as it was, up to so many bytes; and whether it has its end."""
    stream = zlib.decompressobj(_GZIP)
    try:
        return stream.decompress(body, most_bytes), stream.eof
    except zlib.error:
        return b"", False


def raise_for(answer: Answer, what: str) -> None:
    """Say what is wrong with an answer; nothing, if it is good.

    Raises:
        NotFound, Forbidden, Conflict, Expired, Refused, Unreachable: see there.
    """
    if not answer.is_whole:
        raise Unreachable(f"{what}: the answer was cut short or is too long")
    if 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP
        return
    raise error_of(_status(answer), what, retry_after_s=_seconds(answer.retry_after))


def error_of(status: Status, what: str, *, retry_after_s: float = 0.0) -> OpsdError:
    """The error that a refusal is."""
    reason = f" {status.reason}" if status.reason else ""
    text = f"{what}: {status.code}{reason}: {_words(status.message)}"
    if "Too large resource version" in status.message:  # the API server's data was set back
        return Expired(text)
    if any(cause.field == "metadata.uid" for cause in status.details.causes):
        return Conflict(text)  # a patch of an object whose name another has now
    if status.code in _PASSING or not 400 <= status.code < 500:  # noqa: PLR2004 - HTTP
        return Unreachable(text, status=status.code, retry_after_s=retry_after_s)
    return _REFUSALS.get(status.code, Refused)(text)


def _read(kind: Any, body: bytes, what: str) -> Any:
    try:
        return decoder(kind).decode(body)
    except msgspec.ValidationError as exc:
        if not body.lstrip().startswith(b"{"):
            raise _garbage(body, what) from None
        raise Refused(f"{what}: {_misfit(exc, body)}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise _garbage(body, what) from exc


def _misfit(exc: msgspec.ValidationError, body: bytes) -> str:
    """Which object, and what of it."""
    said = printable(redact(str(exc)))
    place = _AT_ITEM.search(said)
    if place is None:
        return f"unexpected answer: {said}"
    item = decoder(Page[_Named]).decode(body).items or ()
    metadata = item[int(place[1])].metadata
    where = "/".join(filter(None, (metadata.namespace, metadata.name)))
    return f"unexpected answer: {where}: {said.replace(place[0], '$')}"


def _garbage(body: bytes, what: str) -> Unreachable:
    start = shortened(_printable(body[: 4 * _MOST_CHARACTERS]), 80) or "nothing"
    return Unreachable(f"{what}: this is no answer of a Kubernetes API: {start}")


def _status(answer: Answer) -> Status:
    """What the server says of a failure, in JSON or, as proxies and old paths do, in text."""
    try:
        status = decoder(Status).decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Of a health check only what failed: before that come dozens of lines that are well.
        lines = answer.body.splitlines()
        said = b" ".join(line for line in lines if line.startswith(_ILL)) or answer.body
        return Status(code=answer.status, message=_printable(said[: 1 << 10]))
    return msgspec.structs.replace(status, code=answer.status)


def _words(message: str) -> str:
    """The server's words; a missing right as short as a person would say it."""
    refused = _NOT_ALLOWED.search(message)
    if refused is None:
        return shortened(printable(redact(message)), _MOST_CHARACTERS) or "no reason given"
    user, verb, resource = refused.groups()
    account = _SERVICE_ACCOUNT.fullmatch(user)
    who = f"serviceaccount {account[1]}/{account[2]}" if account else f"user {user}"
    return printable(f"{who} cannot {verb} {resource}")


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), _LONGEST_WAIT_S) if retry_after.isdecimal() else 0.0


def _printable(raw: bytes) -> str:
    return printable(redact(raw.decode("utf-8", "backslashreplace")))
