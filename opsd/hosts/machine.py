"""The machines that opsd can log in to: nodes of the cluster, the file server, the router."""

from __future__ import annotations

import enum
from dataclasses import dataclass

SSH_PORT = 22


class Role(enum.StrEnum):
    """What a machine does for the cluster."""

    NODE = "node"
    CONTROL_PLANE = "control-plane"  #: besides `NODE`
    NFS_SERVER = "nfs-server"
    ROUTER = "router"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine and how it is reached."""

    name: str  #: of its node in the cluster, or as configured
    address: str
    port: int = SSH_PORT
    user: str = ""  #: who logs in there; empty: as `[ssh]` says
    roles: frozenset[Role] = frozenset()
    jump: str = ""  #: name of the machine through which it is reached; empty: directly

    @property
    def subject(self) -> str:
        """Of findings about it."""
        return f"machine/{self.name}"

    @property
    def node_subject(self) -> str:
        """Of what the cluster says about it: the cause of what cannot be read from it."""
        return f"node/{self.name}" if Role.NODE in self.roles else ""
