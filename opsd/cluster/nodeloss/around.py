"""Did anybody near a lost node hear of it? What neighbours and the file server say. Pure.

A neighbour pings it, knocks at its ports and looks it up in its table of neighbours. The file
server knows when a client last sent anything. What is older than the node's own silence is no
sign of life: it may be from before.

Limits: a neighbour needs ``ip`` and ``timeout``, and ``bash`` or ``nc`` to knock. Clients of NFS
3 are seen by their TCP connections only, and the list of NFS 4 clients is read by root only.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from opsd.cluster.nodeloss.facts import Means, Node, Sighting
from opsd.hosts.fleet import Visit
from opsd.hosts.script import Probe, Section

KNOCK_S = 1  # seconds that one knock waits, all of them at once
PROBE_S = 3.0
MOST_NODES = 16  # that one script asks about
RENEWAL = timedelta(seconds=10)  # a node that lives renews its lease so often
NFS_PORT = 2049
KNOCKS, CONNECTIONS, CLIENTS = "knocks", "nfs-connections", "nfs-clients"

_KNOCKS = """\
set -f
ping_at() { ping -n -c 1 -W {s} "$1" >/dev/null 2>&1; echo "ping $1 $?"; }
knock_at() {
if ! command -v timeout >/dev/null 2>&1; then return
elif command -v bash >/dev/null 2>&1; then
said=$(timeout -s KILL {s} bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1)
elif command -v nc >/dev/null 2>&1; then said=$(timeout -s KILL {s} nc -z "$1" "$2" 2>&1)
else return
fi
echo "tcp $1 $2 $?" $said
}
look_at() {
ping_at "$1" &
for port in $2; do knock_at "$1" "$port" & done
wait
ip -s neigh show to "$1" 2>/dev/null | while read -r line; do echo "neighbour $line"; done
}
"""

CONNECTIONS_PROBE = Probe(
    name=CONNECTIONS,
    command=f"ss -Hnti state established '( sport = :{NFS_PORT} )'",
    within_s=PROBE_S,
)
CLIENTS_PROBE = Probe(
    name=CLIENTS,
    command="[ -d /proc/fs/nfsd/clients ] || exit 0\n"
    "$root find /proc/fs/nfsd/clients -name info -exec cat {} +",
    within_s=PROBE_S,
)

_CONFIRMED_AGO = re.compile(r"used \d+/(\d+)/\d+")
_LAST_RECEIVED = re.compile(r"\blastrcv:(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An established connection to the file server."""

    peer: str  #: address
    unread_bytes: int  #: that the server has not looked at yet
    silent: timedelta  #: since it last brought data


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An NFS 4 client, as the kernel's server lists it."""

    address: str
    name: str = ""  #: ``Linux NFSv4.2 rpi3``
    status: str = ""  #: ``confirmed``, ``courtesy``
    silent: timedelta | None = None  #: since it last renewed its lease; None: not told


def knocks(nodes: Sequence[Node], ports: Sequence[int]) -> Probe:
    """Look for these nodes from a neighbour; those without a plain address are left out."""
    named = " ".join(str(port) for port in ports)
    calls = [
        f"look_at {shlex.quote(address)} {shlex.quote(named)} &\n"
        for node in nodes[:MOST_NODES]
        if (address := _address(node.address))
    ]
    text = _KNOCKS.replace("{s}", str(KNOCK_S)) + "".join(calls) + "wait"
    return Probe(name=KNOCKS, command=text, within_s=PROBE_S)


def sightings_of(visit: Visit, node: Node) -> Iterator[Sighting]:
    """What one machine heard of a node, if it could look."""
    name, sections = visit.machine.name, visit.sections
    if (seen := _near(name, node, sections.get(KNOCKS))) is not None:
        yield seen
    if (seen := _served(name, node, sections)) is not None:
        yield seen


def connections(section: Section | None) -> tuple[Connection, ...] | None:
    """Of `CONNECTIONS_PROBE`; None when it could not be told."""
    if section is None or not section.is_ok:
        return None
    found: list[Connection] = []
    unread, peer = 0, ""
    for line in section.stdout.splitlines():
        if not line[:1].isspace() and line.strip():
            fields = line.split()
            unread, peer = int(fields[0]), _address_of(fields[3])
        elif peer and (last := _LAST_RECEIVED.search(line)):
            silent = timedelta(milliseconds=int(last[1]))
            found.append(Connection(peer=peer, unread_bytes=unread, silent=silent))
            peer = ""
    return tuple(found)


def clients(section: Section | None) -> tuple[Client, ...]:
    """Of `CLIENTS_PROBE`; none where they could not be read."""
    found: list[dict[str, str]] = []
    for line in section.stdout.splitlines() if section else ():
        key, _, value = line.partition(":")
        if key == "clientid":
            found.append({})
        elif found:
            found[-1][key.strip()] = value.strip().strip('"')
    return tuple(map(_client, found))


def _near(name: str, node: Node, section: Section | None) -> Sighting | None:
    """What a neighbour saw; the first sign of life counts."""
    address = _address(node.address)
    told: list[tuple[Means, bool, timedelta, str]] = []
    for line in section.stdout.splitlines() if section and section.is_ok and address else ():
        word, _, rest = line.partition(" ")
        if rest.split(" ", 1)[0] == address and (heard := _heard(word, rest, node)):
            told.append(heard)
    if not told:
        return None
    means, alive, age, _ = next((one for one in told if one[1]), told[0])
    detail = ", ".join(one[3] for one in told)
    return Sighting(vantage=name, means=means, alive=alive, age=age, detail=detail)


def _heard(word: str, rest: str, node: Node) -> tuple[Means, bool, timedelta, str] | None:
    now, fields = timedelta(0), rest.split(" ")
    if word == "ping" and fields[1:] in (["0"], ["1"]):
        return Means.PING, fields[1] == "0", now, f"ping {_ANSWER[fields[1] == '0']}"
    if word == "tcp" and len(fields) >= len(("address", "port", "status")):
        port, status, said = fields[1], fields[2], " ".join(fields[3:])
        if status == "0":
            return Means.TCP, True, now, f"{port} open"
        is_refused = "refused" in said.lower()
        return Means.TCP, is_refused, now, f"{port} {'refused' if is_refused else _ANSWER[False]}"
    if word == "neighbour":
        state = fields[-1].lower()
        age = _CONFIRMED_AGO.search(rest)
        silent = timedelta(seconds=int(age[1])) if age else timedelta.max
        is_alive = state == "reachable" and _is_after(silent, node)
        return Means.ARP, is_alive, silent if is_alive else now, f"neighbour {state}"
    return None


_ANSWER = {True: "answered", False: "no answer"}


def _served(name: str, node: Node, sections: Mapping[str, Section]) -> Sighting | None:
    """What a file server knows; None when the node is no client of it."""
    address = _address(node.address)
    ages = [
        (one.silent, "sent data")
        for one in connections(sections.get(CONNECTIONS)) or ()
        if one.peer == address
    ]
    ages += [
        (one.silent, f"renewed its lease, {one.status}")
        for one in clients(sections.get(CLIENTS))
        if one.address == address and one.silent is not None
    ]
    if not (address and ages):
        return None
    age, what = min(ages)
    alive = _is_after(age, node)
    told = f"{what} {age.total_seconds():.0f} s ago"
    detail = told if alive else f"{told}, as before its silence"
    return Sighting(vantage=name, means=Means.NFS, alive=alive, age=age, detail=detail)


def _is_after(age: timedelta, node: Node) -> bool:
    """Whether what is so old is from after the node should have been heard of again."""
    return age < node.lease_silent - RENEWAL


def _client(fields: Mapping[str, str]) -> Client:
    seconds = fields.get("seconds from last renew", "")
    return Client(
        address=_address_of(fields.get("address", "")),
        name=fields.get("name", ""),
        status=fields.get("status", ""),
        silent=timedelta(seconds=int(seconds)) if seconds.isdigit() else None,
    )


def _address_of(text: str) -> str:
    """``10.0.0.13:798``, ``[fd00::13]:798``, ``[::ffff:10.0.0.13]:798``: without the port."""
    return _address(text.rpartition(":")[0].strip("[]").partition("%")[0])


def _address(text: str) -> str:
    """One way of writing it; empty when it is none."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(found)
