"""Which kinds of objects a Helm release holds, as Helm itself keeps it in its Secret.

Helm compares the next version of a chart with the manifest that it kept. When that names a kind
that the API server no longer has, no upgrade of the release works any more.

Limits: nothing but apiVersion, kind and name of each object is kept. Never shown: the values.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from opsd.clients.kube.objects import Secret

TYPE = "helm.sh/release.v1"
LABELS = "owner=helm,status=deployed"  # the revision that is in force
_MOST_BYTES = 32 << 20
_GZIP = 16 + zlib.MAX_WBITS
_FIELD = re.compile(r"^(apiVersion|kind):[ \t]*[\"']?([\w./-]+)", re.MULTILINE)
_NAME = re.compile(r"^metadata:.*?^[ ]+name:[ \t]*[\"']?([\w.-]+)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One object of a manifest."""

    api_version: str  #: ``policy/v1beta1``
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.api_version} {self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release as it is in force."""

    namespace: str
    name: str
    objects: tuple[Kept, ...]


class _Content(msgspec.Struct):
    name: str = ""
    manifest: str = ""


def release_of(secret: Secret) -> Release:
    """Read one.

    Raises:
        ValueError: it is no release.
    """
    try:
        packed = base64.b64decode(base64.b64decode(secret.data["release"]))
        stream = zlib.decompressobj(_GZIP)
        content = stream.decompress(packed, _MOST_BYTES)
        if not stream.eof:
            most = f"{_MOST_BYTES >> 20} MiB"
            raise ValueError(f"{secret}: it holds no release of Helm, or more than {most} of it")
        kept = msgspec.json.decode(content, type=_Content)
    except (KeyError, binascii.Error, zlib.error, msgspec.DecodeError) as exc:
        raise ValueError(f"{secret}: it holds no release of Helm") from exc
    return Release(
        namespace=secret.namespace,
        name=kept.name or secret.labels.get("name", secret.name),
        objects=tuple(objects_of(kept.manifest)),
    )


def objects_of(manifest: str) -> Iterator[Kept]:
    """What a manifest of several documents holds."""
    for document in re.split(r"^---.*$", manifest, flags=re.MULTILINE):
        fields = dict(_FIELD.findall(document))
        if "apiVersion" in fields and "kind" in fields:
            name = _NAME.search(document)
            yield Kept(
                api_version=fields["apiVersion"],
                kind=fields["kind"],
                name=name[1] if name else "",
            )
