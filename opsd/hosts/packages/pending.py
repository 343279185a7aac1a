"""What waits to be installed on a machine, and what keeps it waiting."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

#: Upgraded with the cluster and not with the system, so they are held on purpose.
KUBERNETES = frozenset({"kubeadm", "kubelet", "kubectl", "cri-tools", "kubernetes-cni"})


class Standing(enum.StrEnum):
    """What would become of an update when somebody upgraded now."""

    READY = "ready"
    NEW = "new"  #: is not installed yet: another one needs it
    HELD = "held"  #: somebody said that it stays
    KEPT = "kept"  #: needs something removed, or cannot be installed at all
    PHASED = "phased"  #: its distribution hands it out bit by bit


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One package of which a newer version is known."""

    name: str
    installed: str = ""
    candidate: str = ""
    standing: Standing = Standing.READY
    is_security: bool = False

    @property
    def is_kubernetes(self) -> bool:
        """Whether it is upgraded with the cluster."""
        return self.name in KUBERNETES


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """All of them on one machine."""

    updates: tuple[Update, ...] = ()
    #: Names of security advisories, where these do not say which packages they are about.
    advisories: tuple[str, ...] = ()
    knows_security: bool = True  #: false: nothing says which of them are security fixes

    def count(self, *standings: Standing) -> int:
        """How many of the system's own stand so; those of Kubernetes are counted apart."""
        return sum(one.standing in standings for one in self.system)

    @property
    def system(self) -> tuple[Update, ...]:
        """Without those of Kubernetes."""
        return tuple(one for one in self.updates if not one.is_kubernetes)

    @property
    def kubernetes(self) -> tuple[Update, ...]:
        """Those of Kubernetes."""
        return tuple(one for one in self.updates if one.is_kubernetes)

    @property
    def security(self) -> tuple[Update, ...]:
        """The system's own security fixes, those that are held back too."""
        return tuple(one for one in self.system if one.is_security)


def names(updates: Iterable[Update], *, limit: int) -> str:
    """``libssl3, sudo and 5 more``."""
    every = [update.name for update in updates]
    shown = ", ".join(every[:limit])
    return f"{shown} and {len(every) - limit} more" if len(every) > limit else shown
