"""What every place that keeps backups can do. Directory, S3 and memory pass one test suite.

A repository holds immutable objects under keys. Nothing is ever overwritten: the first
writer of a key wins and everybody else is told. An object is there wholly or not at all,
whatever died when. What was begun and not finished can be listed and discarded.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from opsd.errors import PermanentError, TransientError

CHUNK_BYTES = 1 << 20  # the largest piece that `read` yields


class AlreadyExists(PermanentError):
    """The key is taken; what is there was not touched."""


class NotFound(PermanentError):
    """No object under this key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What an upload handed over, counted and hashed on its way out."""

    key: str
    size_bytes: int
    sha256: str  #: hex digest of the bytes as given to `write`


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object as the repository lists it."""

    key: str
    size_bytes: int
    modified_at: datetime  #: the repository's own clock, aware UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """An upload that was begun and neither committed nor aborted."""

    key: str  #: the key it would have had
    run_id: str  #: the run that began it; empty when it cannot be told
    started_at: datetime  #: the repository's own clock, aware UTC
    token: str  #: for `discard`: a temporary file's name, an upload id


class Upload(Protocol):
    """One object on its way. Use `commit` or `abort`; leaving both out leaves an `Unfinished`.

    Not safe for several threads. Memory is bounded whatever the size.
    """

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append `chunk`; it may be reused by the caller after the call.

        Raises:
            TransientError, PermanentError: the repository refused; only `abort` may follow.
        """
        ...

    def commit(self) -> Stored:
        """Make the object appear under its key, durable and whole.

        Raises:
            AlreadyExists: the key is taken.
            TransientError, PermanentError: it did not appear; `abort` takes the rest away.
        """
        ...

    def abort(self) -> None:
        """Take away everything that was written. Idempotent, never raises, also after commit."""
        ...


class Repository(Protocol):
    """A place for backups. Methods may be called from several threads.

    Keys consist of parts in the alphabet of `opsd.backup.naming.quote`, joined by ``/``.
    All errors are TransientError or PermanentError and name the repository and the key.
    """

    @property
    def name(self) -> str:
        """The configured name, e.g. ``offsite``."""
        ...

    @property
    def location(self) -> str:
        """Where it is, for people, without secrets: ``/srv/backup`` or ``s3://bucket/prefix``."""
        ...

    def upload(self, key: str, *, run_id: str, size_hint: int = 0) -> Upload:
        """Begin an object.

        Args:
            key: the key that it gets on commit.
            run_id: kept with what is unfinished, so that it can be told whose it was.
            size_hint: an upper bound in bytes if one is known (S3 part size), else 0.
        """
        ...

    def create(self, key: str, content: bytes) -> None:
        """Write a small object in one step; the same content under the same key is fine.

        Raises:
            AlreadyExists: the key is taken by other content.
        """
        ...

    def read(self, key: str) -> Iterator[bytes]:
        """The object's bytes in order, in pieces of at most `CHUNK_BYTES`, from storage.

        Raises:
            NotFound: no such object.
            TransientError: also when the stream ends before the object's size.
        """
        ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose key starts with `prefix`, sorted by key; nothing unfinished."""
        ...

    def delete(self, key: str) -> None:
        """Remove one object. Idempotent: a missing key is fine.

        Raises:
            PermanentError: the repository keeps it (Object Lock, missing right).
        """
        ...

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """What was begun under `prefix` and not finished, by anybody."""
        ...

    def discard(self, leftover: Unfinished) -> None:
        """Take an unfinished object away. Idempotent; never touches a finished object."""
        ...

    def probe(self) -> None:
        """Write, read back, list and delete a small object, so that every right is tried.

        Raises:
            TransientError, PermanentError: naming the step that failed and the remedy.
        """
        ...


def try_rights(repository: Repository) -> None:
    """Do everything that a backup needs with one small object, and take it away again.

    Raises:
        TransientError, PermanentError: naming the step that failed.
    """
    key, content = f"probe/{secrets.token_hex(8)}", secrets.token_bytes(64)
    with _step(repository, "write"):
        repository.create(key, content)
    try:
        with _step(repository, "read back"):
            if b"".join(repository.read(key)) != content:
                raise PermanentError(f"{key}: other bytes came back than were written")
        with _step(repository, "list"):
            if [entry.size_bytes for entry in repository.list(key)] != [len(content)]:
                raise PermanentError(f"{key}: written, but the listing does not show it")
    finally:
        with _step(repository, "delete"):
            repository.delete(key)


@contextlib.contextmanager
def _step(repository: Repository, step: str) -> Iterator[None]:
    try:
        yield
    except TransientError as exc:
        raise TransientError(f"probe of repository {repository.name}: {step}: {exc}") from exc
    except PermanentError as exc:
        raise PermanentError(f"probe of repository {repository.name}: {step}: {exc}") from exc
