"""Nodes, the leases by which they show that they live, and what was noted about objects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

from opsd.clients.kube.objects.base import Condition, Object, Reference, Resource, Struct


class Taint(Struct):
    """Why pods should not come to a node, or should leave it."""

    key: str = ""
    value: str = ""
    effect: str = ""  #: NoSchedule, PreferNoSchedule, NoExecute
    time_added: datetime | None = None


class NodeSpec(Struct):
    """What was decided about the node."""

    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False  #: cordoned
    provider_id: str = ""
    pod_cidr: str = ""


class NodeAddress(Struct):
    """One of its addresses."""

    type: str = ""  #: InternalIP, Hostname, ExternalIP
    address: str = ""


class NodeInfo(Struct):
    """What the machine is."""

    boot_id: str = ""  #: another one after each boot
    machine_id: str = ""
    kubelet_version: str = ""
    kernel_version: str = ""
    os_image: str = ""
    architecture: str = ""
    container_runtime_version: str = ""


class NodeStatus(Struct):
    """What the kubelet last said; conditions turn Unknown when it falls silent."""

    conditions: tuple[Condition, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()
    node_info: NodeInfo = NodeInfo()
    capacity: Mapping[str, str] = {}
    allocatable: Mapping[str, str] = {}


class Node(Object):
    """A machine of the cluster."""

    resource: ClassVar[Resource] = Resource("v1", "nodes", "Node", namespaced=False)

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class LeaseSpec(Struct):
    """Who holds it; times are of the holder's clock, which may be wrong by years."""

    holder_identity: str = ""
    lease_duration_seconds: int = 0
    lease_transitions: int = 0
    acquire_time: datetime | None = None
    renew_time: datetime | None = None


class Lease(Object):
    """A node's sign of life (in ``kube-node-lease``), or the right to lead."""

    resource: ClassVar[Resource] = Resource("coordination.k8s.io/v1", "leases", "Lease")

    spec: LeaseSpec = LeaseSpec()


class NamespaceStatus(Struct):
    """Whether it is being deleted."""

    phase: str = ""  #: Active, Terminating
    conditions: tuple[Condition, ...] = ()


class Namespace(Object):
    """A namespace."""

    resource: ClassVar[Resource] = Resource("v1", "namespaces", "Namespace", namespaced=False)

    status: NamespaceStatus = NamespaceStatus()


class EventSource(Struct):
    """Who noted it."""

    component: str = ""
    host: str = ""


class EventSeries(Struct):
    """How often it came again."""

    count: int = 0
    last_observed_time: datetime | None = None


class Event(Object):
    """Something that was noted about an object; forgotten after an hour."""

    resource: ClassVar[Resource] = Resource("v1", "events", "Event")

    involved_object: Reference = Reference()
    type: str = ""  #: Normal, Warning
    reason: str = ""
    message: str = ""
    count: int = 0
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
    series: EventSeries | None = None
    source: EventSource = EventSource()
    reporting_component: str = ""
