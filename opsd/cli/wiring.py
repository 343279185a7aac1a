"""Put the parts together: from a configuration to stores, repositories and contexts.

The only place that knows which class fulfils which protocol.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from opsd.cli.calling import STATE_FILE
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError, OpsdError
from opsd.job import Context
from opsd.model import Run, Severity
from opsd.progress import Progress

if TYPE_CHECKING:
    from opsd.alerts.policy import Policy
    from opsd.backup.repository import Repository
    from opsd.clients.kube.client import Kube
    from opsd.clients.kube.transport import Transport
    from opsd.clients.pgserver import Postgres
    from opsd.configfile import Config, JobEntry
    from opsd.executors.pinging import Pings
    from opsd.hosts.roster import Access
    from opsd.hosts.trust import Trust
    from opsd.hosts.visiting import SshFleet
    from opsd.retry import Patience
    from opsd.state import State, Tell

log = structlog.get_logger()

KNOWN_HOSTS = "known_hosts"  # in state_dir, unless another file is named
REMEMBERED_NODES = "nodes.json"  # in state_dir
SCRATCH = "scratch"  # in state_dir: one directory per job
DELIVERY_S = 120.0  # a service that hangs must not keep a finished backup waiting for long


@dataclass(frozen=True, slots=True)
class Wiring:
    """The parts of one call, made when they are asked for."""

    config: Config
    clock: SystemClock
    _opened: dict[str, Repository] = field(default_factory=dict)
    _transports: list[Transport] = field(default_factory=list)  # one, or none yet

    @property
    def state_path(self) -> Path:
        """The state file."""
        return self.config.state_dir / STATE_FILE

    @contextmanager
    def state(self) -> Iterator[State]:
        """The opened state; it is made when it is not there yet.

        Raises:
            TransientError, PermanentError: as `opsd.state.State` says.
        """
        from opsd.state.sqlite import SqliteState  # noqa: PLC0415 - not for every command

        state = SqliteState(self.state_path, clock=self.clock)
        try:
            yield state
        finally:
            state.close()

    def repository(self, name: str) -> Repository:
        """Open a configured repository; nothing is asked of it yet.

        Raises:
            ConfigError: there is none of this name.
        """
        from opsd.backup.opening import open_repository  # noqa: PLC0415 - may load boto3

        try:
            table = self.config.repositories[name]
        except KeyError:
            known = ", ".join(self.config.repositories) or "none"
            raise ConfigError(f"there is no repository {name}; configured: {known}") from None
        if name not in self._opened:
            self._opened[name] = open_repository(name, table)
        return self._opened[name]

    def kube(self, deadline: Deadline) -> Kube:
        """The cluster of the configuration; nothing is looked for or opened yet."""
        from opsd.clients.kube.access import find_cluster  # noqa: PLC0415 - not for every job
        from opsd.clients.kube.client import Kube  # noqa: PLC0415 - likewise
        from opsd.clients.kube.transport import Transport  # noqa: PLC0415 - likewise

        if not self._transports:
            table = self.config.document.kubernetes
            path = Path(table.kubeconfig) if table.kubeconfig else None
            find = functools.partial(find_cluster, kubeconfig=path, context=table.context)
            self._transports.append(Transport(find))
        return Kube(self._transports[0], deadline=deadline)

    def fleet(self, deadline: Deadline) -> SshFleet:
        """The machines of the configuration and of the cluster; nothing is asked yet."""
        from opsd.hosts.visiting import SshFleet  # noqa: PLC0415 - not for every command

        return SshFleet(self.access, open_kube=self.kube, deadline=deadline)

    def trust(self) -> Trust:
        """Which machines are believed.

        Raises:
            ConfigError: no way to log in is configured.
        """
        from opsd.hosts.trust import Trust  # noqa: PLC0415 - not for every command

        deadline = Deadline.after(0, self.clock)
        return Trust(self.fleet(deadline).access, self.kube)

    @property
    def access(self) -> Access | None:
        """How opsd logs in to machines; None: it does not."""
        from opsd.hosts.machine import Role  # noqa: PLC0415 - not for every command
        from opsd.hosts.roster import Access, Entry  # noqa: PLC0415 - likewise

        ssh = self.config.document.ssh
        if ssh is None:
            return None
        return Access(
            user=ssh.user,
            key=ssh.key,
            passphrase=ssh.passphrase,
            known_hosts=Path(ssh.known_hosts or self.config.state_dir / KNOWN_HOSTS),
            known_hosts_configmap=ssh.known_hosts_configmap,
            jump=ssh.jump,
            connect_timeout_s=ssh.connect_timeout.total_seconds(),
            at_once=ssh.at_once,
            nodes=ssh.nodes,
            exclude=ssh.exclude,
            machines=tuple(
                Entry(
                    name=one.name,
                    address=one.address,
                    port=one.port,
                    user=one.user,
                    roles=frozenset(Role(role) for role in one.roles),
                    jump=one.jump,
                )
                for one in self.config.document.machines
            ),
            remembered=self.config.state_dir / REMEMBERED_NODES,
        )

    def run(
        self,
        entry: JobEntry,
        *,
        slot: datetime,
        is_scheduled: bool,
        dry_run: bool,
        progress: Progress,
        last_words: Callable[[Run], None] | None = None,
    ) -> Run:
        """Run a configured job once; see `opsd.executors.inline.run_now`."""
        from opsd.executors.inline import run_now  # noqa: PLC0415 - not for every command

        with self.state() as state:
            return run_now(
                entry.job,
                entry.settings,
                slot=slot,
                timeout=entry.timeout,
                state=state,
                clock=self.clock,
                context=functools.partial(self.context, progress=progress),
                tell=self.tell,
                patience=self.patience(entry),
                is_scheduled=is_scheduled,
                pings=self.pings,
                last_words=last_words,
                dry_run=dry_run,
            )

    @property
    def pings(self) -> Pings:
        """Who is told of runs besides; loads nothing when no job asks for it."""
        from opsd.executors.pinging import NoPings  # noqa: PLC0415 - not for every command

        jobs = self.config.jobs
        if all(entry.ping is None for entry in jobs.values()):
            return NoPings()
        from opsd.alerts.pings import JobPings  # noqa: PLC0415 - loads urllib3
        from opsd.clients.pings import Endpoint  # noqa: PLC0415 - likewise

        return JobPings(
            {
                name: Endpoint(name=f"ping of {name}", url=entry.ping, kind=entry.ping_kind)
                for name, entry in jobs.items()
                if entry.ping is not None
            }
        )

    def patience(self, entry: JobEntry) -> Patience:
        """When slots of a job are tried again."""
        from opsd.cron import parse  # noqa: PLC0415 - not for every command
        from opsd.retry import Patience  # noqa: PLC0415 - likewise

        return Patience(
            cron=parse(entry.schedule, timezone=self.config.timezone, spread_by=entry.job.name),
            retries=entry.retries,
            catch_up=entry.catch_up,
        )

    @property
    def policy(self) -> Policy:
        """How people want to be told."""
        from opsd.alerts.policy import Maintenance, Policy, Route  # noqa: PLC0415 - as above

        alerts, maintenance = self.config.document.alerts, self.config.document.maintenance
        return Policy(
            timezone=self.config.timezone.key,
            quiet_hours=alerts.quiet_hours,
            remind_critical=alerts.remind_critical or None,
            remind_warning=alerts.remind_warning or None,
            escalate_after=alerts.escalate_after,
            escalate_to=alerts.escalate_to,
            max_per_hour=alerts.max_per_hour,
            routes=tuple(
                Route(
                    checks=route.checks,
                    subjects=route.subjects,
                    min_severity=Severity[route.min_severity.upper()],
                    to=route.to,
                )
                for route in alerts.routes
            ),
            maintenance=tuple(
                Maintenance(
                    name=one.name,
                    schedule=one.schedule,
                    duration=one.duration,
                    subjects=one.subjects,
                    jobs=one.jobs,
                )
                for one in maintenance
            ),
            report=alerts.report,
        )

    @property
    def tell(self) -> Tell:
        """What people are told; nothing, when there is nobody to tell."""
        return telling(self.policy, somebody=bool(self.config.targets))

    def context(
        self,
        *,
        job: str,
        run_id: str,
        slot: datetime,
        deadline: Deadline,
        dead_runs: frozenset[str],
        dry_run: bool,
        progress: Progress,
    ) -> Context:
        """What a run may touch.

        Raises:
            ConfigError: its scratch directory cannot be made.
        """
        return Context(
            job=job,
            run_id=run_id,
            slot=slot,
            timezone=self.config.timezone,
            clock=self.clock,
            deadline=deadline,
            dry_run=dry_run,
            progress=progress,
            scratch=self._scratch(job),
            dead_runs=dead_runs,
            repository=self.repository,
            open_postgres=_postgres,
            open_kube=self.kube,
            open_fleet=self.fleet(deadline).until,
        )

    def deliver(self, progress: Progress) -> None:
        """Send what waits, in a process of its own: the libraries for it are large and may hang.

        What cannot be delivered stays in the outbox, and `opsd status` shows it.
        """
        with self.state() as state:
            waits = bool(state.due_messages(self.clock.now(), limit=1))
        if not (waits and self.config.targets):
            return
        from opsd.clients import process  # noqa: PLC0415 - not for every command

        argv = [sys.executable, "-m", "opsd", "--config", str(self.config.path), "deliver"]
        progress.update("deliver messages")
        try:
            process.run(
                argv, deadline=Deadline.after(DELIVERY_S, self.clock), env=dict(os.environ)
            )
        except OpsdError as exc:
            log.warning("delivery.ended", error=str(exc))
        finally:
            progress.finish("deliver messages")

    def _scratch(self, job: str) -> Path:
        path = self.config.state_dir / SCRATCH / job
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigError(
                f"make {path}: {exc.strerror}; opsd.state_dir must be writable"
            ) from exc
        return path


def _postgres() -> Postgres:
    from opsd.clients.postgres import PsycopgPostgres  # noqa: PLC0415 - loads psycopg

    return PsycopgPostgres()


def telling(policy: Policy, *, somebody: bool) -> Tell:
    """The alert policy as the state calls it; silent when there is no target."""
    from opsd.alerts.policy import advance  # noqa: PLC0415 - not for every command

    if not somebody:
        return lambda alerts, _open, _at: (alerts, ())
    return functools.partial(advance, policy=policy)
