"""The tables of the configuration that belong to opsd itself, and not to one job."""

from __future__ import annotations

import ipaddress
import re
import zoneinfo
from datetime import UTC, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from opsd.config import (
    AbsolutePath,
    AlertTarget,
    Duration,
    SecretRef,
    Table,
    absolute,
    unique_names,
)
from opsd.cron import parse

_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")

EVERYWHERE = "0.0.0.0"  # noqa: S104 - only where somebody asks for it
HIGHEST_PORT = 65535

PingKind = Literal["healthchecks", "uptime-kuma", "plain"]


def _check_timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise PydanticCustomError("unknown_timezone", "unknown", {"name": value}) from None
    return value


def check_schedule(value: str) -> str:
    """A cron expression that has a next time."""
    parse(value, timezone=UTC, spread_by="")
    return value


def _check_hours(value: str) -> str:
    if value and not _HOURS.fullmatch(value):
        raise ValueError('expected a time of day in two parts, such as "22:00-07:00", or ""')
    return value


def _check_schedule_or_none(value: str) -> str:
    return value and check_schedule(value)


Schedule = Annotated[str, AfterValidator(check_schedule)]
Patterns = tuple[Annotated[str, Field(min_length=1)], ...]


class OpsdTable(Table):
    """What concerns opsd as a whole."""

    state_dir: AbsolutePath = Field(
        default=Path("/var/lib/opsd"),
        description="run history, open findings, leases, scratch space; a local disk, never NFS",
    )
    timezone: Annotated[str, AfterValidator(_check_timezone)] = Field(
        default="UTC",
        description="in which schedules and the days of retention are meant",
        examples=["Europe/Berlin"],
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="how much is written to stderr"
    )


def _absolute_or_none(value: str) -> str:
    return value and str(absolute(Path(value)))


class KubernetesTable(Table):
    """The cluster that jobs look after; without this table it is found."""

    kubeconfig: Annotated[str, AfterValidator(_absolute_or_none)] = Field(
        default="",
        description="a file; empty: the cluster that opsd is in, or KUBECONFIG or ~/.kube/config",
        examples=["/etc/opsd/kubeconfig"],
    )
    context: str = Field(default="", description="a context of that file; empty: its current one")


class SshTable(Table):
    """How opsd logs in to machines; without this table it never does."""

    user: str = Field(default="opsd", min_length=1, description="who logs in, by a key only")
    key: SecretRef = Field(
        description="a private key of OpenSSH (ed25519)", examples=["file:/etc/opsd/ssh_key"]
    )
    passphrase: SecretRef | None = Field(
        default=None, description="of the key, if it has one", examples=["env:OPSD_SSH_PASSPHRASE"]
    )
    known_hosts: Annotated[str, AfterValidator(_absolute_or_none)] = Field(
        default="",
        description="keys of machines, written by opsd nodes trust; empty: in opsd.state_dir",
        examples=["/etc/opsd/known_hosts"],
    )
    known_hosts_configmap: str = Field(
        default="",
        pattern=r"^([a-z0-9]([a-z0-9-]*)/[a-z0-9]([a-z0-9.-]*))?$",
        description="a ConfigMap with more of them, NAMESPACE/NAME; only read",
        examples=["opsd/known-hosts"],
    )
    jump: str = Field(
        default="",
        description="name of the machine through which all others are reached; empty: directly",
        examples=["router"],
    )
    connect_timeout: Duration = Field(
        default=timedelta(seconds=10), description="until a machine has let opsd in"
    )
    at_once: int = Field(default=8, ge=1, le=64, description="machines visited at the same time")
    nodes: bool = Field(
        default=True, description="false: not to the nodes of the cluster, only to [[machines]]"
    )
    exclude: Patterns = Field(
        default=(),
        description="names or patterns of nodes to which opsd never logs in",
        examples=[["virtual-*"]],
    )


class MachineTable(Table):
    """A machine that is no node of the cluster, or how a node is reached if not as the others."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="for you; of a node: its name in the cluster",
        examples=["nas"],
    )
    address: str | None = Field(
        default=None,
        min_length=1,
        description="without: the node's InternalIP, or the name",
        examples=["10.0.0.2"],
    )
    port: int = Field(default=22, ge=1, le=65535, description="of sshd")
    user: str | None = Field(
        default=None, min_length=1, description="without: as [ssh] says", examples=["admin"]
    )
    roles: tuple[Literal["nfs-server", "router", "control-plane"], ...] = Field(
        default=(), description="what it does for the cluster", examples=[["nfs-server"]]
    )
    jump: str | None = Field(
        default=None, description='without: as [ssh] says; "": directly', examples=["router"]
    )


class RouteTable(Table):
    """Where the messages about some findings go."""

    checks: Patterns = Field(default=("*",), description="names or patterns of checks")
    subjects: Patterns = Field(
        default=("*",),
        description="names or patterns of what it is about",
        examples=[["node/*"]],
    )
    min_severity: Literal["warning", "critical"] = Field(
        default="warning", description="only what is at least this severe"
    )
    to: Patterns = Field(
        min_length=1, description="tags or names of targets", examples=[["night"]]
    )


class AlertsTable(Table):
    """When and where messages go."""

    targets: Annotated[tuple[AlertTarget, ...], AfterValidator(unique_names)] = Field(
        default=(), description="services and phones; none: findings are only kept and shown"
    )
    quiet_hours: Annotated[str, AfterValidator(_check_hours)] = Field(
        default="22:00-07:00",
        description='only what is critical is sent; the rest comes in one message after; "": none',
    )
    remind_critical: Duration = Field(
        default=timedelta(hours=4),
        description="tell again what is critical and not acknowledged; 0s: never",
    )
    remind_warning: Duration = Field(
        default=timedelta(days=1), description="likewise for warnings; 0s: never"
    )
    escalate_after: Duration = Field(
        default=timedelta(minutes=30),
        description="tell escalate_to what is critical and was not acknowledged by then",
    )
    escalate_to: Patterns = Field(
        default=(), description="tags or names of targets; none: nobody else is told"
    )
    max_per_hour: int = Field(
        default=12,
        ge=1,
        description="more messages than this become one; the first of its severity always goes",
    )
    report: Annotated[str, AfterValidator(_check_schedule_or_none)] = Field(
        default="0 8 * * 1",
        description='cron expression: when you are told that all is well, or is not; "": never',
    )
    routes: tuple[RouteTable, ...] = Field(
        default=(), description="the first that fits decides; none fits: all targets"
    )


class HeartbeatTable(Table):
    """A service outside of the cluster that raises the alarm when opsd falls silent."""

    url: SecretRef = Field(
        description="what to call while all is well", examples=["env:OPSD_HEARTBEAT_URL"]
    )
    kind: PingKind = Field(default="healthchecks", description="what the service understands")
    every: Duration = Field(default=timedelta(minutes=5), description="how often it is called")


def listen_address(value: str) -> tuple[str, int]:
    """``127.0.0.1:8080``, ``[::]:8080`` or ``:8080`` (everywhere) as address and port.

    Raises:
        ValueError: it is none of these.
    """
    host, colon, port = value.rpartition(":")
    address = host.removeprefix("[").removesuffix("]") or EVERYWHERE
    is_port = bool(colon) and port.isdecimal() and 0 < int(port) <= HIGHEST_PORT
    if not is_port or not _is_address(address):
        raise ValueError('expected an address and a port, such as "127.0.0.1:8080"')
    return address, int(port)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_listen(value: str) -> str:
    if value:
        listen_address(value)
    return value


class HttpTable(Table):
    """What is shown over HTTP, to everybody who reaches it: a page, health and figures."""

    listen: Annotated[str, AfterValidator(_check_listen)] = Field(
        default="",
        description="address and port; without an address on all; empty: nothing is shown",
        examples=["127.0.0.1:8080"],
    )
    hosts: Patterns = Field(
        default=(),
        description="names or patterns under which browsers may ask for the page; an address and "
        "localhost always may",
        examples=[["opsd.example.org"]],
    )


class MaintenanceTable(Table):
    """A time that comes again, in which work on the cluster is expected to disturb it."""

    name: str = Field(min_length=1, description="for you", examples=["updates"])
    schedule: Schedule = Field(
        description="cron expression: when it begins", examples=["0 4 * * 0"]
    )
    duration: Duration = Field(description="how long it lasts", examples=["2h"])
    jobs: Patterns = Field(
        default=("*",), description="names or patterns of jobs; not started meanwhile"
    )
    subjects: Patterns = Field(
        default=(), description="names or patterns of subjects; not told meanwhile"
    )


class JobTable(Table):
    """What every job has besides its own settings."""

    enabled: bool = Field(
        default=True,
        description="false: never due and left out of its group; its name still runs it",
    )
    schedule: str
    timeout: Duration
    catch_up: Duration | None = Field(
        default=None,
        description="later than this a run is not worth it any more; without: until the next",
        examples=["6h"],
    )
    jitter: Duration = Field(
        default=timedelta(0), description="start up to this much later, the same for each slot"
    )
    retries: int = Field(
        default=2,
        ge=0,
        le=10,
        description="tries after one that failed for what may pass, or was interrupted",
    )
    ping: SecretRef | None = Field(
        default=None,
        description="a URL to call when a run starts, completes and fails",
        examples=["env:OPSD_PING_URL"],
    )
    ping_kind: PingKind = Field(
        default="healthchecks", description="what the service behind ping understands"
    )
