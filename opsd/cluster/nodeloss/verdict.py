"""What a hanging pod or a lost node is a case of, what shows it, what may be done. Values only."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from opsd.model import Fact


class Kind(enum.StrEnum):
    """Why a pod is still there, or what became of its node."""

    CONTROL_PLANE_DEGRADED = "control_plane_degraded"  #: nobody can be blamed now
    STATIC = "static"  #: no pod of the API server's
    UNSCHEDULED = "unscheduled"
    GRACEFUL = "graceful"  #: it has time left
    FINALIZER = "finalizer"  #: a controller holds the object; no node can help that
    NODE_GONE = "node_gone"  #: its Node object was removed
    NODE_RECREATED = "node_recreated"  #: under the same name after the pod was bound
    REBOOTED_NOT_BACK = "rebooted_not_back"  #: the old containers are dead; no kubelet yet
    PARTITIONED_RUNNING = "partitioned_running"  #: the containers run on
    KUBELET_DEAD = "kubelet_dead"  #: the machine lives, the containers do not
    PARTITIONED_UNKNOWN = "partitioned_unknown"  #: the machine lives; who knows what runs
    SILENT = "silent"  #: nothing was heard; nothing is proven
    NODE_SHUTTING_DOWN = "node_shutting_down"
    NODE_SICK = "node_sick"  #: the kubelet reports that it is not ready
    NODE_UNCLEAR = "node_unclear"  #: the API and the lease contradict each other
    RECOVERING = "recovering"
    KILL_HUNG = "kill_hung"  #: a container does not end
    TEARDOWN_HUNG = "teardown_hung"  #: containers ended; volumes are not taken off
    MOUNT_HUNG = "mount_hung"  #: it never started

    @property
    def is_lost(self) -> bool:
        """Whether the node is lost to the cluster."""
        return self in _LOST


_LOST = frozenset(
    {
        Kind.REBOOTED_NOT_BACK,
        Kind.PARTITIONED_RUNNING,
        Kind.KUBELET_DEAD,
        Kind.PARTITIONED_UNKNOWN,
        Kind.SILENT,
    }
)


class Advice(enum.StrEnum):
    """What a person, or opsd where it is allowed to act, may do."""

    IGNORE = "ignore"
    INHIBIT = "inhibit"  #: touch nothing: what the API says may be old
    WAIT = "wait"
    LOOK = "look"  #: find and mend the cause; deleting the pod mends nothing
    KEEP = "keep"  #: never delete: its containers run, or may
    FENCE = "fence"  #: delete only after the node is proven to be cut off or dead
    ELIGIBLE = "eligible"  #: its containers are proven to be dead

    @property
    def allows_deletion(self) -> bool:
        """Whether the pod may be deleted by force without anything else."""
        return self is Advice.ELIGIBLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What it is, and what shows it."""

    kind: Kind
    advice: Advice
    evidence: Mapping[str, Fact] = field(default_factory=dict)  #: units in the keys
    during: str = ""  #: ``drain`` when the node is being emptied on purpose
