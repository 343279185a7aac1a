"""One stream into several repositories, committed only when it is known to be whole.

A program that dies half-way leaves bytes that look like a backup. So nothing is committed
before the program has ended with status 0 and a reader of its format has read the stream to
its end. A repository that fails does not stop the others.

Limits: the repositories are written in turn by one thread, so the slowest sets the pace.
Memory is bounded by the pieces in flight, whatever the size of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from opsd.backup.manifest import Manifest
from opsd.backup.repository import CHUNK_BYTES, Repository, Stored, Upload
from opsd.clients.process import Process, complaint
from opsd.clock import Deadline
from opsd.errors import ConfigError, OpsdError, PermanentError, TransientError

Read = Callable[[int], bytes]
Write = Callable[[bytes], object]

_SCRIPT_TAIL_BYTES = 4096  # the closing line of a script stands within this
_SCRIPT_END = b"\n-- PostgreSQL database cluster dump complete\n"


class SourceFailed(TransientError):
    """The program that produces the stream did not end well. `stderr` holds its words."""

    def __init__(self, text: str, *, stderr: str) -> None:
        super().__init__(text)
        self.stderr = stderr


class NoRepositoryLeft(TransientError):
    """Every repository has failed; there is no point in going on."""


class Incomplete(PermanentError):
    """The data does not end where its format says, or is not of that format."""


class Check(Protocol):
    """A reader of some format that proves that a stream is whole. A context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def feed(self, chunk: bytes) -> None:
        """The next bytes."""
        ...

    def finish(self) -> None:
        """The stream has ended.

        Raises:
            Incomplete: it should not have, or not so.
        """
        ...


class ArchiveCheck:
    """Has pg_restore read a custom-format archive to its end, into nothing."""

    def __init__(self, pg_restore: str, *, deadline: Deadline) -> None:
        self._process = Process([pg_restore, "--file=/dev/null"], deadline=deadline, stdin=True)
        self._reading = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()

    def feed(self, chunk: bytes) -> None:
        """Pass `chunk` on; see `Check.feed`."""
        if self._reading:
            try:
                self._process.write(chunk)
            except BrokenPipeError:
                self._reading = False  # it has read enough, or failed: its status tells

    def finish(self) -> None:
        """Ask pg_restore; see `Check.finish`."""
        returncode = self._process.wait()
        if returncode != 0:
            said = complaint(self._process.stderr, returncode)
            raise Incomplete(f"pg_restore cannot read the archive to its end: {said}")


class ScriptCheck:
    """Looks for the closing line of a pg_dumpall script."""

    def __init__(self) -> None:
        self._tail = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def feed(self, chunk: bytes) -> None:
        """Keep the end; see `Check.feed`."""
        self._tail = (self._tail + chunk)[-_SCRIPT_TAIL_BYTES:]

    def finish(self) -> None:
        """Look at the end; see `Check.finish`."""
        if _SCRIPT_END not in self._tail:
            raise Incomplete("the script has no closing line: it was cut off")


class Fanout:
    """One object on its way into several repositories; leaving it aborts what is not committed."""

    def __init__(
        self, repositories: Iterable[Repository], key: str, *, run_id: str, size_hint: int = 0
    ) -> None:
        self.failures: dict[str, OpsdError] = {}  #: by repository; filled as they fail
        self.written_bytes = 0
        self._uploads: dict[str, Upload] = {}
        for repository in repositories:
            try:
                upload = repository.upload(key, run_id=run_id, size_hint=size_hint)
            except (TransientError, PermanentError) as exc:
                self.failures[repository.name] = exc
            else:
                self._uploads[repository.name] = upload

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for upload in self._uploads.values():
            upload.abort()

    def write(self, chunk: bytes) -> None:
        """Append to every upload that is still well.

        Raises:
            NoRepositoryLeft: none is.
        """
        for name, upload in tuple(self._uploads.items()):
            try:
                upload.write(chunk)
            except (TransientError, PermanentError) as exc:
                self._give_up(name, exc)
        if not self._uploads:
            raise NoRepositoryLeft("; ".join(str(exc) for exc in self.failures.values()))
        self.written_bytes += len(chunk)

    def commit(self) -> dict[str, Stored]:
        """Make the object appear in each repository; those that fail go to `failures`."""
        stored = {}
        for name, upload in tuple(self._uploads.items()):
            try:
                stored[name] = upload.commit()
            except (TransientError, PermanentError) as exc:
                self._give_up(name, exc)
            else:
                del self._uploads[name]
        return stored

    def _give_up(self, name: str, exc: OpsdError) -> None:
        self.failures[name] = exc
        self._uploads.pop(name).abort()


def output_of(process: Process, *, check: Check | None = None) -> Read:
    """A reader of a program's stdout that ends only if the program ended well.

    Args:
        process: the program.
        check: is fed all that is read, and asked at the end.

    The reader raises SourceFailed instead of reporting the end when the program's status
    is not 0, and Incomplete when `check` says so.
    """

    def read(size: int) -> bytes:
        chunk = process.read(min(size, CHUNK_BYTES) if size > 0 else CHUNK_BYTES)
        if chunk:
            if check is not None:
                check.feed(chunk)
            return chunk
        returncode = process.wait()
        if returncode != 0:
            said = complaint(process.stderr, returncode)
            raise SourceFailed(f"{process.argv[0]}: {said}", stderr=process.stderr)
        if check is not None:
            check.finish()
        return b""

    return read


def pump(read: Read, write: Write, *, recipients: Sequence[str]) -> None:
    """Move the whole stream, encrypted to `recipients` if there are any."""
    if recipients:
        from opsd.backup.crypt import encrypt  # noqa: PLC0415 - its library, only when used

        encrypt(read, write, recipients)
        return
    while chunk := read(CHUNK_BYTES):
        write(chunk)


def opened(
    repository: Repository,
    manifest: Manifest,
    write: Write,
    *,
    identity: Path | None,
    report: Callable[[int], None],
) -> None:
    """Move the plain bytes of a backup into `write`, decrypted if they are encrypted.

    Args:
        repository: where its data is.
        manifest: of the backup.
        write: takes the plain bytes; what it raises surfaces here.
        identity: age identity file that opens it.
        report: is told how many stored bytes were read so far.

    Raises:
        ConfigError: it is encrypted and no identity is given.
        TransientError, PermanentError: it cannot be read or not be opened.
    """
    read = _Reader(repository.read(manifest.key), report)
    if not manifest.encryption:
        while chunk := read(CHUNK_BYTES):
            write(chunk)
        return
    if identity is None:
        raise ConfigError(
            f"{manifest.key} is encrypted to {', '.join(manifest.recipients)}: name the"
            " identity file that opens it"
        )
    from opsd.backup.crypt import decrypt, read_identities  # noqa: PLC0415 - as above

    decrypt(read, write, read_identities(identity))


class _Reader:
    """Pieces of any length, read in the lengths that are asked for."""

    def __init__(self, pieces: Iterator[bytes], report: Callable[[int], None]) -> None:
        self._pieces = pieces
        self._report = report
        self._rest = b""
        self._done = 0

    def __call__(self, size: int) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces, b"")
            self._done += len(self._rest)
            self._report(self._done)
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return chunk
