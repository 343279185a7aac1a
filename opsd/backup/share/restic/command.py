"""Call restic so that its silence, its exit statuses and its locks mean what they should.

restic below 0.17.1 calls failures success, so it is refused. Secrets reach it through the
environment only: an argument is visible to every user of the machine, the environment to
the same user, who could read the secret's file as well. A lock that a dead restic left is
removed by restic's own rule (same host and the process is gone, or not refreshed for 30
minutes), and only by a run of opsd, which holds the job's lease.

Limits: restic prints names that are not UTF-8 lossily in JSON; nothing here relies on them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from opsd.clients.process import Process, find_program, lines, run
from opsd.clock import Deadline
from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.secrets import Secret

log = structlog.get_logger()

OLDEST = (0, 17, 1)
RETRY_LOCK = "5m"  # how long a lock of somebody who lives is waited for
COMPLAINT_LINES = 200  # of restic's stderr, kept to list what it could not read

NO_REPOSITORY = 10
LOCKED = 11
WRONG_PASSWORD = 12
INCOMPLETE = 3


class NoRepository(PermanentError):
    """There is no restic repository at this address."""


class Locked(TransientError):
    """Somebody else works on the repository."""


class Message(msgspec.Struct, frozen=True):
    """The fields of restic's JSON lines that are used; absent ones have their defaults."""

    message_type: str = ""
    code: int = 0
    message: str = ""
    item: str = ""
    error: dict[str, object] | None = None
    files_done: int = 0
    bytes_done: int = 0
    bytes_restored: int = 0
    total_bytes: int = 0
    snapshot_id: str = ""
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    total_files_processed: int = 0
    total_bytes_processed: int = 0
    data_added_packed: int = 0
    num_errors: int = 0
    broken_packs: list[str] | None = None


StructT = TypeVar("StructT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where a restic repository is and what it takes to open it."""

    url: str  #: ``/srv/backup/restic/nfs``, ``s3:https://host/bucket/restic/nfs``, ``sftp:``
    password: Secret
    environment: Mapping[str, Secret] = field(default_factory=dict)  #: e.g. AWS_SECRET_ACCESS_KEY
    settings: Mapping[str, str] = field(default_factory=dict)  #: not secret: AWS_DEFAULT_REGION
    options: tuple[str, ...] = ()  #: for ``-o``: ``s3.bucket-lookup=path``

    @property
    def location(self) -> str:
        """The address without a user's password."""
        return re.sub(r"//[^/@]*@", "//", self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A restic command that ended."""

    code: int
    complaints: tuple[Message, ...]  #: its JSON errors, oldest first
    stderr: str

    def reason(self) -> str:
        """What restic said last, in one line."""
        told = [m.message for m in self.complaints if m.message_type == "exit_error"]
        text = told[-1] if told else (self.stderr.strip().splitlines() or [""])[-1]
        return " ".join(text.removeprefix("Fatal: ").split()) or f"exit status {self.code}"


def version(*, deadline: Deadline) -> str:
    """The version of the restic on PATH.

    Raises:
        PermanentError: missing, not restic, or older than `OLDEST`.
    """
    done = run(["restic", "version"], deadline=deadline)
    match = re.match(rb"restic (\d+)\.(\d+)\.(\d+)", done.stdout)
    if done.returncode or match is None:
        raise PermanentError(f"ask restic for its version: {done.complaint()}")
    found = (int(match[1]), int(match[2]), int(match[3]))
    text = ".".join(map(str, found))
    if found < OLDEST:
        raise PermanentError(
            f"restic {text} is too old: before {'.'.join(map(str, OLDEST))} it reports some "
            "failures as success; install a newer one (Debian 13 has 0.18)"
        )
    return text


class _Lock(msgspec.Struct, frozen=True):
    """Who locked a repository, as restic wrote it down."""

    hostname: str
    pid: int

    def is_dead(self) -> bool:
        """Whether it was a process of this machine that does not run any more."""
        if self.hostname != os.uname().nodename:
            return False
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        name, _, rest = stat.partition("(")[2].rpartition(")")
        return name != "restic" or rest.split()[0] in ("Z", "X")


class ResticCommand:
    """restic with its store, cache and environment. Used by one thread."""

    def __init__(self, store: Store, *, scratch: Path) -> None:
        """`scratch` is on local disk; cache and temporary files are kept below it."""
        self._store = store
        self._cache = scratch / "restic-cache"
        self._temporary = scratch / "restic-tmp"

    @property
    def location(self) -> str:
        """The store's address without secrets."""
        return self._store.location

    def call(
        self,
        *args: str,
        deadline: Deadline,
        on_line: Callable[[bytes], None] | None = None,
        on_chunk: Callable[[bytes], None] | None = None,
        accept: Sequence[int] = (),
        cwd: Path | None = None,
    ) -> Ended:
        """Run one command to its end; a lock that a dead restic left does not stop it.

        Args:
            args: the command and its arguments; none of them secret.
            deadline: when it is killed.
            on_line: gets each line of its stdout.
            on_chunk: gets its stdout as it comes, when it is not text.
            accept: exit statuses besides 0 that the caller judges itself.
            cwd: a directory on local disk.

        Raises:
            NoRepository, Locked, PermanentError, TransientError: by its exit status.
        """
        try:
            return self._once(
                args, deadline=deadline, on_line=on_line, on_chunk=on_chunk, accept=accept, cwd=cwd
            )
        except Locked:
            self.unlock(deadline=deadline)
        patient = (args[0], "--retry-lock", RETRY_LOCK, *args[1:])
        return self._once(
            patient, deadline=deadline, on_line=on_line, on_chunk=on_chunk, accept=accept, cwd=cwd
        )

    def unlock(self, *, deadline: Deadline) -> None:
        """Remove the locks whose owner is provably gone. Only under opsd's lease.

        restic takes a dead process that nobody reaped for alive, and so another program
        that got its number; those are looked at here.
        """
        self._once(("unlock",), deadline=deadline)
        locks = self._locks(deadline=deadline)
        if locks and all(lock.is_dead() for lock in locks):
            self._once(("unlock", "--remove-all"), deadline=deadline)
        log.warning("restic_lock.removed", store=self.location)

    def _locks(self, *, deadline: Deadline) -> list[_Lock]:
        ids: list[bytes] = []
        self._once(("list", "locks", "--no-lock"), deadline=deadline, on_line=ids.append)
        contents: list[bytes] = []
        for one in ids:
            args = ("cat", "--no-lock", "lock", one.decode())
            content: list[bytes] = []
            self._once(args, deadline=deadline, on_line=content.append)
            contents.append(b"\n".join(content))
        return [msgspec.json.decode(content, type=_Lock) for content in contents]

    def collect(
        self, *args: str, into: type[StructT], deadline: Deadline, accept: Sequence[int] = ()
    ) -> tuple[StructT, Ended]:
        """Run a command whose stdout is one JSON value."""
        output: list[bytes] = []
        ended = self.call(*args, deadline=deadline, on_line=output.append, accept=accept)
        try:
            return msgspec.json.decode(b"\n".join(output), type=into), ended
        except msgspec.DecodeError as exc:
            raise PermanentError(
                f"restic {args[0]} on {self.location}: its answer is not understood: {exc}"
            ) from exc

    def _once(
        self,
        args: Sequence[str],
        *,
        deadline: Deadline,
        on_line: Callable[[bytes], None] | None = None,
        on_chunk: Callable[[bytes], None] | None = None,
        accept: Sequence[int] = (),
        cwd: Path | None = None,
    ) -> Ended:
        for directory in (self._cache, self._temporary):
            directory.mkdir(parents=True, exist_ok=True)
        argv = self.argv(args)
        with Process(argv, deadline=deadline, env=self._environment(), cwd=_text(cwd)) as process:
            consume = on_chunk or on_line or _drop
            for piece in iter(process.read, b"") if on_chunk else lines(process):
                consume(piece)
            code = process.wait()
            stderr = process.stderr
        ended = Ended(code=code, complaints=_complaints(stderr), stderr=stderr)
        if code and code not in accept:
            raise self._error(args[0], ended)
        return ended

    def argv(self, args: Sequence[str]) -> tuple[str, ...]:
        """The whole command line: no secret is in it."""
        options = [part for option in self._store.options for part in ("-o", option)]
        base = (find_program("restic"), "--repo", self._store.url, *options)
        return (*base, "--cache-dir", str(self._cache), "--json", *args)

    def _environment(self) -> dict[str, str]:
        secret = {name: value.reveal() for name, value in self._store.environment.items()}
        return {
            **self._store.settings,
            **secret,
            "RESTIC_PASSWORD": self._store.password.reveal(),
            "RESTIC_PROGRESS_FPS": "1",
            "TMPDIR": str(self._temporary),
        }

    def _error(self, command: str, ended: Ended) -> OpsdError:
        where = f"restic {command} on {self.location}"
        if ended.code == NO_REPOSITORY:
            return NoRepository(f"{where}: there is no restic repository")
        if ended.code == LOCKED:
            return Locked(f"{where}: {ended.reason()}; who holds it: restic list locks")
        if ended.code == WRONG_PASSWORD:
            return PermanentError(
                f"{where}: wrong password (from {self._store.password}); it must be the one "
                "that the repository was made with"
            )
        return TransientError(f"{where}: {ended.reason()} (exit status {ended.code})")


def _complaints(stderr: str) -> tuple[Message, ...]:
    found: list[Message] = []
    for line in stderr.splitlines()[-COMPLAINT_LINES:]:
        try:
            found.append(msgspec.json.decode(line, type=Message))
        except (msgspec.DecodeError, UnicodeEncodeError):
            continue
    return tuple(found)


def _drop(_: bytes) -> None:
    pass


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
