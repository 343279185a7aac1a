"""Can the control plane be rebuilt if its disk dies tonight: etcd, its keys and its files?

From the first healthy member: its snapshot and the node's files go encrypted into every
repository, are read back, and the snapshot is restored into an etcd of its own, whose keys are
compared with the cluster's. Only then old backups go. All members are looked at.

Limits: what changes between two runs is lost with the control plane; workloads go on running.
Nothing here is about volumes: their data is nfs-backup's.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator
from datetime import timedelta

from opsd.backup import coverage, housekeeping, naming
from opsd.backup.catalog import Backup, record_verification
from opsd.backup.delivery import Published
from opsd.backup.etcd import findings as etcdfindings
from opsd.backup.etcd import health, reaching
from opsd.backup.etcd.bench import Bench, bench
from opsd.backup.etcd.reaching import Reached
from opsd.backup.etcd.settings import Settings
from opsd.backup.etcd.taking import Control, How, Taken, take
from opsd.backup.manifest import Verification
from opsd.backup.postgres.findings import not_stored
from opsd.backup.repository import Repository
from opsd.backup.shelves import Shelves
from opsd.errors import (
    OpsdError,
    PartialFailure,
    PermanentError,
    TransientError,
)
from opsd.job import Context, Job, Observation
from opsd.model import Finding, Seen, Unseen

DRILL = "opsd-etcd-drill"  # the directory in which a snapshot is tried out


def run(ctx: Context, settings: Settings) -> Iterator[Observation]:
    """Back up the control plane, and prove it."""
    settings.refuse_example()
    with contextlib.ExitStack() as stack:
        backup = _Backup(ctx, settings, stack)
        yield from backup.open_repositories()
        yield from backup.reach()
        if ctx.dry_run:
            yield from backup.describe()
        else:
            yield from backup.work()
            yield from backup.cover()
        backup.conclude()


class _Backup:
    """One run."""

    def __init__(self, ctx: Context, settings: Settings, stack: contextlib.ExitStack) -> None:
        self._ctx, self._settings, self._stack = ctx, settings, stack
        self._subject = naming.subject("etcd", settings.cluster)
        self._shelves = Shelves()
        self._lacking: dict[str, Repository] = {}  # without this slot's result
        self._fit: list[tuple[str, Control]] = []
        self._problems: list[tuple[str, OpsdError]] = []  # of members: name, why not
        self._failed: list[str] = []
        self._may_pass = False
        self._is_fresh = False  # this run published one

    def open_repositories(self) -> Iterator[Observation]:
        """Read what every repository holds; one that cannot be read is left out."""
        names = self._settings.repositories
        yield from self._shelves.open(names, self._ctx.repository, f"{self._subject}/")
        for name, exc in self._shelves.failures.items():
            self._fail(f"repository/{name}", exc)
        self._lacking = self._shelves.lacking(self._subject, self._ctx.slot)
        if not self._shelves.repositories:
            text = "no repository can be reached, so nothing was backed up"
            raise PartialFailure(text, may_pass=self._may_pass)

    def reach(self) -> Iterator[Observation]:
        """Look at every member; what is found out is about all of them."""
        reached = list(self._reached())
        for one in reached:
            if one.control:
                self._fit.append((one.name, one.control))
            elif one.problem:
                self._problems.append((one.name, one.problem))
        if not self._fit:
            yield from self._none_fit()
            return
        for one in reached:
            yield from self._about(one)
        control = self._fit[0][1]
        percent = self._settings.space_warning
        yield from health.about(self._subject, control.view, percent=percent)
        if control.missing:
            yield etcdfindings.files_missing(self._subject, control.missing)

    def _reached(self) -> Iterator[Reached]:
        ctx, settings = self._ctx, self._settings
        if settings.endpoints:
            return reaching.directly(settings, deadline=ctx.deadline)
        return reaching.over_ssh(ctx.fleet, settings, deadline=ctx.deadline, stack=self._stack)

    def _about(self, one: Reached) -> Iterator[Observation]:
        subject = f"{self._subject}/{naming.quote(one.name)}"
        if one.problem:
            yield health.member_unreachable(subject, one.problem, cause=one.cause)
            yield Unseen(subject=subject)
        else:
            yield Seen(subject=subject)

    def _none_fit(self) -> Iterator[Finding]:
        yield etcdfindings.backup_failed(self._subject, self._problems)
        self._fail(self._subject, *(exc for _, exc in self._problems))

    def work(self) -> Iterator[Observation]:
        """Take the first member that can be taken, prove it, and remove what no rule keeps."""
        if not self._fit:
            return
        now = self._ctx.clock.now()
        for repository in self._lacking.values():
            yield from housekeeping.clear_leftovers(
                repository, self._subject, dead_runs=self._ctx.dead_runs, now=now
            )
        if not self._lacking:
            yield Seen(subject=self._subject)
            return
        started = self._ctx.clock.monotonic()
        with self._bench() as place:
            taken = self._take(place)
            if taken is None:
                yield etcdfindings.backup_failed(self._subject, self._problems)
            else:
                yield from self._told(taken, place, started=started)

    def _bench(self) -> contextlib.AbstractContextManager[Bench | None]:
        ctx, settings = self._ctx, self._settings
        if not settings.drill:
            return contextlib.nullcontext()
        folder = (settings.drill_dir or ctx.scratch) / DRILL
        return bench(folder, programs=settings.programs, deadline=ctx.deadline)

    def _take(self, place: Bench | None) -> Taken | None:
        """From the first that gives one; the others are tried in turn."""
        for name, control in self._fit:
            try:
                return take(control, self._how(place))
            except (TransientError, PermanentError) as exc:
                self._problems.append((name, exc))
                if place:
                    place.again()
        self._fail(self._subject, *(exc for _, exc in self._problems))
        return None

    def _how(self, place: Bench | None) -> How:
        ctx, settings = self._ctx, self._settings
        return How(
            cluster=settings.cluster,
            subject=self._subject,
            repositories=tuple(self._lacking.values()),
            recipients=settings.recipients,
            slot=ctx.slot,
            run_id=ctx.run_id,
            deadline=ctx.deadline,
            progress=ctx.progress,
            keep_copy=place.copy if place else None,
        )

    def _told(self, taken: Taken, place: Bench | None, *, started: float) -> Iterator[Observation]:
        delivery, verdict = taken.delivery, None
        for name, exc in delivery.failures.items():
            self._fail(f"repository/{name}", exc)
            yield not_stored(name, self._subject, exc)
        if delivery.published and place:
            place.problem = place.problem or taken.copy_problem
            verdict = place.verdict(taken.source, deadline=self._ctx.deadline)
            yield from self._about_drill(verdict, place)
        duration_s = round(self._ctx.clock.monotonic() - started, 3)
        for name, published in delivery.published.items():
            self._is_fresh = verdict is None or verdict.ok
            level = yield from self._kept(name, published, verdict)
            yield dataclasses.replace(
                published.manifest.artifact(
                    repository=name,
                    key=published.key,
                    facts={**etcdfindings.facts_of(taken.source), "duration_s": duration_s},
                ),
                level=level,
            )
        yield Seen(subject=self._subject)

    def _about_drill(self, verdict: Verification | None, place: Bench) -> Iterator[Finding]:
        if verdict is None:
            yield etcdfindings.not_drilled(self._subject, place.problem)
        elif not verdict.ok:
            self._failed.append(self._subject)
            yield etcdfindings.drill_failed(self._subject, verdict.detail)

    def _kept(
        self, name: str, published: Published, verdict: Verification | None
    ) -> Generator[Observation, None, str]:
        """Record the verdict, look at the size, remove old ones; returns the proven level."""
        ctx, settings = self._ctx, self._settings
        repository, manifest = self._lacking[name], published.manifest
        proven = manifest.verified
        if verdict:
            backup = Backup(key=published.key, manifest=manifest, verifications=proven)
            try:
                record_verification(repository, backup, verdict)
                proven = (*proven, verdict)
            except (TransientError, PermanentError) as exc:
                self._fail(f"repository/{name}", exc)
                yield not_stored(name, self._subject, exc)
        yield Seen(subject=f"repository/{name}/{self._subject}")
        before = self._shelves.catalogs[name].series(self._subject)
        yield from housekeeping.shrunk(
            manifest, before, percent=settings.shrink_warning, repository=name
        )
        if verdict is None or verdict.ok:
            now, timezone = ctx.clock.now(), ctx.timezone
            yield from housekeeping.retain(
                repository, self._subject, settings.keep, now=now, timezone=timezone
            )
        return next(one.level for one in reversed(proven) if one.ok)

    def cover(self) -> Iterator[Finding]:
        """Tell when there is no good backup that is young enough."""
        if self._is_fresh:
            return
        finding = coverage.not_covered(
            self._subject,
            newest=coverage.newest_good(self._shelves.backups),
            exists_since=None,
            now=self._ctx.clock.now(),
            wanted_age=self._settings.wanted_age,
        )
        if finding:
            yield finding

    def describe(self) -> Iterator[Observation]:
        """Say what a run would do; nothing is written."""
        for name, control in self._fit[:1]:
            size, names = control.view.status.db_size, tuple(self._lacking)
            yield etcdfindings.would_take(self._subject, name, size, names)
        with self._bench() as place:
            if place and place.problem:
                yield etcdfindings.not_drilled(self._subject, place.problem)
        for repository in self._lacking.values():
            yield from housekeeping.describe(
                repository,
                self._subject,
                self._settings.keep,
                now=self._ctx.clock.now(),
                timezone=self._ctx.timezone,
            )

    def conclude(self) -> None:
        """Say what the run came to.

        Raises:
            PartialFailure: something failed; it was told in findings.
        """
        if self._failed:
            raise PartialFailure(", ".join(dict.fromkeys(self._failed)), may_pass=self._may_pass)

    def _fail(self, place: str, *causes: OpsdError) -> None:
        self._failed.append(place)
        self._may_pass = self._may_pass or any(isinstance(one, TransientError) for one in causes)


JOB = Job(
    name="etcd-backup",
    summary="back up etcd with the keys and files of the control plane, and prove it",
    group="backup",
    schedule="45 1 * * *",
    timeout=timedelta(hours=1),
    settings=Settings,
    run=run,
)
