"""Everything that counts for the decision about one node, seen at one moment. Values only."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from opsd.cluster.nodeloss.facts import Node
from opsd.cluster.nodeloss.verdict import Kind, Verdict
from opsd.cluster.remedy.proof import Proof, shown_by
from opsd.cluster.remedy.record import Moved, Record


class Standing(enum.Enum):
    """What a node is to the cluster, as far as it matters here."""

    LOST = "lost"
    BACK = "back"  #: ready, or was a moment ago and speaks again
    BETWEEN = "between"  #: it speaks and is not ready, or nobody can tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Where it stops; see the keys of the configuration that have these names."""

    patience: timedelta = timedelta(minutes=5)
    max_lost: int = 1
    max_lost_percent: int = 34
    cool_down: timedelta = timedelta(minutes=10)
    again_after: timedelta = timedelta(hours=6)
    healthy_for: timedelta = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The fence that fits the node."""

    name: str
    gives: Proof  #: `Proof.POWER_OFF` or `Proof.STORAGE_CUT`
    turn_on: bool = False
    server: str = ""  #: the file server that it keeps it from; empty: it keeps it from all


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The nodes that are not of the control plane, by their names."""

    count: int
    lost: tuple[str, ...] = ()
    back_lately: tuple[str, ...] = ()  #: were seen to come back within the cool-down
    in_remedy: tuple[str, ...] = ()  #: something is under way there


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is bound to the node."""

    pods: tuple[Moved, ...] = ()  #: of StatefulSets that are allowed to be moved
    bystanders: tuple[str, ...] = ()  #: others that the taint would start anew elsewhere
    denied: tuple[str, ...] = ()  #: whose owner forbids to move them
    #: Which of `pods` write to what the fence does not cut, and where: ``db/pg-0 to ...``.
    uncut: tuple[str, ...] = ()
    homeless: tuple[str, ...] = ()  #: of `pods`: no other node can take them
    last_replicas: tuple[str, ...] = ()  #: StatefulSets that run nowhere else
    ending: tuple[str, ...] = ()  #: all that are being deleted
    attached: tuple[str, ...] = ()  #: volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One node, at one moment."""

    now: datetime  #: by the API server's clock
    node: Node
    verdict: Verdict | None  #: None: it is well
    degraded: Verdict | None = None  #: why the API server's word counts nothing now
    record: Record = field(default_factory=Record)
    confirmed_by: str = ""  #: who says that it is off, if that holds still
    fence: Fence | None = None
    held: Held = field(default_factory=Held)
    workers: Workers
    old_left: tuple[Moved, ...] = ()  #: pods of the plan that are still there
    not_running: tuple[str, ...] = ()  #: whose successors do not run yet, and why
    protected: str = ""  #: why nothing is ever done to it
    excluded: bool = False  #: it is labelled so
    foreign_taint: bool = False  #: somebody else took it out of service
    maintenance: str = ""  #: who works on the nodes
    leads: bool = True  #: this opsd may act, and no other

    @property
    def kind(self) -> Kind | None:
        """How it is lost; None when it is not."""
        lost = self.verdict is not None and self.verdict.kind.is_lost
        return self.verdict.kind if self.verdict and lost else None

    @property
    def standing(self) -> Standing:
        """Whether it is lost, or back."""
        if self.kind is not None:
            return Standing.LOST
        if self.verdict is None or self.verdict.kind is Kind.RECOVERING:
            return Standing.BACK
        return Standing.BETWEEN

    @property
    def at_hand(self) -> Proof:
        """The best proof that is there, or that the fence would give."""
        if self.kind is None:
            return Proof.API_SILENCE
        offers = [shown_by(self.kind)]
        offers += [Proof.PERSON] if self.confirmed_by else []
        offers += [self.fence.gives] if self.fence else []
        fitting = [proof for proof in offers if proof.suffices(self.kind)]
        without_fence = [proof for proof in fitting if not self.fence or proof != self.fence.gives]
        return max(without_fence or fitting or offers[:1])

    @property
    def rebooted(self) -> bool:
        """Whether it is another boot than the one whose pods were taken away."""
        before = self.record.plan.boot_id if self.record.plan else ""
        return bool(before and self.node.boot_id) and before != self.node.boot_id
