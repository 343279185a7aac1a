"""opsd as the tests of node-remedy have it: own account, quick clock, a plug that really cuts.

The plug is a program that keeps its state in a file. Turning it off takes the power from the fake
node, as a test tells it, so that what the cluster sees and what the fence says agree.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import yaml

from jobs import node_remedy
from jobs.node_remedy import Settings
from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline, SystemClock
from opsd.cluster.nodeloss.facts import Thresholds
from opsd.cluster.nodeloss.vantage import Vantage
from opsd.cluster.remedy.nfsfence import OpenFleet
from opsd.cluster.remedy.rounds import Surroundings, no_machines
from opsd.cluster.remedy.settings import FenceTable
from opsd.model import Finding, Run
from opsd.runner import execute
from opsd.testing import context
from tests.cluster.watcher import NAMESPACE, QUICK, s
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import ApiError, Object
from tests.rig.workloads import service_account

RBAC = Path(__file__).parents[2] / "deploy/rbac/node-remedy.yaml"
ACCOUNT = "remedy"
USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
LOOK_S = 0.3  # between two runs of a test that waits
PLAN, PAST = "opsd.dev/remedy-plan", "opsd.dev/remedy-last"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"

PLUG = """#!/bin/sh
while IFS='=' read -r name value; do
  case $name in action) action=$value ;; esac
done
echo "$action" >> {log}
while [ -e {hold}.$action ]; do touch {hold}.reached; sleep 0.1; done
[ -e {broken} ] && {{ echo no route to plug >&2; exit 1; }}
case $action in
  on|off) echo "$action" > {state} ;;
  status) [ "$(cat {state})" = on ] || exit 2 ;;
esac
"""


class Plug:
    """A fence that keeps what it gives in a file."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._state, self._log = home / "state", home / "log"
        self._broken, self._hold = home / "broken", home / "hold"
        self._program = home / "plug"
        self._program.write_text(
            PLUG.format(state=self._state, log=self._log, broken=self._broken, hold=self._hold)
        )
        self._program.chmod(0o755)
        self._state.write_text("on\n")
        self._log.write_text("")

    def table(self, **changes: object) -> FenceTable:
        """As it is configured."""
        values = {"name": "plug", "nodes": ("*",), "command": (str(self._program),)}
        return FenceTable.model_validate(values | changes)

    def turn(self, word: str) -> None:
        """By hand."""
        self._state.write_text(f"{word}\n")

    def fail(self, *, fails: bool = True) -> None:
        """Have every call fail, or none."""
        self._broken.touch() if fails else self._broken.unlink()

    @property
    def is_on(self) -> bool:
        """Whether it gives power."""
        return self._state.read_text().strip() == "on"

    @property
    def calls(self) -> list[str]:
        """The actions that it was called with."""
        return self._log.read_text().split()


@dataclass(kw_only=True)
class Remedier:
    """opsd with one memory, which runs the job when a test wants it to."""

    control_plane: ControlPlane
    scratch: Path
    settings: Settings
    leads: Callable[[], bool] = lambda: True
    thresholds: Thresholds = QUICK
    dry_run: bool = False
    vantages: Sequence[Vantage] = ()
    open_fleet: OpenFleet = no_machines
    runs: list[Run] = field(default_factory=list)
    _kubeconfig: Path | None = None

    def run(self) -> Run:
        """Run the job once."""
        clock = SystemClock()
        transport = Transport(lambda: find_cluster(kubeconfig=self.kubeconfig))
        ctx = context(
            scratch=self.scratch,
            clock=clock,
            job="node-remedy",
            slot=datetime.now(UTC).replace(microsecond=0),
            timeout=s(120),
            dry_run=self.dry_run,
            kube=Kube(transport, deadline=Deadline.after(120, clock)),
        )
        around = Surroundings(
            thresholds=self.thresholds,
            leads=self.leads,
            vantages=self.vantages,
            open_fleet=self.open_fleet,
        )
        job = replace(node_remedy.JOB, run=lambda ctx, own: node_remedy.remedy(ctx, own, around))
        with contextlib.closing(transport):
            self.runs.append(execute(job, self.settings, ctx))
        return self.runs[-1]

    def until(self, is_so: Callable[[Run], object], *, within_s: float = 60.0) -> Run:
        """Run it until what it found is as a test wants it."""
        give_up_at = time.monotonic() + within_s
        while not is_so(run := self.run()):
            assert time.monotonic() < give_up_at, f"not so in {within_s:.0f} s: {run}"
            time.sleep(LOOK_S)
        return run

    @property
    def kubeconfig(self) -> Path:
        """As an account with exactly the rights of deploy/rbac/node-remedy.yaml."""
        if self._kubeconfig is None:
            grant(self.control_plane)
            self._kubeconfig = self.control_plane.kubeconfig_of(NAMESPACE, ACCOUNT)
        return self._kubeconfig

    def writes(self, since: int) -> list[str]:
        """Its calls that change something, or that it may not make, in their order."""
        return [
            str(call)
            for call in self.control_plane.audit.calls(user=USER, since=since)
            if call.verb not in {"get", "list", "watch"} or call.code == 403
        ]


def grant(control_plane: ControlPlane) -> None:
    """Make the account and give it its rights; no harm when it has them."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    rules = [_for_account(item) for item in yaml.safe_load_all(RBAC.read_text())]
    for item in (namespace, service_account(NAMESPACE, ACCOUNT), *rules):
        with contextlib.suppress(ApiError):  # it is there already
            control_plane.api.create(item)


def _for_account(item: Object) -> Object:
    for subject in item.get("subjects", ()):
        subject["name"] = ACCOUNT
    return item


def finding(run: Run, check: str, node: str) -> Finding | None:
    """What a run found about a node."""
    found = (one for one in run.findings if one.key == (check, f"remedy/{node}"))
    return next(found, None)


def refusal(run: Run, node: str) -> set[str]:
    """The reasons for which a run did nothing about a node."""
    found = finding(run, "remedy.refused", node)
    return set(found.facts) - {"kind"} if found else set()


def phase(node: Object) -> str:
    """How far it got, by what stands on the node; empty when nothing is under way."""
    plan = node["metadata"].get("annotations", {}).get(PLAN, "{}")
    found: str = yaml.safe_load(plan).get("phase", "")
    return found


def taints(node: Object) -> Iterator[tuple[str, str, str]]:
    """Key, value, effect."""
    for one in node["spec"].get("taints", ()):
        yield one["key"], one.get("value", ""), one["effect"]
