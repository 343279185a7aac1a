"""The volume was deleted, its directory is still there: which was it, and how does it come back?

A catalogue holds the manifests of all volumes, claims and classes, and what lay on the share.
It is gzip of one JSON document that is a Kubernetes ``List``: with jq and kubectl alone a claim
can be taken from it and bound again (docs/restore.md). Secrets are not in it.

Limits: it brings back the binding, not the data. What was removed from the share comes back
from the share's own backup.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from opsd.cluster.volumes.whole import Manifest
from opsd.errors import PermanentError

FORMAT = 1  # raised when a reader of today would misread what is written
SUFFIX = ".json.gz"
LARGEST_BYTES = 512 << 20  # unpacked; a cluster of 100,000 volumes has a third of it
_KINDS = ("StorageClass", "PersistentVolume", "PersistentVolumeClaim")


class Directory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A directory on a share, as it was when the catalogue was made."""

    share: str
    path: str  #: below the share's root
    inode: int
    modified_at: str  #: newest change in it, ISO 8601 in UTC
    volume: str = ""  #: whose it is; empty: nobody's
    size_bytes: int | None = None  #: None: not measured
    files: int | None = None


class _Own(msgspec.Struct, frozen=True, kw_only=True):
    """What is no object of the API."""

    format: int
    directories: tuple[Directory, ...] = ()


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What one run wrote down."""

    api_version: str = "v1"
    kind: str = "List"
    items: tuple[Manifest, ...]
    opsd: _Own

    @property
    def directories(self) -> tuple[Directory, ...]:
        """What lay on the shares."""
        return self.opsd.directories

    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        found = {kind: sum(one["kind"] == kind for one in self.items) for kind in _KINDS}
        return {**found, "directories": len(self.directories)}


class NotListed(PermanentError):
    """The catalogue has no such claim or volume."""


_READER = msgspec.json.Decoder(Catalogue)  # made by one thread; see opsd.backup.manifest


def catalogue(manifests: Sequence[Manifest], directories: Iterable[Directory]) -> Catalogue:
    """A catalogue of what was read."""
    own = _Own(format=FORMAT, directories=tuple(directories))
    return Catalogue(items=tuple(manifests), opsd=own)


def encode(one: Catalogue) -> bytes:
    """As it is stored; equal for equal catalogues."""
    return gzip.compress(msgspec.json.encode(one) + b"\n", mtime=0)


def decode(content: bytes, *, name: str) -> Catalogue:
    """Read one.

    Raises:
        PermanentError: it is damaged, too large, or of a newer opsd; `name` is in the text.
    """
    try:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # gzip
        text = unpacker.decompress(content, LARGEST_BYTES)
        if not unpacker.eof:
            raise PermanentError(f"{name}: cut off, or larger than {LARGEST_BYTES >> 20} MiB")
        found = _READER.decode(text)
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise PermanentError(f"{name}: no readable catalogue of volumes: {exc}") from exc
    if found.opsd.format > FORMAT:
        raise PermanentError(f"{name}: of a newer opsd (format {found.opsd.format}); update opsd")
    return found


def only(one: Catalogue, claim: str) -> dict[str, Any]:
    """A ``List`` of what a claim needs to be bound again: its class, its volume, itself.

    Args:
        one: where it is.
        claim: ``namespace/claim``, or the name of a volume; empty: everything.

    Raises:
        NotListed: there is none of this name.
    """
    items = [dict(item) for item in one.items]
    if claim:
        items = list(_needed(items, claim))
        if not items:
            known = ", ".join(sorted(map(_name, items_of(one, "PersistentVolumeClaim")))[:5])
            raise NotListed(f"the catalogue has no claim or volume {claim} (has: {known} …)")
    return {"apiVersion": "v1", "kind": "List", "items": items}


def items_of(one: Catalogue, kind: str) -> Iterator[Manifest]:
    """Those of one kind."""
    return (item for item in one.items if item["kind"] == kind)


def _needed(items: Sequence[Manifest], wanted: str) -> Iterator[Manifest]:
    volumes = [
        one
        for one in items
        if one["kind"] == "PersistentVolume" and wanted in (_name(one), _owner(one))
    ]
    owners = {wanted, *map(_owner, volumes)}
    claims = [
        one for one in items if one["kind"] == "PersistentVolumeClaim" and _name(one) in owners
    ]
    classes = {one["spec"].get("storageClassName", "") for one in (*volumes, *claims)}
    yield from (one for one in items if one["kind"] == "StorageClass" and _name(one) in classes)
    yield from (*volumes, *claims)


def _name(one: Manifest) -> str:
    told = one["metadata"]
    return "/".join(filter(None, (told.get("namespace", ""), told["name"])))


def _owner(volume: Manifest) -> str:
    told = volume["spec"].get("claimRef")
    return f"{told['namespace']}/{told['name']}" if told else ""
