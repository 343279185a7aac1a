"""One run of the remedy: look at everything, take each step that is due once, say what was done.

What has to be waited for, the next run sees. A fence that failed is left alone until then.

Limits: between two steps everything is read again, so a run makes some twenty small requests for
a node that is lost, and four when all is well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import structlog

from opsd.clients.kube.client import Kube
from opsd.clients.kube.objects import Node
from opsd.clock import Deadline
from opsd.cluster.nodeloss import keeping
from opsd.cluster.nodeloss.facts import STANDARD, Thresholds
from opsd.cluster.nodeloss.memory import MachineUptime, Uptime
from opsd.cluster.nodeloss.survey import Pace, Survey
from opsd.cluster.nodeloss.vantage import Vantage
from opsd.cluster.remedy import wording
from opsd.cluster.remedy.act import Hands, Overtaken, begun
from opsd.cluster.remedy.case import Rules
from opsd.cluster.remedy.decide import PAUSES, Step, next_step
from opsd.cluster.remedy.devices import fitting
from opsd.cluster.remedy.fences import FenceFailed
from opsd.cluster.remedy.gather import Gathering, Look
from opsd.cluster.remedy.nfsfence import OpenFleet
from opsd.cluster.remedy.proof import Proof
from opsd.cluster.remedy.record import Phase
from opsd.cluster.remedy.refusals import refusals
from opsd.cluster.remedy.settings import RemedySettings
from opsd.errors import ConfigError, TransientError
from opsd.hosts.fleet import Fleet
from opsd.model import Finding
from opsd.secrets import describe

log = structlog.get_logger()

LOOK_S = 20.0  # for one look, the API server's slow answers included
NEVER = timedelta(days=36500)  # all pods are of no interest here
STEADY_PACE = Pace(sweep=NEVER, sweep_again=NEVER)
_HELD = frozenset({Phase.FENCED, Phase.MOVING, Phase.MOVED})


def no_machines(_deadline: Deadline) -> Fleet:
    """Of surroundings without machines.

    Raises:
        ConfigError: always.
    """
    raise ConfigError("no machines are known here, so none can be logged in to")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a run looks with; tests on a faster cluster have others."""

    uptime: Uptime = field(default_factory=MachineUptime)
    thresholds: Thresholds = STANDARD
    vantages: Sequence[Vantage] = ()  #: from where lost nodes are looked at
    open_fleet: OpenFleet = no_machines
    #: Whether this opsd may act. The runner holds the lease of the job while it runs.
    leads: Callable[[], bool] = lambda: True


class Round:
    """One run."""

    def __init__(
        self,
        kube: Kube,
        settings: RemedySettings,
        *,
        place: Path,
        run_id: str,
        dry_run: bool,
        around: Surroundings,
    ) -> None:
        """Read what the run before saw.

        Args:
            kube: the cluster, until the run's deadline.
            settings: what is allowed.
            place: the file in which is kept what was seen.
            run_id: stands on the nodes.
            dry_run: say what would be done; change nothing in the cluster.
            around: what it looks with.
        """
        self._kube, self._settings, self._around = kube, settings, around
        self._run_id, self._dry_run = run_id, dry_run
        self._survey = Survey(
            uptime=around.uptime,
            thresholds=around.thresholds,
            pace=STEADY_PACE,
            vantages=around.vantages,
        )
        self._place = place
        self._memory = keeping.read(place)
        self._rules = Rules(
            patience=settings.patience,
            max_lost=settings.max_lost,
            max_lost_percent=settings.max_lost_percent,
            cool_down=settings.cool_down,
            again_after=settings.again_after,
            healthy_for=settings.healthy_for,
        )
        self._failed: dict[str, str] = {}  # by node: what its fence said
        self._lost: set[str] = set()  # nodes whose fence was gone

    def findings(self) -> Iterator[Finding]:
        """What is told, after everything that is due now was done."""
        taken: set[tuple[str, Step]] = set()
        looks = self._looks()
        if self._dry_run:
            yield from self._rehearsed()
        elif sum(map(self._hold, looks)):  # all of them, not only the first
            looks = self._looks()
        while (due := self._due(looks, taken)) and not self._dry_run:
            look, step = due
            taken.add((look.seen.name, step))
            self._take(look, step)
            looks = self._looks()
        for look in looks:
            yield from self._told(look)

    def _due(self, looks: list[Look], taken: set[tuple[str, Step]]) -> tuple[Look, Step] | None:
        for look in looks:
            step, name = next_step(look.case, self._rules), look.seen.name
            is_new = (name, step) not in taken and name not in self._failed
            if step not in PAUSES and is_new:
                return look, step
        return None

    @property
    def _hands(self) -> Hands:
        return Hands(
            kube=self._kube,
            deadline=self._kube.deadline,
            run_id=self._run_id,
            leads=self._around.leads,
        )

    def _hold(self, look: Look) -> bool:
        """Set a fence again that its device lost; whether it had."""
        plan, name = look.case.record.plan, look.seen.name
        if plan is None or plan.proof is not Proof.STORAGE_CUT or plan.phase not in _HELD:
            return False
        if next_step(look.case, self._rules) is Step.LIFT:
            return False
        try:
            was_lost = self._hands.hold(look)
        except Overtaken as exc:
            log.info("step.overtaken", node=name, step="hold", reason=str(exc))
            return False
        except FenceFailed as exc:
            self._failed[name] = describe(exc)
            log.warning("fence.failed", node=name, step="hold", error=describe(exc))
            return False
        if was_lost:
            self._lost.add(name)
        return was_lost

    def _rehearsed(self) -> Iterator[Finding]:
        """Which fences would not work; they are only asked."""
        failed: dict[str, dict[str, str]] = {}
        asked: set[str] = set()  # file servers: one answer holds for all nodes
        for node in self._kube.list(Node):
            device = fitting(node, self._settings.fences, self._around.open_fleet)
            if device is None or device.fence.server in asked:
                continue
            asked |= {device.fence.server} - {""}
            try:
                device.rehearse(self._kube.deadline)
            except (FenceFailed, ConfigError) as exc:
                _, _, said = describe(exc).partition(": ")  # without the name of its class
                failed.setdefault(device.fence.name, {})[node.name] = said
        for fence, nodes in failed.items():
            yield wording.fence_unusable(fence, tuple(nodes), next(iter(nodes.values())))

    def _take(self, look: Look, step: Step) -> None:
        try:
            self._hands.take(step, look)
        except Overtaken as exc:
            log.info("step.overtaken", node=look.seen.name, step=step.value, reason=str(exc))
        except FenceFailed as exc:
            self._failed[look.seen.name] = describe(exc)
            log.warning("fence.failed", node=look.seen.name, step=step.value, error=describe(exc))

    def _told(self, look: Look) -> Iterator[Finding]:
        case, step = look.case, next_step(look.case, self._rules)
        plan = case.record.plan
        found = refusals(case, self._rules)
        if self._dry_run and step not in PAUSES:
            calls = wording.calls(case, look.seen, look.device, begun(look, self._run_id))
            yield wording.dry_run(case, step, tuple(calls) if plan is None else ())
        if plan is not None:
            yield from wording.under_way(case, plan, step)
        if plan is not None and look.seen.name in self._failed:
            yield wording.fence_failed(case, plan, self._failed[look.seen.name])
        if plan is not None and look.seen.name in self._lost:
            yield wording.fence_lost(case, plan)
        if step is Step.REFUSE:
            for one in found:
                log.info(
                    "step.refused",
                    node=look.seen.name,
                    reason=one.reason.value,
                    detail=one.detail,
                )
            yield wording.refused(case, found)

    def _looks(self) -> list[Look]:
        """Look at everything anew, and keep since when it has been so.

        Raises:
            TransientError, PermanentError, DeadlineExceeded: the API server did not answer.
        """
        memory = self._survey.begin(self._memory)
        try:
            kube = self._kube.until(Deadline.after(LOOK_S, self._kube.deadline.clock))
            memory, picture = self._survey.look(kube, memory, closely=True)
            gathering = Gathering(
                kube=kube,
                settings=self._settings,
                thresholds=self._around.thresholds,
                leads=self._around.leads(),
                open_fleet=self._around.open_fleet,
            )
            return list(gathering.looks(picture)) if picture else []
        except TransientError as exc:
            at_s = self._around.uptime.seconds()
            memory = replace(memory, error=describe(exc), error_s=at_s)
            raise
        finally:
            self._memory = memory
            keeping.write(self._place, memory)
