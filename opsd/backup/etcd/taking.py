"""Take one control plane home: what it promises, its snapshot and its files, in one stream.

First the cluster says at which revision it is (a read that only a member answers that has caught
up), how many keys that is and their hash; then the snapshot is taken, which so holds all of it.
It is checked while it streams, encrypted, and published only when it was whole.

Limits: what changes while the snapshot streams is in it or not; what was there before is.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from opsd.backup.delivery import Delivery, Order, Source, deliver
from opsd.backup.etcd import bundle, kubeadmconfig
from opsd.backup.etcd.bundle import File
from opsd.backup.etcd.health import View
from opsd.backup.etcd.plane import Plane
from opsd.backup.etcd.rebuild import readme
from opsd.backup.etcd.snapshot import SnapshotCheck
from opsd.backup.etcd.source import KIND, EtcdSource, Promise, to_builtins
from opsd.backup.repository import Repository
from opsd.backup.stream import Write, pump
from opsd.clients.etcd.member import Etcd, Snapshot
from opsd.clock import Deadline
from opsd.errors import PermanentError, TransientError
from opsd.progress import Progress

log = structlog.get_logger()

SUFFIX = ".tar"
CHECKED = "read to its end, SHA-256 of the snapshot as etcd sent it"


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """For which run, and where to."""

    cluster: str
    subject: str
    repositories: Sequence[Repository]
    recipients: Sequence[str]  #: age public keys, at least one
    slot: datetime
    run_id: str
    deadline: Deadline
    progress: Progress
    keep_copy: Path | None = None  #: where the plain snapshot is kept for a drill; None: nowhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One control plane that can be taken."""

    etcd: Etcd
    view: View
    plane: Plane
    files: tuple[File, ...]
    missing: tuple[str, ...]  #: what a rebuild needs and `files` lack


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of it."""

    delivery: Delivery
    source: EtcdSource
    copy_problem: str = ""  #: why there is no whole copy for a drill


def promised(etcd: Etcd) -> Promise:
    """What the cluster holds now; without the hash where that takes the member too long.

    Raises:
        TransientError, PermanentError, DeadlineExceeded: the member cannot tell.
    """
    now = etcd.count()
    try:
        found = etcd.hash(now.revision)
    except TransientError as exc:
        log.warning("hash.missed", member=etcd.name, error=str(exc))
        return Promise(revision=now.revision, keys=now.keys)
    return Promise(
        revision=now.revision,
        keys=now.keys,
        hash=found.hash,
        compact_revision=found.compact_revision,
    )


def take(control: Control, how: How) -> Taken:
    """Bring a control plane into every repository of `how`.

    Raises:
        Incomplete: the snapshot was not whole; nothing was kept.
        PermanentError: there is no recipient.
        TransientError, PermanentError, DeadlineExceeded: the member failed on the way.
    """
    if not how.recipients:
        raise PermanentError(f"{how.subject}: without recipients nothing is taken")
    taking = _Taking(control, how)
    delivery = deliver(taking.order(), taking.produce)
    return Taken(delivery=delivery, source=taking.source, copy_problem=taking.copy.problem)


class _Taking:
    def __init__(self, control: Control, how: How) -> None:
        self._control, self._how = control, how
        self._kubeadm = kubeadmconfig.cluster_configuration(control.etcd.get(kubeadmconfig.KEY))
        self._promise = promised(control.etcd)
        self._taken_at = how.deadline.clock.now()
        self.source = self._source(snapshot_bytes=0)
        self.copy = Copy(how.keep_copy)

    def order(self) -> Order:
        how, size = self._how, self._control.view.status.db_size
        return Order(
            kind=KIND,
            subject=how.subject,
            slot=how.slot,
            run_id=how.run_id,
            suffix=SUFFIX,
            repositories=how.repositories,
            recipients=how.recipients,
            size_hint=2 * size + bundle.overhead(self._files()),
            deadline=how.deadline,
            progress=how.progress,
            parsed=CHECKED,
        )

    def produce(self, write: Write) -> Source:
        check, how = SnapshotCheck(), self._how
        step = f"snapshot of {self._control.etcd.name}"
        try:
            with self._control.etcd.snapshot() as snapshot, self.copy:
                self.source = self._source(snapshot_bytes=snapshot.size_bytes)

                def told(done: int) -> None:
                    how.progress.update(step, done=done, total=snapshot.size_bytes)

                copied = Snapshot(
                    size_bytes=snapshot.size_bytes,
                    pieces=self._copied(snapshot.pieces, told),
                )
                stream = bundle.write(
                    self._files(), copied, check, modified_s=int(self._taken_at.timestamp())
                )
                pump(reader(stream), write, recipients=how.recipients)
        finally:
            how.progress.finish(step)
        return to_builtins(self.source)

    def _copied(self, pieces: Iterator[bytes], told: Callable[[int], object]) -> Iterator[bytes]:
        done = 0
        for piece in pieces:
            self.copy.write(piece)
            done += len(piece)
            told(done)
            yield piece

    def _files(self) -> tuple[File, ...]:
        """Everything but the snapshot, by its place in the bundle."""
        at = int(self._taken_at.timestamp())
        meta = json.dumps(to_builtins(self.source), indent=1).encode() + b"\n"
        own = [
            File(path=bundle.README, content=readme(self.source).encode(), modified_s=at),
            File(path=bundle.META, content=meta, modified_s=at),
        ]
        if self._kubeadm:
            content = self._kubeadm.encode()
            own.append(File(path=bundle.KUBEADM, content=content, modified_s=at))
        return (*own, *(bundle.of_node(file) for file in self._control.files))

    def _source(self, *, snapshot_bytes: int) -> EtcdSource:
        control, plane = self._control, self._control.plane
        view = control.view
        return EtcdSource(
            cluster=self._how.cluster,
            node=plane.node,
            address=plane.address,
            peer_url=plane.peer_url,
            data_dir=plane.data_dir,
            etcd_version=view.status.version,
            kubernetes_version=plane.kubernetes_version,
            members=view.names,
            snapshot_bytes=snapshot_bytes,
            db_in_use_bytes=view.status.db_size_in_use,
            quota_bytes=view.quota_bytes,
            taken_at=self._taken_at,
            promise=self._promise,
            files=len(control.files),
            missing=control.missing,
            encrypts_secrets=plane.is_encrypted,
            has_kubeadm_config=bool(self._kubeadm),
        )


class Copy:
    """A plain copy beside the stream; that it fails does not end the stream. A context manager."""

    def __init__(self, path: Path | None) -> None:
        self.problem = ""  #: why it is not whole
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> None:
        if self._path is None:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._path, flags, 0o600)
        except OSError as exc:
            self._give_up(exc)

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, piece: bytes) -> None:
        """Append, unless it has failed before."""
        view = memoryview(piece)
        try:
            while view and self._descriptor >= 0:
                view = view[os.write(self._descriptor, view) :]
        except OSError as exc:
            self._give_up(exc)

    def _give_up(self, exc: OSError) -> None:
        self.problem = f"write {self._path}: {exc.strerror}"
        self._close()
        if self._path:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def reader(pieces: Iterator[bytes]) -> Callable[[int], bytes]:
    """Pieces of any length, read in the lengths that are asked for."""
    rest = memoryview(b"")

    def read(size: int) -> bytes:
        nonlocal rest
        while not rest:
            piece = next(pieces, None)
            if piece is None:
                return b""
            rest = memoryview(piece)
        chunk, rest = bytes(rest[:size]), rest[size:]
        return chunk

    return read
