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
from datetime import datetime, timedelta
from pathlib import Path

from opsd.backup import coverage, housekeeping, naming
from opsd.backup.catalog import AlreadyPublished, Backup, Catalog, read_catalog
from opsd.backup.manifest import Manifest, manifest_key
from opsd.backup.repository import Repository
from opsd.backup.share import findings as sharefindings
from opsd.backup.share.backup import How, Refused, back_up, look
from opsd.backup.share.engine import Damaged, Engine, StoreVanished
from opsd.backup.share.guards import ShareHangs
from opsd.backup.share.opening import open_engine
from opsd.backup.share.settings import Settings, ShareTable
from opsd.clock import Clock
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
    failed: list[str] = []
    may_pass = False
    for table in settings.shares:
        work = _ShareRun(ctx, table, wanted_age=settings.wanted_age)
        yield from work.observe()
        yield from work.cover()
        if work.failed:
            failed.append(work.share.subject)
            may_pass = may_pass or work.may_pass
    if settings.looks_at_claims():
        try:
            yield from _uncovered_claims(ctx, settings)
        except _Unread as exc:
            failed.append(exc.finding.subject)
            may_pass = may_pass or exc.may_pass
            yield exc.finding
    if failed:
        total = len(settings.shares) + sum(1 for one in failed if one.startswith("cluster/"))
        text = f"{len(failed)} of {total} failed: {', '.join(failed)}"
        raise PartialFailure(text, may_pass=may_pass)


class _Unread(PermanentError):
    """The cluster's claims could not be looked at."""

    def __init__(self, finding: Finding, *, may_pass: bool) -> None:
        super().__init__(finding.summary)
        self.finding = finding
        self.may_pass = may_pass


def _uncovered_claims(ctx: Context, settings: Settings) -> Iterator[Observation]:
    from opsd.clients.mounts import nfs_mounts  # noqa: PLC0415 - for clusters only
    from opsd.cluster import claims  # noqa: PLC0415 - likewise

    mounts = nfs_mounts()
    shares = [
        claims.BackedUp(
            name=table.name,
            path=table.path,
            export=table.export or ("" if table.mounted else str(table.path)),
            source=mounts.get(str(table.path), ""),
            exclude=table.exclude,
        )
        for table in settings.shares
    ]
    try:
        storage = claims.read_storage(ctx.kube)
        yield from claims.uncovered(storage, shares, older_than=settings.wanted_age)
    except (ConfigError, TransientError, PermanentError) as exc:
        may_pass = isinstance(exc, TransientError)
        raise _Unread(claims.not_seen(exc), may_pass=may_pass) from exc
    for claim in storage.claims:
        yield Seen(subject=f"claim/{claim.namespace}/{claim.name}")
    yield Seen(subject=claims.PLACE)


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

    def __init__(self, ctx: Context, table: ShareTable, *, wanted_age: timedelta) -> None:
        self._ctx = ctx
        self._table = table
        self._wanted_age = wanted_age
        self._newest: datetime | None = None  # good backup
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

    def cover(self) -> Iterator[Finding]:
        """Name the share if its newest good backup is too old."""
        if self._newest is None or self._ctx.dry_run:
            return
        finding = coverage.not_covered(
            self.share.subject,
            newest=self._newest,
            exists_since=None,
            now=self._ctx.clock.now(),
            wanted_age=self._wanted_age,
        )
        if finding:
            yield finding

    def _key(self) -> str:
        return manifest_key(self.share.subject, self._ctx.slot)

    def _open(self) -> _Opened:
        ctx, table = self._ctx, self._table
        repository = ctx.repository(table.repository)
        catalog = read_catalog(repository, f"{self.share.subject}/")
        before = catalog.series(self.share.subject)
        self._newest = coverage.newest_good(before)
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
            before=before,
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
        self._newest = made.manifest.created_at
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


__all__ = ["JOB", "Settings", "ShareTable", "engine_for", "run"]

JOB = Job(
    name="nfs-backup",
    summary="back up file shares with restic or rsync, and read the backups back",
    group="backup",
    schedule="30 3 * * *",
    timeout=timedelta(hours=6),
    settings=Settings,
    run=run,
)
