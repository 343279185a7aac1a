"""A node went down, and its pods hang in Terminating: which, why, and what can be done?

Looks at the cluster every few seconds for most of a minute, and ends as soon as there is news,
so that it is told within seconds. A lost node is one finding with its pods, their volumes, the
newest backups and the next command; a pod that hangs for another reason is told with that one.
Nothing is ever changed in the cluster.

Limits: whether a silent node is dead can be told only by looking from within, which needs [ssh].
While the control plane's word is in doubt nothing is said about nodes, and the run fails. The
newest backups are looked up for ten seconds at most.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from pydantic import Field

from opsd.backup.naming import unquote
from opsd.backup.newest import newest_good
from opsd.clock import Deadline
from opsd.cluster.nodeloss import keeping
from opsd.cluster.nodeloss.classify import judge_control_plane
from opsd.cluster.nodeloss.facts import STANDARD, ControlPlane, Pod, Thresholds
from opsd.cluster.nodeloss.incident import Loss, Newest, Volume, about_control_plane
from opsd.cluster.nodeloss.memory import MachineUptime, Research, Uptime
from opsd.cluster.nodeloss.report import findings
from opsd.cluster.nodeloss.survey import Pace, Picture, Survey, volumes_of
from opsd.cluster.nodeloss.vantage import Here, Machines
from opsd.config import Duration, RepositoryName, Table
from opsd.errors import DeadlineExceeded, OpsdError, PartialFailure, TransientError
from opsd.job import Context, Job, Observation
from opsd.model import Finding
from opsd.secrets import describe

MEMORY = "seen.json"  # in the scratch directory
LOOK_S = 20.0  # for one look, the API server's slow answers included
RESEARCH_S = 10.0  # for what is on a lost node; and again for its backups
REPEAT_RESEARCH_S = 600.0
TICK_S = 10.0  # the daemon starts every slot so much late at most
PREFIXES = ("database/", "share/")  # what may have lain on a node


class Settings(Table):
    """Settings of stuck-pods."""

    repositories: tuple[RepositoryName, ...] = Field(
        (),
        description="where the newest backups of what hangs on a lost node are looked up",
        examples=[["usb"]],
    )
    watch: Duration = Field(
        timedelta(seconds=54),
        description="how long one run looks again and again when nothing changes; 0s: once",
    )
    node_silent: Duration = Field(
        timedelta(seconds=50),
        description="a node is lost when the API server says so and its lease is silent for this "
        "long; node-monitor-grace-period of the controller manager",
    )
    ports: tuple[int, ...] = Field(
        (22, 10250),
        description="where opsd and other machines knock at a lost node to see whether it lives",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Eyes:
    """What a run looks with; tests on a faster cluster have others."""

    uptime: Uptime = MachineUptime()  # noqa: RUF009 - has no state
    thresholds: Thresholds = STANDARD
    pace: Pace = Pace()  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What a close look, or one that failed, came to."""

    findings: tuple[Finding, ...] = ()
    doubt: str = ""  #: why nothing can be said about nodes
    is_news: bool = True  #: false: we just began, and there is nothing to say yet

    @property
    def told(self) -> tuple[str, ...]:
        """What makes it the same as another."""
        told = {f"{one.severity.label} {one.check} {one.subject}" for one in self.findings}
        return tuple(sorted(told | ({"doubt"} if self.doubt else set())))


def run(ctx: Context, settings: Settings) -> Iterator[Observation]:
    """Watch the nodes and their pods."""
    return watch(ctx, settings, Eyes(thresholds=_thresholds(settings)))


def watch(ctx: Context, settings: Settings, eyes: Eyes) -> Iterator[Observation]:
    """Look until there is news or the time is over, and say what is the matter."""
    watching = _Watch(ctx, settings, eyes)
    seen = watching.until_news()
    yield from seen.findings
    if seen.doubt:
        raise PartialFailure(seen.doubt, may_pass=False)


class _Watch:
    """One run."""

    def __init__(self, ctx: Context, settings: Settings, eyes: Eyes) -> None:
        self._ctx, self._settings, self._eyes = ctx, settings, eyes
        vantages = (
            Here(ports=settings.ports),
            Machines(open_fleet=ctx.open_fleet, clock=ctx.clock, ports=settings.ports),
        )
        self._survey = Survey(
            uptime=eyes.uptime,
            thresholds=eyes.thresholds,
            pace=eyes.pace,
            vantages=vantages,
        )
        self._place = ctx.scratch / MEMORY
        self._memory = self._survey.begin(keeping.read(self._place))

    def until_news(self) -> _Seen:
        """What was seen last, which is kept for the next run.

        Raises:
            PermanentError, ConfigError: opsd may not look, or there is no cluster.
            DeadlineExceeded: the run was not given the time to say anything.
        """
        seen: _Seen | None = None
        try:
            seen = self._look_on()
        finally:
            told = self._memory.told if seen is None else seen.told
            keeping.write(self._place, replace(self._memory, told=told))
        return seen

    def _look_on(self) -> _Seen:
        clock, latest = self._ctx.clock, None
        ends_at = clock.monotonic() + self._time_left()
        close_at = clock.monotonic()
        try:
            while True:
                started = clock.monotonic()
                seen = self._look(closely=started >= close_at)
                if seen is not None:
                    latest, close_at = seen, started + self._closely_after(seen)
                if latest is not None and latest.is_news and self._is_over(latest, ends_at):
                    return latest
                self._rest(started)
        except KeyboardInterrupt:
            # Whoever restarts opsd ends a watch, which is not a failure: it is never finished.
            if latest is None or not latest.is_news:
                raise
            return latest

    def _closely_after(self, seen: _Seen) -> float:
        """Seconds until the next close look, if nothing asks for one earlier."""
        if not seen.is_news:
            watched_for = self._memory.watched_for(self._eyes.uptime.seconds())
            return (self._eyes.thresholds.hold - watched_for).total_seconds()
        return 0.0 if seen.doubt else self._eyes.pace.close.total_seconds()

    def _is_over(self, latest: _Seen, ends_at: float) -> bool:
        next_look = self._ctx.clock.monotonic() + self._eyes.pace.look.total_seconds()
        return latest.told != self._memory.told or next_look > ends_at

    def _time_left(self) -> float:
        """Seconds to watch for, so that the run is over when the next slot is looked at."""
        if self._ctx.dry_run:
            return 0.0
        late_s = (self._ctx.clock.now() - self._ctx.slot).total_seconds()
        watch_s = self._settings.watch.total_seconds()
        return max(0.0, watch_s - max(0.0, late_s - TICK_S))

    def _rest(self, started: float) -> None:
        """Wait for the time of the next look."""
        pace = self._eyes.pace
        is_suspicious = self._survey.is_suspicious(self._memory)
        wait_s = (pace.suspicious if is_suspicious else pace.look).total_seconds()
        passed_s = self._ctx.clock.monotonic() - started
        time.sleep(min(max(0.0, wait_s - passed_s), self._ctx.remaining()))

    def _look(self, *, closely: bool) -> _Seen | None:
        """Look once; None when nothing asked for a closer look."""
        self._memory = self._survey.begin(self._memory)
        try:
            deadline = Deadline.after(LOOK_S, self._ctx.clock)
            kube = self._ctx.kube.until(deadline)
            self._memory, picture = self._survey.look(kube, self._memory, closely=closely)
        except (TransientError, DeadlineExceeded) as exc:
            self._ctx.remaining()  # raises when it is the run's own time that is over
            self._memory = self._memory.failed(describe(exc), self._eyes.uptime.seconds())
            return self._doubted(
                ControlPlane(
                    watched_for=self._eyes.thresholds.hold,
                    error=describe(exc),
                    error_age=timedelta(0),
                )
            )
        if picture is None:
            return None
        return self._doubted(picture.control_plane) or self._judged(picture)

    def _doubted(self, control_plane: ControlPlane) -> _Seen | None:
        verdict = judge_control_plane(control_plane, thresholds=self._eyes.thresholds)
        if verdict is None:
            return None
        finding = about_control_plane(verdict)
        if finding is None:
            return _Seen(doubt="the cluster has not been watched for long enough", is_news=False)
        return _Seen(findings=(finding,), doubt=f"nothing is known of nodes: {finding.summary}")

    def _judged(self, picture: Picture) -> _Seen:
        lost = {node.name for node in picture.lost}
        known = {name: one for name, one in self._memory.research.items() if name in lost}
        self._memory = replace(self._memory, research=known)
        found = findings(
            picture,
            research=self._research,
            now=self._ctx.clock.now(),
            thresholds=self._eyes.thresholds,
        )
        return _Seen(findings=tuple(found))

    def _research(self, loss: Loss) -> Loss:
        """Add what can be found out about the data on a lost node; it is told without, too."""
        name, now_s = loss.node.name, self._eyes.uptime.seconds()
        uids = tuple(sorted(pod.uid for pod in loss.pods))
        known = self._memory.research.get(name)
        if known is None or known.pods != uids or now_s - known.at_s > REPEAT_RESEARCH_S:
            known = self._found_out(loss, Research(at_s=now_s, pods=uids))
            research = {**self._memory.research, name: known}
            self._memory = replace(self._memory, research=research)
        return replace(
            loss,
            volumes=known.volumes,
            backups=known.backups,
            backups_unknown=known.unknown,
        )

    def _found_out(self, loss: Loss, about: Research) -> Research:
        with contextlib.suppress(OpsdError):  # the message must not wait for it
            kube = self._ctx.kube.until(Deadline.after(RESEARCH_S, self._ctx.clock))
            with_data = [pod for pod in loss.pods if pod.claims]
            about = replace(about, volumes=tuple(volumes_of(kube, with_data)))
        if not (loss.databases or about.volumes):
            return about
        if not self._settings.repositories:
            return replace(about, unknown="set jobs.stuck-pods.repositories to have them here")
        opened = [partial(self._ctx.repository, name) for name in self._settings.repositories]
        try:
            newest = newest_good(opened, PREFIXES, within_s=RESEARCH_S)
        except OpsdError as exc:
            return replace(about, unknown=describe(exc))
        backups = [
            Newest(subject=subject, at=backup.manifest.created_at, repository=repository)
            for subject, (repository, backup) in newest.items()
            if _concerns(subject, loss, about.volumes)
        ]
        # The oldest first: it is the one that may not do.
        return replace(about, backups=tuple(sorted(backups, key=lambda one: one.at)))


def _concerns(subject: str, loss: Loss, volumes: Sequence[Volume]) -> bool:
    """Whether a backup is of something that lay on the lost node."""
    kind, _, rest = subject.partition("/")
    if kind == "share":
        return any(volume.where.startswith("nfs ") for volume in volumes)
    return unquote(rest.partition("/")[0]) in {
        server for pod in loss.pods if pod.place in loss.databases for server in _servers(pod)
    }


def _servers(pod: Pod) -> Iterator[str]:
    """Names that the server in a pod may have among the backups."""
    owner = pod.owner.partition("/")[2]
    if pod.kind == "ReplicaSet":
        owner = owner.rpartition("-")[0]  # the Deployment's
    for name in (owner, pod.name):
        if name:
            yield f"{pod.namespace}-{name}"
            yield name


def _thresholds(settings: Settings) -> Thresholds:
    return replace(STANDARD, lease_silent=settings.node_silent)


JOB = Job(
    name="stuck-pods",
    summary="say which node is lost, why pods hang in Terminating, and what to do",
    group="cluster",
    schedule="* * * * *",
    timeout=timedelta(minutes=3),
    settings=Settings,
    run=run,
)
