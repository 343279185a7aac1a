"""Is every database of every server dumped, and is it proven that the dump can be read?

Per server the roles and each database are dumped, several at once, into every repository;
read back, parsed, published; and only then old backups go. One database, server or
repository that fails stops none of the others, and is told with what to do about it.

Limits: a dump is a state of one database at one time; two databases of one server are not
dumped at the same instant. What happens between two dumps is lost with the server.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from opsd.backup import coverage, housekeeping
from opsd.backup.delivery import Delivery
from opsd.backup.naming import subject as subject_of
from opsd.backup.postgres import findings as pgfindings
from opsd.backup.postgres import tools as pgtools
from opsd.backup.postgres.dump import (
    How,
    database_subject,
    dump_database,
    dump_globals,
    globals_subject,
)
from opsd.backup.postgres.servers import Target, is_dumped, targets
from opsd.backup.postgres.settings import Settings
from opsd.backup.repository import Repository
from opsd.backup.shelves import Shelves
from opsd.clients.pginspect import Database, ServerFacts, inspect
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
from opsd.text import shortened

INSPECT_S = 30.0  # for asking one server what it holds
MOST_NAMED = 5  # subjects that the run's error names


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One dump to make: of a database, or of a server's roles when `database` is None."""

    subject: str
    target: Target
    facts: ServerFacts
    tools: pgtools.Tools
    database: Database | None


@dataclass(slots=True)
class _Result:
    """What one dump came to."""

    subject: str
    observations: list[Observation] = field(default_factory=list)
    failed: bool = False
    may_pass: bool = False  #: something that it failed for
    timed_out: bool = False


def run(ctx: Context, settings: Settings) -> Iterator[Observation]:
    """Back up every wanted database of every server."""
    with contextlib.ExitStack() as stack:
        backup = _Backup(ctx, settings, stack)
        yield from backup.open_repositories()
        yield from backup.look_at_servers()
        if ctx.dry_run:
            yield from backup.describe()
        else:
            yield from backup.work()
            yield from backup.cover()
        backup.conclude()


class _Backup:
    """One run."""

    def __init__(self, ctx: Context, settings: Settings, stack: contextlib.ExitStack) -> None:
        self._ctx = ctx
        self._settings = settings
        self._stack = stack  # what must stay open until the last dump
        self._shelves = Shelves()
        self._tasks: list[_Task] = []
        self._known: dict[str, datetime | None] = {}  # servers, since when each exists
        self._fresh: set[str] = set()  # servers of which this run published a dump
        self._failed: list[str] = []
        self._may_pass = False  # something that failed
        self._timed_out = False

    def open_repositories(self) -> Iterator[Observation]:
        """Read what every repository holds; one that cannot be read is left out."""
        names, prefixes = self._settings.repositories, ("database/", "globals/")
        yield from self._shelves.open(names, self._ctx.repository, *prefixes)
        for name, exc in self._shelves.failures.items():
            self._fail(f"repository/{name}", exc)
        if not self._shelves.repositories:
            text = "no repository can be reached, so nothing was backed up"
            raise PartialFailure(text, may_pass=self._may_pass)

    def look_at_servers(self) -> Iterator[Observation]:
        """Find out what is to be dumped; a server that is down is one finding."""
        tools = pgtools.installed(self._settings.client_dirs, deadline=self._ctx.deadline)
        written_down = targets(self._settings.servers)
        self._known = {target.server.name: None for target in written_down}
        found = yield from self._search(written_down)
        for target in (*written_down, *found):
            yield from self._look_at(target, tools)

    def _search(
        self, written_down: Sequence[Target]
    ) -> Generator[Observation, None, tuple[Target, ...]]:
        """Find the servers that nobody wrote down."""
        if not self._settings.searches_cluster():
            return ()
        from opsd.clients.kube.access import runs_in_cluster  # noqa: PLC0415 - for clusters only
        from opsd.cluster.postgres_discovery import PLACE, search  # noqa: PLC0415 - likewise
        from opsd.cluster.postgres_reading import Namespaces  # noqa: PLC0415 - likewise

        settings = self._settings
        where = Namespaces(include=settings.namespaces, exclude=settings.exclude_namespaces)
        configured = [target.server for target in written_down]
        found = search(
            self._ctx.kube,
            where,
            configured=configured,
            in_cluster=runs_in_cluster(),
            stack=self._stack,
        )
        for refused in found.refused:
            self._failed.append(refused.finding.subject)
            self._may_pass = self._may_pass or refused.may_pass
            yield refused.finding
        if PLACE not in self._failed:
            yield Seen(subject=PLACE)
        self._known |= {one.name: one.created_at for one in found.known}
        return tuple(
            Target(server=one.server, databases=one.databases, exclude=one.exclude)
            for one in found.located
        )

    def _look_at(self, target: Target, tools: Sequence[pgtools.Tools]) -> Iterator[Observation]:
        server, subject = target.server, f"server/{target.server.name}"
        try:
            within_s = min(INSPECT_S, self._ctx.remaining())
            with self._ctx.postgres.connect(server, within_s=within_s) as session:
                facts = inspect(session)
            chosen = pgtools.for_dump(tools, facts.major)
        except pgtools.ClientMissing as exc:
            self._fail(subject, exc)
            yield pgfindings.unreachable("postgres.client_missing", subject, exc)
        except (ConfigError, TransientError, PermanentError) as exc:
            self._fail(subject, exc)
            yield pgfindings.unreachable("postgres.unreachable", subject, exc)
        else:
            yield from self._plan(target, facts, chosen)
            yield Seen(subject=subject)

    def _plan(
        self, target: Target, facts: ServerFacts, tools: pgtools.Tools
    ) -> Iterator[Observation]:
        server = target.server
        yield from pgfindings.about_server(server, facts, tools)
        yield from pgfindings.missing(server, target.databases, facts)
        backed_up = {one.manifest.subject for one in self._shelves.backups}
        yield from pgfindings.vanished(server, facts, backed_up)
        self._add(globals_subject(server), target, facts, tools, None)
        wanted = [one for one in facts.databases if is_dumped(one) and target.wants(one.name)]
        # The largest first, so that it does not run alone at the end.
        for database in sorted(wanted, key=lambda one: -one.size_bytes):
            subject = database_subject(server, database.name)
            self._add(subject, target, facts, tools, database)

    def _add(
        self,
        subject: str,
        target: Target,
        facts: ServerFacts,
        tools: pgtools.Tools,
        database: Database | None,
    ) -> None:
        self._tasks.append(
            _Task(subject=subject, target=target, facts=facts, tools=tools, database=database)
        )

    def work(self) -> Iterator[Observation]:
        """Make the dumps, several at once, and yield what each came to as it ends."""
        with ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="dump") as pool:
            for future in as_completed(pool.submit(self._make, task) for task in self._tasks):
                result = future.result()
                yield from result.observations
                if result.failed:
                    self._failed.append(result.subject)
                self._may_pass = self._may_pass or result.may_pass
                self._timed_out = self._timed_out or result.timed_out

    def cover(self) -> Iterator[Finding]:
        """Name every server without a dump that is young enough."""
        backups = self._shelves.backups
        for name, since in self._known.items():
            series = f"{subject_of('database', name)}/"
            own = [one for one in backups if one.manifest.subject.startswith(series)]
            newest = coverage.newest_good(own)
            if name in self._fresh or not (newest or since):
                continue
            finding = coverage.not_covered(
                f"server/{name}",
                newest=newest,
                exists_since=since,
                now=self._ctx.clock.now(),
                wanted_age=self._settings.wanted_age,
            )
            if finding:
                yield finding

    def conclude(self) -> None:
        """Say what the run came to.

        Raises:
            DeadlineExceeded: time ran out before everything was dumped.
            PartialFailure: something failed; it was told in findings.
        """
        if self._failed:
            total = len(self._tasks) + sum(1 for one in self._failed if _is_place(one))
            text = f"{len(self._failed)} of {total} failed: {_some(self._failed)}"
            if self._timed_out:
                raise DeadlineExceeded(text)
            raise PartialFailure(text, may_pass=self._may_pass)

    def _fail(self, place: str, exc: OpsdError) -> None:
        self._failed.append(place)
        self._may_pass = self._may_pass or isinstance(exc, TransientError)

    def _make(self, task: _Task) -> _Result:
        """Dump one subject into every repository that lacks this slot's result."""
        result = _Result(task.subject)
        lacking = tuple(self._shelves.lacking(task.subject, self._ctx.slot).values())
        now = self._ctx.clock.now()
        for repository in lacking:
            result.observations += housekeeping.clear_leftovers(
                repository, task.subject, dead_runs=self._ctx.dead_runs, now=now
            )
        if not lacking:
            result.observations.append(Seen(subject=task.subject))
            return result
        started = self._ctx.clock.monotonic()
        try:
            delivery = self._dump(task, lacking)
        except DeadlineExceeded as exc:
            result.failed = result.timed_out = True
            result.observations.append(pgfindings.dump_failed(task.subject, exc))
        except (TransientError, PermanentError) as exc:
            result.failed, result.timed_out = True, self._is_over()
            result.may_pass = isinstance(exc, TransientError)
            result.observations.append(pgfindings.dump_failed(task.subject, exc))
        else:
            result.failed = bool(delivery.failures)
            failures = delivery.failures.values()
            result.may_pass = any(isinstance(one, TransientError) for one in failures)
            result.observations.append(Seen(subject=task.subject))
            duration_s = self._ctx.clock.monotonic() - started
            result.observations += self._told(task, delivery, duration_s=duration_s)
        return result

    def _dump(self, task: _Task, repositories: Sequence[Repository]) -> Delivery:
        settings, ctx = self._settings, self._ctx
        how = How(
            postgres=ctx.postgres,
            tools=task.tools,
            repositories=repositories,
            recipients=settings.recipients,
            slot=ctx.slot,
            run_id=ctx.run_id,
            lock_wait_s=settings.lock_wait.total_seconds(),
            count_budget_s=settings.count_rows.total_seconds(),
            skip_large_objects=settings.large_objects == "skip",
            deadline=ctx.deadline,
            progress=ctx.progress,
        )
        if task.database is None:
            return dump_globals(task.target.server, task.facts, how)
        return dump_database(
            task.target.server,
            task.facts,
            task.database,
            how,
            expected_bytes=self._last_size(task.subject),
        )

    def _told(
        self, task: _Task, delivery: Delivery, *, duration_s: float
    ) -> Iterator[Observation]:
        """What one delivery means, and retention where it succeeded."""
        ctx, settings = self._ctx, self._settings
        for name, exc in delivery.failures.items():
            yield pgfindings.not_stored(name, task.subject, exc)
        for name, published in delivery.published.items():
            manifest = published.manifest
            before = self._shelves.catalogs[name].series(task.subject)
            yield pgfindings.artifact(name, published, duration_s=duration_s)
            yield Seen(subject=f"repository/{name}/{task.subject}")
            if task.database:
                self._fresh.add(task.target.server.name)
            yield from housekeeping.shrunk(
                manifest, before, percent=settings.shrink_warning, repository=name
            )
            yield from housekeeping.retain(
                self._shelves.repositories[name],
                task.subject,
                settings.keep,
                now=ctx.clock.now(),
                timezone=ctx.timezone,
            )
        yield from pgfindings.about_dump(delivery)

    def describe(self) -> Iterator[Observation]:
        """Say what a run would do; nothing is written, not even a probe."""
        for task in self._tasks:
            names = ", ".join(self._shelves.repositories)
            size = task.database.size_bytes if task.database else 0
            yield Finding(
                check="dry_run.dump",
                subject=task.subject,
                severity=Severity.INFO,
                summary=shortened(f"would be dumped to {names}", 120),
                facts={"database_size_bytes": size, "pg_dump": task.tools.version},
            )
            for repository in self._shelves.repositories.values():
                yield from housekeeping.describe(
                    repository,
                    task.subject,
                    self._settings.keep,
                    now=self._ctx.clock.now(),
                    timezone=self._ctx.timezone,
                )

    def _last_size(self, subject: str) -> int:
        sizes = (one.series(subject)[:1] for one in self._shelves.catalogs.values())
        return max((last[0].manifest.size_bytes for last in sizes if last), default=0)

    def _is_over(self) -> bool:
        return self._ctx.clock.monotonic() >= self._ctx.deadline.at


def _is_place(subject: str) -> bool:
    """A server, repository or cluster that failed as a whole, and so has no task."""
    return subject.startswith(("server/", "repository/", "cluster/"))


def _some(subjects: Sequence[str]) -> str:
    named = ", ".join(subjects[:MOST_NAMED])
    more = len(subjects) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named


__all__ = ["JOB", "Settings", "run"]

JOB = Job(
    name="postgres-backup",
    summary="dump every database of every PostgreSQL server, and prove the dumps",
    group="backup",
    schedule="15 2 * * *",
    timeout=timedelta(hours=6),
    settings=Settings,
    run=run,
)
