"""Would the next release still start with the feature gates that are set here?

A gate that was removed, or that is locked to the other value, ends the API server, the kubelet
or kube-proxy at its start. Which those are is in gates.toml, by release.

Limits: a release after the newest of the table is judged by the newest; `newest` says which.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import resources

from opsd.upgrade.version import Minor


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """The table: of each gate the first release in which it is so."""

    asof: date
    newest: Minor
    removed: Mapping[str, Minor]
    locked: Mapping[str, tuple[Minor, bool]]  #: and the value that it cannot leave
    removed_from_kubeadm: Mapping[str, Minor]

    def refusal(self, gate: str, *, value: bool, target: Minor) -> str:
        """Why `target` does not start with this gate set so; empty: nothing is against it."""
        gone = self.removed.get(gate)
        if gone and gone <= target:
            return f"removed in {gone}"
        since, only = self.locked.get(gate, (None, value))
        if since and since <= target and value != only:
            return f"locked to {str(only).lower()} since {since}"
        return ""

    def kubeadm_refusal(self, gate: str, *, target: Minor) -> str:
        """The same of ``featureGates`` in the ClusterConfiguration."""
        gone = self.removed_from_kubeadm.get(gate)
        return f"removed from kubeadm in {gone}" if gone and gone <= target else ""


@functools.cache
def table() -> Gates:
    """The table that comes with this version of opsd."""
    return parse((resources.files("opsd.upgrade") / "gates.toml").read_text("utf-8"))


def parse(text: str) -> Gates:
    """Read a table.

    Raises:
        ValueError, KeyError, TypeError: it is not one.
    """
    content = tomllib.loads(text)
    asof: date = content.pop("asof")
    rows = {Minor.parse(release): row for release, row in content.items()}
    return Gates(
        asof=asof,
        newest=max(rows),
        removed={gate: minor for minor, row in rows.items() for gate in row["removed"]},
        locked={
            gate: (minor, value)
            for minor, row in rows.items()
            for gate, value in row.get("locked_to", {}).items()
        },
        removed_from_kubeadm={
            gate: minor for minor, row in rows.items() for gate in row["removed_from_kubeadm"]
        },
    )
