"""Is every share backed up, provably, and was it the share and not an empty mount point?

Each share is looked at before anything is written; copied by restic or rsync; read back; and
only then old backups go. One share that fails stops none of the others.

Limits: files are copied one after another while people work, so two files of one share are
not from the same instant. Databases on a share belong into postgres-backup; SQLite files get
a consistent copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from opsd.backup import housekeeping, naming
from opsd.backup.catalog import AlreadyPublished, Backup, Catalog, read_catalog
from opsd.backup.manifest import Manifest, manifest_key
from opsd.backup.repository import Repository
from opsd.backup.share import findings as sharefindings
from opsd.backup.share.backup import How, Refused, back_up, look
from opsd.backup.share.engine import Damaged, Engine, StoreVanished
from opsd.backup.share.guards import Share, ShareHangs
from opsd.backup.share.opening import EngineOptions, open_engine
from opsd.clock import Clock
from opsd.config import Duration, Keep, RepositoryName, SecretRef, Table, unique_names
from opsd.errors import (
    ConfigError,
    DeadlineExceeded,
    OpsdError,
    PartialFailure,
    PermanentError,
    TransientError,
)
from opsd.job import Context, Job, Observation
from opsd.model import Finding, Seen, Severity
from opsd.text import printable, shortened

SUMMARY_CHARACTERS = 120
RULE_PREFIXES = ("!", "+ ", "- ", "#")  # mean something else to restic or rsync


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or path == Path("/"):
        raise ValueError("expected an absolute path below /")
    return path


def _plain_globs(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for at, pattern in enumerate(patterns, start=1):
        if not pattern.strip("/ ") or pattern.startswith(RULE_PREFIXES) or "\n" in pattern:
            raise ValueError(f"entry {at} is no pattern; expected a name or a /path, with * and ?")
    return patterns


class ShareTable(Table):
    """One directory tree."""

    name: str = Field(
        min_length=1, max_length=60, description="part of the backups' names; never change it"
    )
    path: Annotated[Path, AfterValidator(_absolute)] = Field(
        description="where it is mounted, or its directory on the file server itself",
        examples=["/srv/nfs"],
    )
    mounted: bool = Field(
        default=True,
        description="refuse unless the path is a mount point; false on the file server itself",
    )
    sentinel: str = Field(
        "", description="a file below the path that must exist", examples=[".this-is-the-share"]
    )
    engine: Literal["restic", "rsync"] = Field(
        "restic", description="restic: deduplicated, encrypted; rsync: plain files, hard links"
    )
    repository: RepositoryName = Field(
        description="where the manifests go, and the data unless destination is given",
        examples=["usb"],
    )
    destination: str = Field(
        "",
        description="the data's own place: a restic URL; for rsync /path or user@host:/path",
        examples=["backup@nas2:/srv/snapshots/nfs"],
    )
    password: SecretRef | None = Field(
        None,
        description="of the restic repository; without it nothing can be restored",
        examples=["file:/run/secrets/restic-password"],
    )
    environment: dict[str, SecretRef] = Field(
        default_factory=dict,
        description="variables that restic needs for its destination, such as AWS_ACCESS_KEY_ID",
    )
    ssh_identity: Path | None = Field(
        None, description="private key for a destination over SSH", examples=["/etc/opsd/id"]
    )
    known_hosts: Path | None = Field(
        None,
        description="host keys that are trusted; no other is accepted",
        examples=["/etc/opsd/known_hosts"],
    )
    exclude: Annotated[tuple[str, ...], AfterValidator(_plain_globs)] = Field(
        (".nfs*", "lost+found"),
        description="left out: name anywhere, or /path from the share's root; * ? ** allowed",
    )
    min_files: int = Field(1, ge=0, description="fewer files than this are no backup")
    shrink_percent: int = Field(
        50,
        ge=0,
        le=100,
        description="refuse if files or bytes fall below this share of the last backup; 0: never",
    )
    verify_within: Duration = Field(
        timedelta(days=30), description="all stored data is read back in this time, part by part"
    )
    spot_check_files: int = Field(
        20, ge=0, le=1000, description="files drawn at random, restored and compared each run"
    )
    keep: Keep = Field(default_factory=Keep, description="which backups of the share stay")

    @model_validator(mode="after")
    def _fits(self) -> ShareTable:
        if self.engine == "restic" and self.password is None:
            raise ValueError('password is missing: engine = "restic" needs one')
        if (
            "@" in self.destination.partition("://")[2]
            and ":" in self.destination.partition("://")[2].partition("@")[0]
        ):
            raise ValueError("destination: a password never stands in it; use environment")
        return self

    def share(self) -> Share:
        """The share itself."""
        return Share(
            name=self.name,
            path=self.path,
            mounted=self.mounted,
            sentinel=self.sentinel,
            exclude=self.exclude,
            min_files=self.min_files,
            shrink_percent=self.shrink_percent,
        )

    def options(self) -> EngineOptions:
        """What its engine needs."""
        return EngineOptions(
            engine=self.engine,
            destination=self.destination,
            password=self.password,
            environment=self.environment,
            ssh_identity=self.ssh_identity,
            known_hosts=self.known_hosts,
        )


class Settings(Table):
    """Settings of nfs-backup."""

    shares: Annotated[tuple[ShareTable, ...], AfterValidator(unique_names)] = Field(
        min_length=1, description="what is backed up, one after another"
    )


def engine_for(
    table: ShareTable, repository: Repository, *, scratch: Path, clock: Clock
) -> Engine:
    """The engine of a configured share, for a run, a verification or a restore.

    Args:
        table: the share.
        repository: the one that the table names.
        scratch: the job's directory on local disk; the share gets its own below it.
        clock: tells when pruning is due.

    Raises:
        ConfigError: engine, repository and destination do not fit together.
    """
    own = scratch / naming.quote(table.name)
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open_engine(
        table.share(), table.options(), repository=repository, scratch=own, clock=clock
    )


def run(ctx: Context, settings: Settings) -> Iterator[Observation]:
    """Back up every share; one that fails is told and the others go on."""
    failed: list[_ShareRun] = []
    for table in settings.shares:
        work = _ShareRun(ctx, table)
        yield from work.observe()
        if work.failed:
            failed.append(work)
    if failed:
        names = ", ".join(work.share.subject for work in failed)
        raise PartialFailure(
            f"{len(failed)} of {len(settings.shares)} failed: {names}",
            may_pass=any(work.may_pass for work in failed),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A share with everything that is needed to back it up."""

    repository: Repository
    engine: Engine
    catalog: Catalog
    before: tuple[Backup, ...]
    how: How


class _ShareRun:
    """One share in one run."""

    def __init__(self, ctx: Context, table: ShareTable) -> None:
        self._ctx = ctx
        self._table = table
        self.share = table.share()
        self.failed = False
        self.may_pass = False  # what it failed for

    def observe(self) -> Iterator[Observation]:
        """Back the share up; an error of its own becomes a finding."""
        try:
            opened = self._open()
            yield from housekeeping.damaged(opened.repository.name, opened.catalog)
            if self._ctx.dry_run:
                yield from self._describe(opened)
            elif any(one.key == self._key() for one in opened.before):
                yield Seen(subject=self.share.subject)
            else:
                yield from self._work(opened)
        except Refused as exc:
            self.failed = True
            yield exc.finding
        except DeadlineExceeded:
            yield self._told("nfs.backup_failed", "did not end in time", "raise the job's timeout")
            raise
        except (TransientError, PermanentError, ConfigError) as exc:
            self.failed, self.may_pass = True, isinstance(exc, TransientError)
            yield self._failure(exc)

    def _key(self) -> str:
        return manifest_key(self.share.subject, self._ctx.slot)

    def _open(self) -> _Opened:
        ctx, table = self._ctx, self._table
        repository = ctx.repository(table.repository)
        catalog = read_catalog(repository, f"{self.share.subject}/")
        engine = engine_for(table, repository, scratch=ctx.scratch, clock=ctx.clock)
        how = How(
            repository=repository,
            slot=ctx.slot,
            run_id=ctx.run_id,
            verify_within=table.verify_within,
            spot_check_files=table.spot_check_files,
            scratch=ctx.scratch / naming.quote(table.name),
            deadline=ctx.deadline,
            progress=ctx.progress,
        )
        return _Opened(
            repository=repository,
            engine=engine,
            catalog=catalog,
            before=catalog.series(self.share.subject),
            how=how,
        )

    def _work(self, opened: _Opened) -> Iterator[Observation]:
        started = self._ctx.clock.monotonic()
        try:
            made = back_up(self.share, opened.engine, before=opened.before, how=opened.how)
        except AlreadyPublished:
            yield Seen(subject=self.share.subject)
            return
        duration_s = self._ctx.clock.monotonic() - started
        yield sharefindings.artifact(opened.repository.name, made, duration_s=duration_s)
        yield Seen(subject=self.share.subject)
        yield from sharefindings.about(self.share, made)
        yield from self._clean(opened)

    def _clean(self, opened: _Opened) -> Iterator[Finding]:
        """Retention and left-overs, only after a success; trouble here is told, not fatal."""
        ctx, engine = self._ctx, opened.engine
        now = ctx.clock.now()

        def remove(manifest: Manifest) -> None:
            engine.forget([str(manifest.source.get("snapshot", ""))], deadline=ctx.deadline)

        yield from housekeeping.clear_leftovers(
            opened.repository,
            self.share.subject,
            dead_runs=ctx.dead_runs,
            now=now,
            remove_from_engine=remove,
        )
        yield from housekeeping.retain(
            opened.repository,
            self.share.subject,
            self._table.keep,
            now=now,
            timezone=ctx.timezone,
            remove_from_engine=remove,
        )
        try:
            self._sweep(opened)
            engine.reclaim(deadline=ctx.deadline)
        except (TransientError, PermanentError) as exc:
            yield self._told(
                "nfs.not_cleaned", printable(str(exc)), "opsd check", severity=Severity.WARNING
            )

    def _sweep(self, opened: _Opened) -> None:
        """Remove what dead runs left in the engine, unless a damaged manifest may own it."""
        now = read_catalog(opened.repository, f"{self.share.subject}/")
        if not now.problems:
            published = {str(one.manifest.source.get("snapshot", "")) for one in now.backups}
            opened.engine.sweep(
                published=published, dead_runs=self._ctx.dead_runs, deadline=self._ctx.deadline
            )

    def _describe(self, opened: _Opened) -> Iterator[Observation]:
        """Look at the share and say what a run would do; nothing is written."""
        seen = look(self.share, opened.engine, before=opened.before, how=opened.how)
        summary = f"would be backed up by {opened.engine.kind} to {opened.engine.location}"
        yield Finding(
            check="dry_run.share",
            subject=self.share.subject,
            severity=Severity.INFO,
            summary=shortened(summary, SUMMARY_CHARACTERS),
            facts={
                "files": seen.found.files,
                "size_bytes": seen.found.size_bytes,
                "sqlite": len(seen.found.sqlite),
                "pgdata": len(seen.found.pgdata),
            },
        )
        yield from housekeeping.describe(
            opened.repository,
            self.share.subject,
            self._table.keep,
            now=self._ctx.clock.now(),
            timezone=self._ctx.timezone,
        )

    def _failure(self, exc: OpsdError) -> Finding:
        text = printable(str(exc))
        if isinstance(exc, ShareHangs):
            remedy = "is the file server up? then: umount -l and mount the share again"
            return self._told("nfs.hangs", text, remedy)
        if isinstance(exc, StoreVanished):
            return self._told("nfs.store_vanished", text, "look before anything is written there")
        if isinstance(exc, Damaged):
            remedy = "dmesg; docs/repositories.md#damage says how to go on; delete nothing"
            return self._told("backup.corrupted", text, remedy)
        return self._told("nfs.backup_failed", text, "opsd check; older backups are untouched")

    def _told(
        self, check: str, text: str, remedy: str, *, severity: Severity = Severity.CRITICAL
    ) -> Finding:
        return Finding(
            check=check,
            subject=self.share.subject,
            severity=severity,
            summary=shortened(text, SUMMARY_CHARACTERS),
            remedy=remedy,
            facts={"error": text, "path": str(self.share.path)},
        )


JOB = Job(
    name="nfs-backup",
    summary="back up file shares with restic or rsync, and read the backups back",
    group="backup",
    schedule="30 3 * * *",
    timeout=timedelta(hours=6),
    settings=Settings,
    run=run,
)
