"""What was seen of a cluster: the values from which it is told why a pod hangs. Pure.

Ages of leases and of conditions are counted on our own clock since we saw a change: the nodes'
clocks may be years off. Times of objects are the API server's, and are only compared with what
the API server says the time is.

Limits: only the fields that a verdict needs.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"  # status of a condition
STOPPED_POSTING = "NodeStatusUnknown"  # the controller manager's reason for a silent node
NEVER = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """After how long something means something. The defaults fit Kubernetes' own."""

    hold: timedelta = timedelta(seconds=90)  #: after our start, or an error of the API server
    leader_silent: timedelta = timedelta(seconds=30)  #: a controller manager renews every 2 s
    most_silent: float = 0.5  #: share of silent nodes beyond which no single one is blamed
    lease_silent: timedelta = timedelta(seconds=50)  #: as the controller manager waits
    suspect: timedelta = timedelta(seconds=20)  #: two renewals were missed
    slack: timedelta = timedelta(seconds=30)  #: past a pod's grace period
    collected: timedelta = timedelta(seconds=120)  #: for the pod garbage collector
    recovering: timedelta = timedelta(seconds=120)  #: for a node that came back
    seen_lately: timedelta = timedelta(seconds=90)  #: what is older says nothing about now
    patience: timedelta = timedelta(minutes=5)  #: for a node that may be about to come back


STANDARD = Thresholds()


class Running(enum.Enum):
    """State of a container as the kubelet last reported it."""

    WAITING = "waiting"
    RUNNING = "running"
    TERMINATED = "terminated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod, most of all one that is being deleted."""

    namespace: str
    name: str
    uid: str
    node: str = ""  #: empty: not scheduled
    delete_at: datetime | None = None  #: its grace period ends then; None: nobody deletes it
    grace_s: int | None = None
    finalizers: tuple[str, ...] = ()
    bound_at: datetime | None = None  #: to its node, on the control plane's clock
    phase: str = ""
    containers: tuple[Running, ...] = ()
    has_run: bool = False  #: a container of it ran before
    waits_for: str = ""  #: the reason that a waiting container gives
    disruption: str = ""  #: reason of its condition DisruptionTarget
    owner: str = ""  #: ``StatefulSet/pg``; empty for a bare pod
    is_static: bool = False
    #: How long it stays on a lost node before it is deleted; None: for ever, as a DaemonSet's.
    tolerates_s: int | None = 300
    claims: tuple[str, ...] = ()  #: names of its volume claims
    is_postgres: bool = False  #: a PostgreSQL server runs in it

    @property
    def place(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def kind(self) -> str:
        """Of its owner; empty for a bare pod."""
        return self.owner.partition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node and its lease."""

    name: str
    uid: str
    created_at: datetime
    ready: str = TRUE  #: status of the condition Ready; empty when there is none
    reason: str = ""
    message: str = ""
    ready_since: datetime | None = None  #: as the API says; for people only
    same_for: timedelta = NEVER  #: `ready` has been as it is, by our clock
    lease_silent: timedelta = NEVER  #: since its lease was seen to change, by our clock
    unschedulable: bool = False
    conditions: frozenset[str] = frozenset()  #: those that are true
    taints: tuple[str, ...] = ()  #: keys
    boot_id: str = ""  #: that it last reported
    machine_id: str = ""  #: that it last reported; machines of one image may share it
    address: str = ""
    is_control_plane: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """How far the API's word about nodes can be believed."""

    watched_for: timedelta  #: we have looked without a long gap
    error: str = ""  #: the last error of the API server
    error_age: timedelta | None = None  #: since that; None: there was none
    leader: str = ""  #: which controller manager leads
    leader_silent: timedelta | None = None  #: by our clock; None: it holds no election
    nodes: int = 0  #: that have a lease
    silent: tuple[str, ...] = ()  #: names of those whose lease is silent


class Means(enum.StrEnum):
    """How somebody looked at a node without asking the API server."""

    SSH = "ssh"
    TCP = "tcp"
    PING = "ping"
    ARP = "arp"
    NFS = "nfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one look at a node from one place came to."""

    vantage: str  #: from where: ``opsd``, or the name of a machine
    means: Means
    alive: bool
    age: timedelta = NEVER
    detail: str = ""  #: ``port 22 open``, ``no answer in 2 s``


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside(Sighting):
    """A look from within the node, which proves what runs there."""

    boot_id: str = ""
    kubelet: str = ""  #: state of its unit: ``active``, ``failed``
    #: UIDs of pods with a running container; None: it could not be told.
    running: frozenset[str] | None = None
