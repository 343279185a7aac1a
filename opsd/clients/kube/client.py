"""Read and change what is in a cluster, without hanging on it and without surprises.

Lists come in pages, as a generator of small frozen objects. Every call ends in bounded time and
in an error that names action and object. What changes something is sent once; a delete or a
patch is of the very object that was seen, never of another that has its name by now.

Limits: a list that the API server forgot half-way begins anew once; objects that changed in
between may then be seen as they were before. Nothing here runs commands in pods.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from opsd.clients.kube import calls
from opsd.clients.kube.answers import Page, decoder, read_object, read_page
from opsd.clients.kube.calls import Body, Request, Selection
from opsd.clients.kube.errors import Blocked, Expired, NotFound, Unreachable
from opsd.clients.kube.objects.base import Outline, Struct
from opsd.clients.kube.objects.pods import Pod
from opsd.clients.kube.transport import READ_S, Transport
from opsd.clock import Deadline

ObjectT = TypeVar("ObjectT", bound=Outline)


class _Review(Struct):
    allowed: bool = False


class _AccessReview(Struct):
    status: _Review | None = None


class _Version(Struct):
    git_version: str = ""


class Kube:
    """One cluster, until one deadline. Threads may share it.

    What every call may raise:
        ConfigError: there is no cluster, or there are no credentials for it.
        Forbidden: opsd may not do this.
        Refused: it makes no sense to the API server, or its answer makes none to opsd.
        Unreachable: nobody answers; calls that only read have tried again by then.
        DeadlineExceeded: no time is left.
    """

    def __init__(self, transport: Transport, *, deadline: Deadline) -> None:
        """Nothing is opened before the first call."""
        self.transport = transport
        self.deadline = deadline

    def until(self, deadline: Deadline) -> Kube:
        """The same cluster and connections, until `deadline` if that is earlier."""
        earlier = deadline if deadline.at < self.deadline.at else self.deadline
        return Kube(self.transport, deadline=earlier)

    def server_time(self) -> datetime:
        """The API server's clock now, exact to a second; asks if nothing was asked before."""
        if self.transport.server_time() is None:
            self.version()
        seen = self.transport.server_time()
        if seen is None:
            raise Unreachable("ask for the time: the API server sends no Date")
        return seen

    def version(self) -> str:
        """The API server's release: ``v1.37.2``."""
        request = Request(what="get version", path="/version")
        version = decoder(_Version).decode(self._read(request)).git_version
        if not version:
            raise Unreachable(f"{request.what}: this is no answer of a Kubernetes API")
        return version

    def raw(self, path: str) -> bytes:
        """What lies at a path that is no object: ``/readyz?verbose``, ``/apis``.

        Raises:
            NotFound: nothing does.
        """
        return self._read(Request(what=f"get {path}", path=path))

    def lines(self, path: str) -> Iterator[str]:
        """The same, line by line: metrics are many megabytes, of which little is wanted.

        Raises:
            NotFound: nothing lies there.
        """
        request = Request(what=f"get {path}", path=path)
        with self.transport.stream(request, self.deadline, silence_s=READ_S) as lines:
            for line in lines:
                yield line.decode("utf-8", "backslashreplace")

    def get(self, kind: type[ObjectT], name: str, *, namespace: str = "") -> ObjectT:
        """One object.

        Raises:
            NotFound: it is not there.
        """
        request = calls.get(kind, namespace, name)
        return read_object(kind, self._read(request), request.what)

    def find(self, kind: type[ObjectT], name: str, *, namespace: str = "") -> ObjectT | None:
        """One object; None: it is not there."""
        try:
            return self.get(kind, name, namespace=namespace)
        except NotFound:
            return None

    def list(
        self, kind: type[ObjectT], *, namespace: str = "", labels: str = "", fields: str = ""
    ) -> Iterator[ObjectT]:
        """All objects of a kind, page by page, each once.

        Args:
            kind: what.
            namespace: empty for all.
            labels: a selector: ``app=pg,tier!=test``.
            fields: likewise, by the few fields that the API can select: ``spec.nodeName=rpi3``.

        Raises:
            NotFound: the API does not know the kind: an operator is not installed.
            Expired: the list was forgotten twice while it was read.
        """
        selection = Selection(namespace=namespace, labels=labels, fields=fields)
        seen: set[str] = set()
        for is_last_try in (False, True):
            try:
                pages = self.pages(kind, selection)
                for item in itertools.chain.from_iterable(page.items or () for page in pages):
                    if item.uid not in seen:
                        seen.add(item.uid)
                        yield item
                return
            except Expired:
                if is_last_try:
                    raise

    def pages(self, kind: type[ObjectT], selection: Selection) -> Iterator[Page[ObjectT]]:
        """The same as pages, each with the version of the cluster that it shows.

        Raises:
            NotFound: the API does not know the kind.
            Expired: the list was forgotten while it was read.
        """
        token = ""
        while True:
            request = calls.page(kind, selection, token)
            page = read_page(kind, self._read(request), request.what)
            yield page
            token = page.metadata.continue_
            if not token:
                return

    def create(
        self, kind: type[ObjectT], body: Body, *, namespace: str = "", dry_run: bool = False
    ) -> ObjectT:
        """Make an object; returns it as it was stored.

        Raises:
            Conflict: there is one of this name.
            Unreachable: nobody knows: it was made or not.
        """
        request = calls.create(kind, body, namespace=namespace, dry_run=dry_run)
        return read_object(kind, self._send(request), request.what)

    def apply(
        self,
        kind: type[ObjectT],
        name: str,
        body: Body,
        *,
        namespace: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> ObjectT:
        """Have the fields in `body` be so, and those that opsd once applied and left out gone.

        Makes the object if it is not there. Other fields stay. `force` takes fields from others.

        Raises:
            Conflict: a field belongs to somebody else.
        """
        request = calls.apply(kind, name, body, namespace=namespace, force=force, dry_run=dry_run)
        return read_object(kind, self._send(request), request.what)

    def patch_merge(
        self,
        item: ObjectT,
        change: Body,
        *,
        subresource: str = "",
        unchanged: bool = False,
        dry_run: bool = False,
    ) -> ObjectT:
        """Set fields of the very object that was seen; None removes one, lists are replaced.

        With `unchanged` only if nobody changed anything of it since it was read.

        Raises:
            NotFound: it is gone.
            Conflict: another object has its name now, or it was changed.
        """
        request = calls.merge(
            item, change, subresource=subresource, unchanged=unchanged, dry_run=dry_run
        )
        return read_object(type(item), self._send(request), request.what)

    def patch_json(
        self,
        item: ObjectT,
        operations: Sequence[Body],
        *,
        subresource: str = "",
        unchanged: bool = False,
        dry_run: bool = False,
    ) -> ObjectT:
        """The same by JSON Patch (RFC 6902).

        Raises:
            NotFound, Conflict: as `patch_merge`.
            Refused: a ``test`` among the operations failed.
        """
        request = calls.amend(
            item, operations, subresource=subresource, unchanged=unchanged, dry_run=dry_run
        )
        return read_object(type(item), self._send(request), request.what)

    def delete(
        self,
        item: Outline,
        *,
        grace_s: int | None = None,
        unchanged: bool = False,
        dry_run: bool = False,
    ) -> None:
        """Delete the very object that was seen.

        Args:
            item: the object.
            grace_s: how long it may take to end; None: its own time; 0: forget it at once,
                whatever still runs.
            unchanged: only if nobody changed anything of it since it was read.
            dry_run: only have the API server check it.

        Raises:
            NotFound: it is gone already.
            Conflict: another object has its name now, or it was changed.
        """
        self._send(calls.delete(item, grace_s=grace_s, unchanged=unchanged, dry_run=dry_run))

    def evict(self, pod: Pod, *, grace_s: int | None = None, dry_run: bool = False) -> None:
        """Delete the very pod that was seen, unless its disruption budget forbids it.

        Raises:
            Blocked: it does.
            NotFound, Conflict: as `delete`.
        """
        try:
            self._send(calls.evict(pod, grace_s=grace_s, dry_run=dry_run))
        except Unreachable as exc:
            if exc.status == 429:  # noqa: PLR2004 - HTTP
                raise Blocked(str(exc)) from exc
            raise

    def can(
        self,
        verb: str,
        kind: type[Outline],
        *,
        namespace: str = "",
        name: str = "",
        subresource: str = "",
    ) -> bool:
        """Whether opsd may do this; without a namespace: in all of them."""
        request = calls.may(verb, kind, namespace=namespace, name=name, subresource=subresource)
        answer = decoder(_AccessReview).decode(self._read(request))
        if answer.status is None:
            raise Unreachable(f"{request.what}: this is no answer of a Kubernetes API")
        return answer.status.allowed

    def _read(self, request: Request) -> bytes:
        return self.transport.read(request, self.deadline)

    def _send(self, request: Request) -> bytes:
        return self.transport.send(request, self.deadline)
