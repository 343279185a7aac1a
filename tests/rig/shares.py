"""Shares to back up, engines to do it, and a way to hold two trees against each other."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import sqlite3
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from opsd.backup.catalog import Backup, read_catalog
from opsd.backup.directory import DirectoryRepository
from opsd.backup.manifest import Manifest, Verification
from opsd.backup.repository import Repository
from opsd.backup.share import backup as sharebackup
from opsd.backup.share import livedata
from opsd.backup.share.backup import How, Made
from opsd.backup.share.engine import Engine, EngineName, Part, Snapshot, Source
from opsd.backup.share.guards import Share
from opsd.backup.share.opening import EngineOptions, open_engine
from opsd.clock import Deadline, SystemClock
from opsd.progress import NoProgress
from opsd.secrets import Secret

CLOCK = SystemClock()
SLOT = datetime(2026, 11, 22, 3, tzinfo=UTC)
PASSWORD = "correct horse canary staple"
PASSWORD_REFERENCE = "env:OPSD_TEST_RESTIC_PASSWORD"
RUNS = ("aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc")
HOSTILE = (
    b"plain.txt",
    b"sp ace.txt",
    b"quote'\".txt",
    b"new\nline.txt",
    b"carriage\rreturn.txt",
    b"-rf",
    b"--delete",
    b"back\\slash",
    b"back\\nslash",
    b"\\#012",
    b"star*[ab]?.txt",
    b"!bang",
    b"# hash",
    b"$HOME `id`;",
    b"latin-\xe9\xff.txt",
    "smörgås-🧺.txt".encode(),
    b"host:colon",
    b"tab\t.txt",
    b"bell\x07.txt",
)


def build_share(path: Path) -> Path:
    """A tree with everything that a file system allows and tools trip over."""
    odd = path / "default-odd-pvc-1" / "dir with 'quote\n"
    odd.mkdir(parents=True)
    for number, name in enumerate(HOSTILE):
        with open(os.fsencode(odd) + b"/" + name, "wb") as file:  # noqa: PTH123 - bytes
            file.write(b"%d of " % number + name)
    plain = path / "media-photos-pvc-2"
    plain.mkdir()
    for number in range(20):
        content = random.Random(number).randbytes(6000)  # noqa: S311 - a picture
        (plain / f"img_{number}.jpg").write_bytes(content)
    (plain / "empty").touch()
    (plain / "private").write_text("secret")
    (plain / "private").chmod(0o600)
    (plain / "program").write_text("#!/bin/sh\n")
    (plain / "program").chmod(0o4755)
    os.link(plain / "img_0.jpg", plain / "hard.jpg")
    (plain / "link").symlink_to("img_1.jpg")
    (plain / "dangling").symlink_to("/nowhere")
    (plain / "holes").touch()
    os.truncate(plain / "holes", 1 << 20)
    (plain / "nothing").mkdir()
    (plain / ".hidden").write_text("h")
    os.mkfifo(plain / "fifo")
    return path


def tree(path: Path, *, but: Sequence[str] = ()) -> dict[bytes, tuple[object, ...]]:
    """Every entry below a directory: type, mode, owner, time and content."""
    base = os.fsencode(path)
    found: dict[bytes, tuple[object, ...]] = {}
    for directory, names, files in os.walk(base):
        for name in (*names, *files):
            place = os.path.join(directory, name)  # noqa: PTH118 - bytes
            relative = os.path.relpath(place, base)
            if not any(relative.startswith(os.fsencode(one)) for one in but):
                found[relative] = _entry(place)
    return found


def _entry(place: bytes) -> tuple[object, ...]:
    status = os.lstat(place)
    kind = stat.S_IFMT(status.st_mode)
    content: bytes = b""
    if stat.S_ISREG(status.st_mode):
        with open(place, "rb") as file:  # noqa: PTH123 - bytes
            content = hashlib.sha256(file.read()).digest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(place)  # noqa: PTH115 - bytes
    times = () if stat.S_ISDIR(status.st_mode) else (status.st_mtime_ns,)
    return (kind, stat.S_IMODE(status.st_mode), status.st_uid, *times, content)


def make_sqlite(path: Path, *, rows: int = 100, wal: bool = False) -> sqlite3.Connection:
    """A database with one table; the connection stays open, as an application's does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}")
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, x text)")
    database.execute("BEGIN")
    database.executemany("INSERT INTO t (x) VALUES (?)", [("x" * 50,)] * rows)
    database.execute("COMMIT")
    return database


def rows_in(path: Path) -> int:
    """How many rows the table of a copy has."""
    database = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    try:
        return int(database.execute("SELECT count(*) FROM t").fetchone()[0])
    finally:
        database.close()


def rows_in_bytes(content: bytes, place: Path) -> int:
    """The same for a copy whose name no URI should have to carry."""
    plain = place / "plain.db"
    plain.write_bytes(content)
    return rows_in(plain)


def make_pgdata(path: Path) -> None:
    """What is known as a PGDATA tree."""
    for name in ("base/1", "global", "pg_wal"):
        (path / name).mkdir(parents=True)
    (path / "PG_VERSION").write_text("17\n")
    (path / "base/1/1259").write_bytes(b"\0" * 8192)


def deadline(seconds: float = 100) -> Deadline:
    """A deadline that a healthy test never reaches."""
    return Deadline.after(seconds, CLOCK)


@dataclass(slots=True, kw_only=True)
class Rig:
    """A share with one engine, driven as the job does, slot after slot."""

    path: Path
    repository: Repository
    options: EngineOptions
    scratch: Path
    share: Share = field(init=False)
    engine: Engine = field(init=False)
    slots: int = 0

    def __post_init__(self) -> None:
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.configure()

    def configure(self, **settings: object) -> None:
        """Set fields of the share."""
        defaults: dict[str, object] = {"mounted": False, "exclude": (".nfs*",)}
        self.share = Share(name="nfs", path=self.path, **(defaults | settings))  # type: ignore[arg-type]
        self.engine = open_engine(
            self.share,
            self.options,
            repository=self.repository,
            scratch=self.scratch,
            clock=CLOCK,
        )

    def how(self, *, run_id: str = "") -> How:
        """Everything for the next slot."""
        self.slots += 1
        return How(
            repository=self.repository,
            slot=SLOT + timedelta(days=self.slots),
            run_id=run_id or f"{self.slots:012x}",
            verify_within=timedelta(days=30),
            spot_check_files=20,
            scratch=self.scratch,
            deadline=deadline(),
            progress=NoProgress(),
        )

    def before(self) -> tuple[Backup, ...]:
        """The published backups, newest first."""
        return read_catalog(self.repository, f"{self.share.subject}/").series(self.share.subject)

    def back_up(self, *, run_id: str = "") -> Made:
        """One run of the share, from guards to manifest."""
        how = self.how(run_id=run_id)
        return sharebackup.back_up(self.share, self.engine, before=self.before(), how=how)

    def copy(self, *, run_id: str = RUNS[0]) -> Snapshot:
        """The engine's part alone: nothing is published."""
        self.engine.prepare(known=(), damaged=False, deadline=deadline())
        self.slots += 1
        with livedata.stage(self.scratch) as added:
            return self.engine.copy(
                Source(share=self.share, added=added),
                run_id=run_id,
                slot=SLOT + timedelta(days=self.slots),
                deadline=deadline(),
                progress=NoProgress(),
            )

    def prove(self, snapshot: Snapshot, part: Part | None = None) -> str:
        """Prove a snapshot, and all older data unless a part is named."""
        return self.engine.prove(
            snapshot, part=part or Part(n=1, of=1), deadline=deadline(), progress=NoProgress()
        )

    def check(self, manifest: Manifest) -> str:
        """Read all of one backup."""
        return self.engine.check(manifest, deadline=deadline(), progress=NoProgress())

    def snapshots(self) -> tuple[str, ...]:
        """Ids in the engine's store."""
        return self.engine.snapshots(deadline=deadline())


def in_directory(
    engine: EngineName, path: Path, place: Path, *, destination: str = "", **options: object
) -> Rig:
    """A rig on a directory repository below `place`."""
    (place / "repository").mkdir(parents=True, exist_ok=True)
    os.environ[PASSWORD_REFERENCE.removeprefix("env:")] = PASSWORD
    return Rig(
        path=path,
        repository=DirectoryRepository("disk", place / "repository"),
        options=EngineOptions(
            engine=engine,
            destination=destination,
            password=Secret(PASSWORD_REFERENCE),
            **options,  # type: ignore[arg-type]
        ),
        scratch=place / "scratch",
    )


def manifest_of(snapshot: Snapshot, rig: Rig) -> Manifest:
    """A manifest as the run would have published it."""
    now = CLOCK.now()
    return Manifest(
        kind=rig.engine.kind,
        subject=rig.share.subject,
        slot=SLOT + timedelta(days=rig.slots),
        run_id=RUNS[0],
        created_at=now,
        key="",
        size_bytes=snapshot.added_bytes,
        sha256=snapshot.sha256,
        source={
            "path": str(rig.path),
            "files": snapshot.files,
            "bytes": snapshot.bytes,
            **snapshot.details,
        },
        verified=(Verification(level="read_back", at=now, ok=True),),
    )


def files_below(path: Path) -> Iterator[Path]:
    """Regular files, for damage."""
    return (one for one in sorted(path.rglob("*")) if one.is_file() and not one.is_symlink())


def flip(path: Path, *, at: int = -1) -> None:
    """Change one byte as a failing disk does: without a trace in size or time."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[at if at >= 0 else len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextlib.contextmanager
def churning(directory: Path, *, pause_s: float = 0.0) -> Iterator[None]:
    """Files in a new directory that come, change and go all the time, `pause_s` apart."""
    directory.mkdir()
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.wait(pause_s):
            number += 1
            path = directory / f"f{number % 50}"
            if path.exists() and number % 3:
                path.unlink()
            else:
                path.write_bytes(os.urandom(2000))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
