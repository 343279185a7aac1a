"""Which of the configured fences is for a node."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from opsd.clients.kube.objects import Node as KubeNode
from opsd.cluster.remedy.fences import Device, Program
from opsd.cluster.remedy.nfsfence import NfsFence, OpenFleet, addresses_of
from opsd.cluster.remedy.settings import FenceTable


def fitting(node: KubeNode, tables: Sequence[FenceTable], open_fleet: OpenFleet) -> Device | None:
    """The first fence whose patterns the node's name matches."""
    for table in tables:
        if any(fnmatchcase(node.name, pattern) for pattern in table.nodes):
            return _device(node, table, open_fleet)
    return None


def _device(node: KubeNode, table: FenceTable, open_fleet: OpenFleet) -> Device:
    if table.type == "program":
        return Program(table, node.name)
    return NfsFence(
        table=table,
        node=node.name,
        addresses=addresses_of(node, table),
        open_fleet=open_fleet,
    )
