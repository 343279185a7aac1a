"""Does the snapshot restore, and is everything in it? Proven by doing it.

`etcdutl` restores it into a directory of its own, `etcd` starts from that, listens on a socket
that only opsd can reach, and is asked how many keys it holds and for the hash of all keys and
values, as of the revision that the cluster named just before the snapshot. Then all of it is
removed.

Limits: while it runs, the directory holds the cluster's Secrets in plain; nobody but opsd's user
can enter it. What a killed drill left is removed by the next. A failure says nothing about the
snapshot when the programs here are older than the cluster's etcd.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from opsd.backup.etcd.source import Promise
from opsd.backup.etcd.tools import Tools
from opsd.backup.manifest import Level, Verification
from opsd.backup.proof import Comparison
from opsd.clients.etcd.exchange import Endpoint
from opsd.clients.etcd.member import Etcd
from opsd.clients.process import Process, complaint, run
from opsd.clock import Deadline
from opsd.errors import DeadlineExceeded, OpsdError, PermanentError, TransientError
from opsd.text import printable, shortened

START_S = 120.0  # a Raspberry Pi reads 2 GB in that time
READY_POLL_S = 0.1
_CLIENT, _PEER = "client.sock", "peer.sock"
_NOWHERE = "http://localhost:2"  # a member must have an address; nobody calls it
_QUOTA_BYTES = 64 << 30  # a full database must not raise an alarm here
_REASON = re.compile(r'(?:^panic: |^Error: )(.*)$|"error":"((?:[^"\\]|\\.)*)"', re.MULTILINE)
_REASON_CHARACTERS = 300
_NOT_THE_SNAPSHOT = ("no space left", "permission denied", "out of memory", "too many open files")


class Damaged(PermanentError):
    """The snapshot cannot be restored."""


def drill(
    snapshot: Path,
    promise: Promise,
    tools: Tools,
    *,
    taken_from: str,
    folder: Path,
    deadline: Deadline,
) -> Verification:
    """Restore a snapshot, hold it against what was promised, and remove it again.

    Args:
        snapshot: its file.
        promise: what the cluster said.
        tools: what restores it.
        taken_from: version of the cluster's etcd.
        folder: a place that nobody else can enter; made anew in it, and removed.
        deadline: for all of it.

    Raises:
        TransientError, PermanentError: it could not be tried, so nothing is known.
        DeadlineExceeded: there was no time.
    """
    try:
        with restored(snapshot, tools, folder=folder, deadline=deadline) as etcd:
            comparison = compared(promise, etcd)
    except Damaged as exc:
        if tools.is_older_than(taken_from):
            raise PermanentError(
                f"etcd {tools.version} is here, the cluster has {taken_from}: {exc}"
            ) from exc
        return _verdict(str(exc), deadline, ok=False)
    if not comparison.matches and not comparison.differences:
        raise PermanentError("; ".join(comparison.notes))
    if comparison.differences:
        return _verdict("; ".join(comparison.differences), deadline, ok=False)
    said = "; ".join((f"{comparison.compared} keys as in the cluster", *comparison.notes))
    return _verdict(f"restored into etcd {tools.version}: {said}", deadline, ok=True)


@contextlib.contextmanager
def restored(snapshot: Path, tools: Tools, *, folder: Path, deadline: Deadline) -> Iterator[Etcd]:
    """An etcd that was started from a snapshot, until the end of the context.

    Raises:
        Damaged: it cannot be restored, or no etcd starts from it.
        TransientError, PermanentError, DeadlineExceeded: as `drill`.
    """
    data = folder / "data"
    try:
        cleared(folder)
        _restore(snapshot, data, tools, deadline)
        with _started(folder, data, tools, deadline) as etcd:
            yield etcd
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cleared(folder: Path) -> None:
    """Make `folder` anew, empty, for opsd's user only.

    Raises:
        PermanentError: it cannot be made.
    """
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700, parents=True)
    except OSError as exc:
        raise PermanentError(f"make {folder}: {exc.strerror}") from exc


def compared(promise: Promise, etcd: Etcd) -> Comparison:
    """Hold a restored etcd against what the cluster said.

    Raises:
        TransientError, PermanentError, DeadlineExceeded: it does not answer.
    """
    newest = etcd.count()
    if newest.revision < promise.revision:
        text = f"it ends at revision {newest.revision}, {promise.revision} was promised"
        return Comparison(unit="keys", compared=0, differences=(text,))
    found = etcd.hash(0)
    if found.compact_revision > promise.revision:
        return Comparison(
            unit="keys",
            compared=0,
            notes=(f"revision {promise.revision} was compacted before the snapshot was taken",),
        )
    keys = etcd.count(revision=promise.revision).keys
    differences, notes = [], []
    if keys != promise.keys:
        differences.append(f"{keys} keys, {promise.keys} were promised")
    found = etcd.hash(promise.revision)
    if promise.hash is None:
        notes.append("counted only: the cluster did not tell the hash of its keys in time")
    elif found.compact_revision != promise.compact_revision:
        notes.append("counted only: a compaction came between, which changes their hash")
    elif found.hash != promise.hash:
        differences.append(f"hash {found.hash} of all keys, {promise.hash} was promised")
    else:
        notes.append(f"hash {found.hash}")
    return Comparison(
        unit="keys",
        compared=keys,
        differences=tuple(differences),
        notes=tuple(notes),
        nothing_promised=not promise.keys,
    )


def _verdict(detail: str, deadline: Deadline, *, ok: bool) -> Verification:
    now = deadline.clock.now()
    return Verification(level=Level.RESTORED.label, at=now, ok=ok, detail=detail)


def _restore(snapshot: Path, data: Path, tools: Tools, deadline: Deadline) -> None:
    argv = [tools.etcdutl, "snapshot", "restore", str(snapshot), "--data-dir", str(data)]
    argv += ["--initial-cluster", f"default={_NOWHERE}"]
    argv += ["--initial-advertise-peer-urls", _NOWHERE]
    done = run(argv, deadline=deadline)
    if done.returncode != 0:
        raise _failure("etcdutl cannot restore it", done.stderr, done.returncode)


def _failure(what: str, stderr: str, returncode: int) -> OpsdError:
    text = f"{what}: {_reason(stderr) or complaint(stderr, returncode)}"
    said = stderr.lower()
    if returncode < 0 or any(sign in said for sign in _NOT_THE_SNAPSHOT):
        return TransientError(text)
    return Damaged(text)


def _reason(stderr: str) -> str:
    """What etcd said last, out of its log in JSON, or of Go's crash; empty: nothing of these."""
    found = [found[1] or found[2] for found in _REASON.finditer(stderr)]
    return shortened(printable(found[-1]), _REASON_CHARACTERS) if found else ""


@contextlib.contextmanager
def _started(folder: Path, data: Path, tools: Tools, deadline: Deadline) -> Iterator[Etcd]:
    argv = [
        tools.etcd,
        f"--data-dir={data}",
        f"--listen-client-urls=unix://{_CLIENT}",
        f"--listen-peer-urls=unix://{_PEER}",
        f"--advertise-client-urls={_NOWHERE}",
        f"--initial-advertise-peer-urls={_NOWHERE}",
        f"--initial-cluster=default={_NOWHERE}",
        f"--quota-backend-bytes={_QUOTA_BYTES}",
        "--unsafe-no-fsync",
        "--log-level=error",
    ]
    within = Deadline.after(min(START_S, deadline.remaining()), deadline.clock)
    with (
        Process(argv, deadline=deadline, cwd=str(folder)) as process,
        _entered(folder) as place,
    ):
        endpoint = Endpoint(name="restored etcd", unix_socket=f"{place}/{_CLIENT}")
        try:
            _await_ready(process, Etcd(endpoint, deadline=within))
        except DeadlineExceeded as exc:
            deadline.remaining()
            raise TransientError(f"etcd was not ready within {START_S:.0f} s") from exc
        yield Etcd(endpoint, deadline=deadline)


@contextlib.contextmanager
def _entered(folder: Path) -> Iterator[str]:
    """A short path to `folder`: that of a socket has at most 107 characters."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _await_ready(process: Process, etcd: Etcd) -> None:
    while True:
        if not process.is_running():
            returncode = process.wait()
            raise _failure("no etcd starts from it", process.stderr, returncode)
        with contextlib.suppress(TransientError):
            if etcd.status().leader != "0":
                return
        time.sleep(READY_POLL_S)
