"""See changes as they come, without missing one and without trusting a connection that is silent.

A watch can break in ways that look like a quiet cluster: a half-open connection, an API server
that restarted, a version that it forgot. Here silence longer than its bookmarks explain ends
the connection, breaks are mended with growing pauses, and `follow` lists again and compares
when the API server forgot where it was, so that what was deleted meanwhile is told.

Limits: what changed and changed back between two looks is not seen. For a few nodes a list
every half minute is simpler and as quick.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
import structlog

from opsd.clients.kube import calls
from opsd.clients.kube.answers import Status, decoder, error_of
from opsd.clients.kube.calls import Request, Selection
from opsd.clients.kube.client import Kube
from opsd.clients.kube.errors import Expired, Unreachable
from opsd.clients.kube.objects.base import Object, Struct

log = structlog.get_logger()

ObjectT = TypeVar("ObjectT", bound=Object)

SILENCE_S = 75.0  # the API server sends a bookmark every minute
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class ChangeType(enum.Enum):
    """What happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Change(Generic[ObjectT]):
    """One object after something happened to it."""

    type: ChangeType
    object: ObjectT  #: a deleted one as it was last seen


class _Line(Struct):
    type: str = ""
    object: msgspec.Raw = msgspec.Raw(b"{}")


class _Pauses:
    """Growing pauses between connections, until one held for long."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._pause_s = FIRST_PAUSE_S
        self._began_at = time.monotonic()

    def begin(self) -> None:
        """Note that a connection is tried."""
        self._began_at = time.monotonic()

    def held_s(self) -> float:
        """How long ago it was tried."""
        return time.monotonic() - self._began_at

    def wait(self) -> None:
        """Wait before the next.

        Raises:
            DeadlineExceeded: no time is left.
        """
        if self.held_s() >= LONGEST_PAUSE_S:
            self._pause_s = FIRST_PAUSE_S
        self._kube.transport.pause(min(self._pause_s, self._kube.deadline.remaining()))
        self._kube.deadline.remaining()
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


def watch(
    kube: Kube, kind: type[ObjectT], selection: Selection, *, since: str
) -> Iterator[Change[ObjectT]]:
    """Every change after a version of the cluster, for as long as there is time.

    Args:
        kube: the cluster.
        kind: of which objects.
        selection: of which of them.
        since: the version, of a page or of an object.

    Raises:
        Expired: the API server forgot the version: list again.
        DeadlineExceeded: the usual end.
        Forbidden, NotFound, Refused, ConfigError: as `Kube.list`.
    """
    pauses = _Pauses(kube)
    while True:
        pauses.begin()
        heard = False
        try:
            for change in _one_connection(kube, kind, calls.watch(kind, selection, since)):
                heard, since = True, change.object.metadata.resource_version
                if isinstance(change, Change):
                    yield change
        except Unreachable as exc:
            # Not even a bookmark: so it is with a version that is yet to come, because the API
            # server's data was set back.
            if not heard and pauses.held_s() >= SILENCE_S:
                raise Expired(f"{exc}; its version may be lost") from exc
            log.info("watch.interrupted", error=str(exc))
        pauses.wait()


@dataclass(frozen=True, slots=True)
class _Bookmark:
    """How far the API server got, without anything that would concern us."""

    object: Object


class _Marked(Object):
    """What a bookmark carries."""


def _one_connection(
    kube: Kube, kind: type[ObjectT], request: Request
) -> Iterator[Change[ObjectT] | _Bookmark]:
    lines = decoder(_Line)
    with kube.transport.stream(request, kube.deadline, silence_s=SILENCE_S) as stream:
        for raw in stream:
            try:
                line = lines.decode(raw)
                if line.type == "ERROR":
                    raise error_of(decoder(Status).decode(line.object), request.what)
                if line.type == "BOOKMARK":
                    yield _Bookmark(decoder(_Marked).decode(line.object))
                else:
                    yield Change(ChangeType(line.type), decoder(kind).decode(line.object))
            except (msgspec.DecodeError, ValueError) as exc:
                raise Unreachable(f"{request.what}: a line cannot be understood: {exc}") from exc


def follow(
    kube: Kube,
    kind: type[ObjectT],
    *,
    namespace: str = "",
    labels: str = "",
    fields: str = "",
) -> Iterator[Change[ObjectT]]:
    """What is there, each as ADDED, and then every change, whatever happens to the connection.

    After an interruption that the API server does not bridge, the list is compared with what was
    known, by uid: what is gone comes as DELETED, and one name with another uid comes as both.

    Raises:
        DeadlineExceeded: the usual end.
        Forbidden, NotFound, Refused, ConfigError: as `Kube.list`.
    """
    selection = Selection(namespace=namespace, labels=labels, fields=fields)
    known: dict[str, ObjectT] = {}
    pauses = _Pauses(kube)
    while True:
        pauses.begin()
        try:
            fresh, version = _snapshot(kube, kind, selection)
            yield from _differences(known, fresh)
            known = fresh
            for change in watch(kube, kind, selection, since=version):
                _remember(known, change)
                yield change
        except (Expired, Unreachable) as exc:
            log.info("watch.restarted", error=str(exc))
        pauses.wait()


def _snapshot(
    kube: Kube, kind: type[ObjectT], selection: Selection
) -> tuple[dict[str, ObjectT], str]:
    """All objects by uid, and the version of the cluster that they show."""
    objects: dict[str, ObjectT] = {}
    version = ""
    for page in kube.pages(kind, selection):
        objects.update((item.uid, item) for item in page.items or ())
        version = page.metadata.resource_version
    return objects, version


def _differences(
    known: dict[str, ObjectT], fresh: dict[str, ObjectT]
) -> Iterator[Change[ObjectT]]:
    for uid in known.keys() - fresh.keys():
        yield Change(ChangeType.DELETED, known[uid])
    for uid, item in fresh.items():
        if uid not in known:
            yield Change(ChangeType.ADDED, item)
        elif item.metadata.resource_version != known[uid].metadata.resource_version:
            yield Change(ChangeType.MODIFIED, item)


def _remember(known: dict[str, ObjectT], change: Change[ObjectT]) -> None:
    if change.type is ChangeType.DELETED:
        known.pop(change.object.uid, None)
    else:
        known[change.object.uid] = change.object
