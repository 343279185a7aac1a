"""How well is the etcd of this control-plane node, by what it says of itself?

kubeadm lets etcd say it on loopback without a certificate (``--listen-metrics-urls``), so no key
leaves the node.

Limits: one member's view; where kubeadm's address was changed, nothing is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from opsd.hosts.script import Probe

PORT = 2381  # kubeadm's
URL = f"http://127.0.0.1:{PORT}"

# Not every Debian has curl or wget; bash can do without. An alarm is told with status 503,
# whose text curl prints.
_GET = f"""\
if command -v curl >/dev/null; then curl -sS -m 4 {URL}$path
elif command -v bash >/dev/null; then bash -c '
exec 3<>/dev/tcp/127.0.0.1/{PORT} || exit 7
printf "GET %s HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n" "$0" >&3; cat <&3' $path
else wget -qO- -T 4 {URL}$path; fi"""
_WANTED = (
    "etcd_server_(version|has_leader|is_learner|quota_backend_bytes)"
    "|etcd_cluster_version"
    "|etcd_mvcc_db_total_size"
    "|etcd_network_active_peers|etcd_network_known_peers"
    "|etcd_disk_wal_fsync_duration_seconds_bucket"
)
HEALTH_PROBE = Probe(name="etcd-health", command=f"path=/health; {_GET}")
METRICS_PROBE = Probe(
    name="etcd-metrics", command=f"path=/metrics; {{ {_GET}\n}} | grep -E '^({_WANTED})'"
)

_SAMPLE = re.compile(r"(\w+)(?:\{([^}]*)\})?\s+([-+.\deEinfNa]+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_FEWEST_WRITES = 1000  # before their slowest hundredth says anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What etcd answers when it is asked whether it is well."""

    is_well: bool
    reason: str = ""  #: ``ALARM NOSPACE``, ``RAFT NO LEADER``


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What one member says of itself."""

    version: str  #: ``3.6.6``
    cluster_version: str  #: ``3.6``: what all members can do
    has_leader: bool
    is_learner: bool
    size_bytes: int  #: of the database file
    used_bytes: int  #: of it; the rest is freed by defragmentation
    quota_bytes: int  #: at which etcd takes no more writes
    known_peers: int  #: other members
    active_peers: int  #: that are connected
    slow_write_s: float | None  #: 99 of 100 writes to disk took less; None: too few were made


def read_health(text: str) -> Health:
    """The answer to `HEALTH_PROBE`.

    Raises:
        ValueError: it is none.
    """
    line = next((one for one in text.splitlines() if one.startswith("{")), "")
    try:
        answer = json.loads(line)
        return Health(is_well=answer["health"] == "true", reason=str(answer.get("reason", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ValueError("this is not what etcd says about its health") from exc


def read_metrics(text: str) -> Member:
    """The answer to `METRICS_PROBE`.

    Raises:
        ValueError: it is none, or lacks what every etcd says.
    """
    samples = tuple(_samples(text))
    numbers = {name: value for name, labels, value in samples if not labels}
    try:
        return Member(
            version=_label(samples, "etcd_server_version", "server_version"),
            cluster_version=_label(samples, "etcd_cluster_version", "cluster_version"),
            has_leader=numbers["etcd_server_has_leader"] > 0,
            is_learner=numbers.get("etcd_server_is_learner", 0) > 0,
            size_bytes=int(numbers["etcd_mvcc_db_total_size_in_bytes"]),
            used_bytes=int(numbers["etcd_mvcc_db_total_size_in_use_in_bytes"]),
            quota_bytes=int(numbers["etcd_server_quota_backend_bytes"]),
            known_peers=len(_peers(samples, "etcd_network_known_peers")),
            active_peers=len(_peers(samples, "etcd_network_active_peers")),
            slow_write_s=_slow_write_s(samples),
        )
    except KeyError as exc:
        raise ValueError(f"no {exc.args[0]} among what etcd says of itself") from exc


_Sample = tuple[str, dict[str, str], float]


def _samples(text: str) -> Iterator[_Sample]:
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line.strip())
        if match:
            yield match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])


def _label(samples: Iterable[_Sample], metric: str, label: str) -> str:
    for name, labels, _ in samples:
        if name == metric and label in labels:
            return labels[label]
    raise KeyError(metric)


def _peers(samples: Iterable[_Sample], metric: str) -> set[str]:
    """Other members by their ids: etcd counts itself among those it knows."""
    return {
        labels["Remote"]
        for name, labels, value in samples
        if name == metric and value > 0 and labels.get("Remote") != labels.get("Local")
    }


def _slow_write_s(samples: Iterable[_Sample]) -> float | None:
    """The bound below which 99 of 100 writes stayed, since etcd started."""
    name_wanted = "etcd_disk_wal_fsync_duration_seconds_bucket"
    counts = sorted(
        (float(labels["le"]), count) for name, labels, count in samples if name == name_wanted
    )
    if not counts or counts[-1][1] < _FEWEST_WRITES:
        return None
    wanted = counts[-1][1] * 0.99
    return next(bound for bound, count in counts if count >= wanted)
