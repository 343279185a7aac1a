"""Directories without a volume, volumes without a directory: what only the share itself can tell.

The share is listed by a child process (`opsd.cluster.volumes.listing`) that opsd can leave behind
when the file server is dead.

Limits: a directory that nobody knows may still be used by something outside of the cluster.
Nothing is ever removed here.
"""

from __future__ import annotations

import json
import posixpath
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opsd.clients.kube.objects import PersistentVolume
from opsd.clients.process import Process, lines
from opsd.clock import Deadline
from opsd.cluster.volumes import listing
from opsd.cluster.volumes.storage import Place, Storage, claim_of, place_of
from opsd.cluster.volumes.telling import PAGE, finding, others
from opsd.errors import ConfigError, TransientError
from opsd.model import Finding, Severity
from opsd.text import printable

ARCHIVED = "archived-"
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A share as the volumes name it."""

    name: str  #: of the share
    path: Path  #: where it can be looked at
    server: str  #: empty: whichever; its path is enough
    directory: str  #: on the server: ``/export/k8s``


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A directory, with all that is below it."""

    path: str  #: below the share's root, with surrogate escapes
    inode: int
    newest: datetime  #: latest modification in it, aware UTC
    files: int | None  #: None: there was no time to count
    size_bytes: int | None
    volumes: tuple[str, ...] = ()  #: names of the volumes that are this directory

    @property
    def is_archived(self) -> bool:
        """Whether a provisioner put it aside when its claim was deleted."""
        return posixpath.basename(self.path).startswith(ARCHIVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What lies on a share."""

    export: Export
    found: tuple[Found, ...]
    missing: tuple[PersistentVolume, ...]  #: volumes whose directory is not there


def read_listing(
    export: Export,
    storage: Storage,
    *,
    ignored: Sequence[str],
    measure_s: float,
    deadline: Deadline,
) -> Listing:
    """List a share that was found to answer.

    Args:
        export: the share.
        storage: the volumes, of which those on the share are looked for.
        ignored: globs of names that are left out.
        measure_s: for counting what is in the directories.
        deadline: for all of it.

    Raises:
        DeadlineExceeded: the share does not answer in time.
        TransientError: it cannot be read; the text says why.
    """
    here = volumes_on(export, storage)
    request = {
        "path": str(export.path),
        "volumes": sorted(here),
        "ignored": list(ignored),
        "measure_s": measure_s,
    }
    found: list[Found] = []
    missing: list[PersistentVolume] = []
    for answer in _answers(export, request, deadline):
        if "missing" in answer:
            missing.extend(here[answer["missing"]])
        else:
            found.append(_found(answer, here))
    return Listing(export=export, found=tuple(found), missing=tuple(missing))


def export_of(name: str, path: Path, *, told: str, source: str, storage: Storage) -> Export:
    """How the volumes name a share.

    Args:
        name: of the share.
        path: where it can be looked at.
        told: ``nas:/export`` or ``/export`` by the owner; empty: as it is mounted.
        source: ``nas:/export`` of the mount; anything else when it is no NFS mount.
        storage: the volumes, whose servers are known by name here and by address there.

    Raises:
        ConfigError: it cannot be told.
    """
    server, _, directory = (told or source).rpartition(":")
    if not directory.startswith("/") or not (told or server):
        raise ConfigError(
            f'share {name}: {path} is no NFS mount: set export = "SERVER:/DIRECTORY" for it, as'
            " the volumes have it (kubectl get pv -o yaml)"
        )
    if told:
        return Export(name=name, path=path, server=server, directory=directory)
    anywhere = Export(name=name, path=path, server="", directory=directory)
    servers = {
        place.server
        for volumes in volumes_on(anywhere, storage).values()
        for volume in volumes
        if (place := place_of(volume))
    }
    if len(servers) <= 1:
        return anywhere
    if server not in servers:
        named = ", ".join(sorted(servers))
        raise ConfigError(
            f"share {name}: volumes below {directory} are on several servers ({named}): set"
            f' export = "SERVER:{directory}" for it'
        )
    return Export(name=name, path=path, server=server, directory=directory)


def volumes_on(export: Export, storage: Storage) -> dict[str, list[PersistentVolume]]:
    """The volumes below the share's directory, by their path in it."""
    here: dict[str, list[PersistentVolume]] = {}
    for volume in storage.volumes:
        place = place_of(volume)
        if place is None or export.server not in ("", place.server):
            continue
        if Place(server=place.server, path=export.directory).holds(place):
            path = posixpath.relpath(place.path, export.directory)
            here.setdefault("" if path == "." else path, []).append(volume)
    return here


def _answers(
    export: Export, request: Mapping[str, Any], deadline: Deadline
) -> Iterator[dict[str, Any]]:
    argv = (sys.executable, "-I", "-S", listing.__file__)
    with Process(argv, deadline=deadline, stdin=True) as child:
        child.write(json.dumps(request).encode())
        child.close_stdin()
        for line in lines(child):
            answer = json.loads(line)
            if "done" in answer:
                return
            yield answer
        child.wait()
        said = printable(child.stderr.strip().rpartition("\n")[2])
        raise TransientError(f"share {export.name}: list {export.path}: {said}")


def _found(answer: Mapping[str, Any], here: Mapping[str, list[PersistentVolume]]) -> Found:
    path = str(answer["path"])
    return Found(
        path=path,
        inode=answer["inode"],
        newest=datetime.fromtimestamp(answer["newest_ns"] // _NS, UTC),
        files=answer["files"],
        size_bytes=answer["size_bytes"],
        volumes=tuple(volume.name for volume in here.get(path, ())),
    )


def about(listed: Listing, storage: Storage) -> Iterator[Finding]:
    """What the share tells against the volumes, each cause once."""
    yield from _missing(listed)
    nobodys = [one for one in listed.found if not one.volumes]
    archived = [one for one in nobodys if one.is_archived]
    unknown = [one for one in nobodys if not one.is_archived]
    released = {volume.name for volume in storage.volumes if volume.status.phase == "Released"}
    kept = [one for one in listed.found if released.intersection(one.volumes)]
    for check, group, words, remedy in (
        ("volumes.directories_archived", archived, "archived, its claim deleted", "remove it"),
        ("volumes.directories_released", kept, "of a volume that nobody has", "bind it again"),
        ("volumes.directories_unknown", unknown, "of no volume", "find out whose it was"),
    ):
        if group:
            yield _grouped(check, listed.export, group, words=words, remedy=remedy)


def _missing(listed: Listing) -> Iterator[Finding]:
    if listed.missing:
        bound = [volume for volume in listed.missing if volume.status.phase == "Bound"]
        first = (bound or list(listed.missing))[0]
        yield finding(
            "volumes.directory_missing",
            f"share/{listed.export.name}",
            Severity.CRITICAL if bound else Severity.WARNING,
            f"the directory of {claim_of(first) or first.name} is not on the share"
            f"{others(len(listed.missing) - 1)}",
            "opsd backups list share; is it the right share, and was the directory renamed?",
            directory=str(place_of(first)),
            volumes=len(listed.missing),
            bound=len(bound),
        )


def _grouped(
    check: str, export: Export, group: Sequence[Found], *, words: str, remedy: str
) -> Finding:
    largest = max(group, key=lambda one: (one.size_bytes or 0, one.path))
    measured = [one.size_bytes for one in group if one.size_bytes is not None]
    return finding(
        check,
        f"share/{export.name}",
        Severity.INFO,
        f"{largest.path or '.'} is {words}{others(len(group) - 1)}",
        f"look at {export.path}; {remedy}: {PAGE}#directories-without-a-volume",
        directories=len(group),
        size_bytes=sum(measured),
        not_measured=len(group) - len(measured),
        newest=max(one.newest for one in group).isoformat(),
        oldest=min(one.newest for one in group).isoformat(),
    )
