"""Which file servers there are, kept between runs, for what mounts one may hang with it.

A machine whose storage hangs often cannot be logged in to. Its servers are called all the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from opsd.errors import TransientError
from opsd.hosts.nfs.mounts import Mount


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """How a file server is called, and who mounts it."""

    address: str
    port: int
    version: int  #: of NFS: 3 or 4
    machines: tuple[str, ...]  #: names


def read(place: Path) -> Mapping[str, Known]:
    """What the last run kept, by server; nothing where that cannot be read."""
    try:
        told = json.loads(place.read_text())
        return {
            str(name): Known(
                address=str(one["address"]),
                port=int(one["port"]),
                version=int(one["version"]),
                machines=tuple(map(str, one["machines"])),
            )
            for name, one in told["servers"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write(place: Path, servers: Mapping[str, Known]) -> None:
    """Keep it for the next run.

    Raises:
        TransientError: the disk refused.
    """
    part = place.with_suffix(".part")
    try:
        part.write_text(
            json.dumps({"servers": {name: asdict(one) for name, one in servers.items()}})
        )
        part.replace(place)
    except OSError as exc:
        raise TransientError(f"write {place}: {exc.strerror}") from exc


def merged(
    before: Mapping[str, Known],
    mounts: Iterable[tuple[str, Mount]],
    *,
    silent: frozenset[str] | None,
) -> dict[str, Known]:
    """What is known now.

    Args:
        before: at the last run.
        mounts: that were seen, each with the machine's name.
        silent: machines that said nothing, so that what they mounted may still be; None: any
            machine may be one of them.
    """
    found: dict[str, Known] = {}
    for machine, mount in mounts:
        machines = found[mount.server].machines if mount.server in found else ()
        found[mount.server] = Known(
            address=mount.address,
            port=mount.port,
            version=mount.version,
            machines=tuple(sorted({*machines, machine})),
        )
    for name, one in before.items():
        staying = [machine for machine in one.machines if silent is None or machine in silent]
        if name not in found and staying:
            found[name] = Known(
                address=one.address,
                port=one.port,
                version=one.version,
                machines=tuple(staying),
            )
    return found
