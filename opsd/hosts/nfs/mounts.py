"""What a machine has mounted from file servers, and how. Pure.

One export is often mounted at several paths: a volume for the kubelet, and again for each
container that uses a part of it. It is one `Mount` with all its paths.

Source: proc(5), /proc/pid/mountinfo; nfs(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from opsd.clients.rpc import PORT
from opsd.text import printable

_SOFT = frozenset({"soft", "softerr"})
_POD = re.compile(r"/pods/([0-9a-f]{8}-[0-9a-f-]{27})/volumes/[^/]+/([^/]+)")
_HIGHEST_PORT = 65535
_VIEW_FIELDS = 6  # of mountinfo, before the dash


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One export of a file server, as a machine has mounted it."""

    server: str  #: name or address of the file server: the same one for all its names
    device: str  #: ``major:minor``; mounts that share it share their connection to the server
    source: str  #: ``nas:/export/db``, as it was mounted
    paths: tuple[str, ...]  #: where, as the kernel writes it
    options: Mapping[str, str] = field(default_factory=dict)  #: ``hard`` and its like are empty

    @property
    def export(self) -> str:
        """The directory of the server."""
        return "/" + self.source.partition(":/")[2]

    @property
    def address(self) -> str:
        """Where the server was when it was mounted."""
        return self.options.get("addr", "") or self.server

    @property
    def port(self) -> int:
        """Of its NFS service."""
        told = self.options.get("port", "")
        return int(told) if told.isdecimal() and 0 < int(told) <= _HIGHEST_PORT else PORT

    @property
    def version(self) -> int:
        """Of NFS: 3 or 4."""
        return 3 if self.options.get("vers", "").startswith(("2", "3")) else 4

    @property
    def is_soft(self) -> bool:
        """Whether programs get an error when the server is silent, instead of waiting."""
        return bool(_SOFT & self.options.keys())

    @property
    def pods(self) -> frozenset[str]:
        """UIDs of the pods that it was mounted for."""
        return frozenset(found[1] for path in self.paths if (found := _POD.search(path)))

    @property
    def volumes(self) -> frozenset[str]:
        """Names of the volumes that it was mounted for."""
        return frozenset(found[2] for path in self.paths if (found := _POD.search(path)))


def server_of(source: str) -> str:
    """``nas`` of ``nas:/export``, ``fd00::1`` of ``[fd00::1]:/export``."""
    if source.startswith("["):
        return source[1:].partition("]")[0]
    return source.partition(":/")[0] or "-"


def parse(text: str) -> tuple[Mount, ...]:
    """Lines of mountinfo as mounts, in their order; what is no line of it is left out."""
    found: dict[tuple[str, str], Mount] = {}
    for one in _lines(text):
        key = (one.device, one.source)
        before = found.get(key)
        found[key] = replace(before, paths=before.paths + one.paths) if before else one
    return tuple(found.values())


def _lines(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        view, dash, filesystem = line.rpartition(" - ")
        fields, words = view.split(), filesystem.split()
        if dash and len(fields) >= _VIEW_FIELDS and len(words) > 1:
            options = words[2] if len(words) > len(("nfs4", "nas:/export")) else ""
            yield Mount(
                server=server_of(printable(words[1])),
                device=fields[2],
                source=printable(words[1]),
                paths=(printable(fields[4]),),
                options=dict(_option(word) for word in options.split(",") if word),
            )


def _option(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


def under_one_name(mounts: Iterable[Mount]) -> Mapping[str, str]:
    """The one name of each server, by all its names: mounts with one address are of one server.

    A name comes before an address, as people know it better.
    """
    names: dict[str, set[str]] = {}
    for mount in mounts:
        names.setdefault(mount.address, set()).add(mount.server)
    return {
        name: min(same, key=lambda one: (_is_address(one), one))
        for same in names.values()
        for name in same
    }


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdecimal()
