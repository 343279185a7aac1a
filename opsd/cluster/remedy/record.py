"""What is written on a node while something is done about it, so that a crash forgets nothing.

All of it is annotations of the Node object: whoever runs next, here or on another machine,
goes on from there, and people see it with kubectl. Times are the API server's.

Limits: a Node object that is deleted takes its record along; the taint goes with it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec

from opsd.clients.kube.objects import Node
from opsd.cluster.remedy.proof import Proof

PLAN = "opsd.dev/remedy-plan"  # what is under way
PAST = "opsd.dev/remedy-last"  # when something was last under way
CONFIRMED = "opsd.dev/fence-confirmed"  # a person says that the node is off
LIFT = "opsd.dev/fence-lift"  # a person wants it back

T = TypeVar("T")


class Phase(enum.StrEnum):
    """How far it got. Written before what it announces is done."""

    FENCING = "fencing"  #: the fence may have been called, or not
    FENCED = "fenced"  #: it is proven that nothing runs there
    MOVING = "moving"  #: the taint is set, or pods are being deleted
    MOVED = "moved"  #: the old pods are gone
    LIFTING = "lifting"  #: the fence may have been lifted, or not
    LIFTED = "lifted"


class Means(enum.StrEnum):
    """How the pods are taken away."""

    TAINT = "taint"  #: out-of-service: Kubernetes removes all, and only while it is not ready
    DELETE = "delete"  #: those that are allowed, one by one: others on the node are not


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A pod that is taken from the node, as it was."""

    namespace: str
    name: str
    uid: str

    @property
    def place(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is under way on one node."""

    phase: Phase
    run_id: str  #: of the run that began it
    began_at: datetime  #: aware UTC
    boot_id: str  #: that the node last reported before
    kind: str  #: of loss, when it began
    fence: str = ""  #: name of the configured fence; empty when none is needed
    proof: Proof = Proof.API_SILENCE
    means: Means = Means.TAINT
    pods: tuple[Moved, ...] = ()
    tries: int = 0  #: of the fence
    by: str = ""  #: who confirmed that it is off


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What was last done."""

    ended_at: datetime  #: aware UTC
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Somebody says that the node is off, and stays so for a while."""

    by: str
    reason: str
    at: datetime  #: aware UTC
    until: datetime  #: aware UTC
    node_uid: str
    boot_id: str  #: a node with another one was on since
    lease: str  #: version of its lease: a node that renewed it was on since

    def holds(self, *, node: Node, lease: str, now: datetime) -> bool:
        """Whether it is still about this loss of this node."""
        seen = (node.uid, node.status.node_info.boot_id, lease)
        return self.at <= now < self.until and seen == (self.node_uid, self.boot_id, self.lease)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftWish:
    """Somebody wants the fence lifted, whatever opsd can prove."""

    by: str
    reason: str
    at: datetime  #: aware UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything that stands on a node."""

    plan: Plan | None = None
    past: Past | None = None
    confirmation: Confirmation | None = None
    lift: LiftWish | None = None
    unreadable: tuple[str, ...] = ()  #: annotations that somebody else changed


def read(node: Node) -> Record:
    """What stands on a node; what cannot be read is named, never ignored."""
    broken: list[str] = []

    def found(key: str, decoder: msgspec.json.Decoder[T]) -> T | None:
        if key not in node.annotations:
            return None
        try:
            return decoder.decode(node.annotations[key])
        except msgspec.MsgspecError:
            broken.append(key)
            return None

    return Record(
        plan=found(PLAN, _PLANS),
        past=found(PAST, _PASTS),
        confirmation=found(CONFIRMED, _CONFIRMATIONS),
        lift=found(LIFT, _WISHES),
        unreadable=tuple(broken),
    )


def written(value: Plan | Past | Confirmation | LiftWish) -> str:
    """As `read` takes it."""
    return msgspec.json.encode(value).decode()


# Made here, by one thread: when two are the first to read a type, msgspec 0.22 crashes.
_PLANS = msgspec.json.Decoder(Plan)
_PASTS = msgspec.json.Decoder(Past)
_CONFIRMATIONS = msgspec.json.Decoder(Confirmation)
_WISHES = msgspec.json.Decoder(LiftWish)
