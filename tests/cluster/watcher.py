"""opsd as the tests of stuck-pods have it: own account, quick clock, the real alert policy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from jobs import stuck_pods
from jobs.stuck_pods import Eyes, Settings
from opsd.alerts.policy import Policy, advance
from opsd.backup.repository import Repository
from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline, SystemClock
from opsd.cluster.nodeloss.facts import Thresholds
from opsd.cluster.nodeloss.memory import MachineUptime, Uptime
from opsd.cluster.nodeloss.survey import Pace
from opsd.hosts.fleet import Fleet
from opsd.incidents import AlertState
from opsd.model import Finding, Message, OpenFinding, Outcome, Run
from opsd.runner import execute
from opsd.testing import context
from opsd.triage import transitions
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import ApiError
from tests.rig.kubeaudit import Call
from tests.rig.workloads import service_account

RBAC = Path(__file__).parents[2] / "deploy/rbac/stuck-pods.yaml"
NAMESPACE = ACCOUNT = "opsd"
USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
LOOK_S = 0.3  # between two looks of a test that waits
READS = {"get", "list", "watch"}


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


#: For a control plane on the fast clock, which gives a node up after six seconds.
QUICK = Thresholds(
    hold=s(3),
    leader_silent=s(5),
    lease_silent=s(5),
    suspect=s(2.5),
    slack=s(2),
    collected=s(5),
    recovering=s(8),
    patience=s(15),
)
OFTEN = Pace(look=s(1), suspicious=s(0.5), close=s(2), sweep=s(2), sweep_again=s(1))


@dataclass(kw_only=True)
class Watcher:
    """opsd with one memory, which is asked to look when a test wants it to."""

    control_plane: ControlPlane
    scratch: Path
    repositories: Sequence[Repository] = ()
    settings: Settings = field(default_factory=lambda: Settings(watch=s(0), ports=()))
    thresholds: Thresholds = QUICK
    pace: Pace = OFTEN
    uptime: Uptime = field(default_factory=MachineUptime)
    open_fleet: Callable[[Deadline], Fleet] | None = None  #: machines to ask; None: there are none
    alerts: AlertState = field(default_factory=AlertState)
    open: dict[tuple[str, str], OpenFinding] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    _kubeconfig: Path | None = None

    def look(self, *, thresholds: Thresholds | None = None) -> Run:
        """Run the job once, and have people told what it found."""
        clock = SystemClock()
        transport = Transport(lambda: find_cluster(kubeconfig=self.kubeconfig))
        ctx = context(
            scratch=self.scratch,
            repositories=self.repositories,
            clock=clock,
            job="stuck-pods",
            slot=datetime.now(UTC).replace(microsecond=0),
            timeout=s(120),
            kube=Kube(transport, deadline=Deadline.after(120, clock)),
        )
        ctx = replace(ctx, open_fleet=self.open_fleet or ctx.open_fleet)
        eyes = Eyes(uptime=self.uptime, thresholds=thresholds or self.thresholds, pace=self.pace)
        job = replace(stuck_pods.JOB, run=lambda ctx, own: stuck_pods.watch(ctx, own, eyes))
        with contextlib.closing(transport):
            run = execute(job, self.settings, ctx)
        self._tell(run)
        self.runs.append(run)
        return run

    @property
    def kubeconfig(self) -> Path:
        """As the account opsd, with exactly the rights of deploy/rbac/stuck-pods.yaml."""
        if self._kubeconfig is None:
            grant(self.control_plane)
            self._kubeconfig = self.control_plane.kubeconfig_of(NAMESPACE, ACCOUNT)
        return self._kubeconfig

    def finding(self, subject: str) -> Finding | None:
        """What is open about a subject."""
        found = (one.finding for one in self.open.values() if one.finding.subject == subject)
        return next(found, None)

    def _tell(self, run: Run) -> None:
        at = run.started_at + run.duration
        for change in transitions(run, tuple(self.open.values()), at=at):
            self.open.pop(change.finding.key, None)
            if change.change.value != "resolved":
                self.open[change.finding.key] = OpenFinding(
                    finding=change.finding, job=run.job, opened_at=change.opened_at
                )
        for one in run.findings:  # facts change without a transition
            if one.key in self.open:
                self.open[one.key] = replace(self.open[one.key], finding=one)
        self.alerts, told = advance(self.alerts, tuple(self.open.values()), at, policy=Policy())
        self.messages += told


def grant(control_plane: ControlPlane) -> None:
    """Make the account and give it its rights; no harm when it has them."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    for item in (
        namespace,
        service_account(NAMESPACE, ACCOUNT),
        *yaml.safe_load_all(RBAC.read_text()),
    ):
        try:
            control_plane.api.create(item)
        except ApiError as exc:
            if exc.reason != "AlreadyExists":
                raise


def until(watcher: Watcher, is_so: Callable[[Run], object], *, within_s: float = 60.0) -> Run:
    """Have it look until what it found is as a test wants it."""
    give_up_at = time.monotonic() + within_s
    while not is_so(run := watcher.look()):
        assert time.monotonic() < give_up_at, f"not so in {within_s:.0f} s: {run}"
        time.sleep(LOOK_S)
    return run


def found(run: Run, subject: str) -> Finding | None:
    """What a run found about a subject."""
    return next((one for one in run.findings if one.subject == subject), None)


def forbidden(calls: Iterable[Call]) -> list[str]:
    """The calls that a job must not make which only explains, or that it may not make."""
    return [str(call) for call in calls if call.verb not in READS or call.code == 403]


def ended(run: Run) -> bool:
    """Whether it looked at everything."""
    return run.outcome is Outcome.COMPLETED
