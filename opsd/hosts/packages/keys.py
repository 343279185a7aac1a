"""When does the key of a package repository expire? apt then silently keeps its old lists.

The key files are read as they are, so that no gpg is needed on the machine and none leaves a
directory behind there. A key is as long valid as its newest signature by itself says.

Limits: RSA and elliptic keys of version 4, which is what repositories use; revocations and the
dates of subkeys are not looked at. Keys in trusted.gpg are not looked at: nothing says which of
them is needed.

Source: RFC 4880, sections 4.2, 5.2.3 and 5.5.2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from opsd.hosts.packages.answers import Unreadable
from opsd.hosts.script import Probe

EXPIRES_SOON = timedelta(days=30)
LARGEST_BYTES = 200_000  # of a key file; Debian's own has 55 kB

KEYS = Probe(
    name="keys",
    command=rf"""command -v apt-get >/dev/null 2>&1 || exit 0
cd /etc/apt || exit 1
{{ cat sources.list sources.list.d/*.list 2>/dev/null |
    sed -n '/^ *#/d;s/.*signed-by=\([^] ]*\).*/\1/p'
  cat sources.list.d/*.sources 2>/dev/null | sed -n 's/^Signed-By: *//p'; }} |
  tr ', ' '\n\n' | sort -u | while read -r f; do
  case $f in /*) ;; *) continue;; esac
  echo "@key $f"; [ -r "$f" ] && head -c {LARGEST_BYTES} "$f" | base64 || echo '@unreadable'
done
cat sources.list sources.list.d/*.list sources.list.d/*.sources 2>/dev/null |
  grep -v '^ *#' | grep -qE 'apt\.kubernetes\.io|packages\.cloud\.google\.com' && echo '@legacy'
exit 0
""",
)

_ARMOR = re.compile(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)\n-----END", re.DOTALL)
_PUBLIC_KEY, _SIGNATURE = 6, 2
_SELF_CERTIFICATIONS = (0x10, 0x11, 0x12, 0x13, 0x1F)
_SIGNED_AT, _EXPIRES_AFTER, _ISSUER, _ISSUER_FINGERPRINT = 2, 9, 16, 33


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """The keys of a repository."""

    path: str
    expires_at: datetime | None  #: the last of its keys; None: never

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class _Packet:
    tag: int
    body: bytes


def read(answer: str) -> Iterator[KeyFile | Unreadable]:
    """What `KEYS` printed: each key file, or why it cannot be told of one."""
    for block in answer.split("@key ")[1:]:
        path, *lines = [line for line in block.splitlines() if line != "@legacy"]
        try:
            yield KeyFile(path=path, expires_at=_expiry(path, "".join(lines)))
        except Unreadable as exc:
            yield exc


def is_legacy(answer: str) -> bool:
    """Whether a source still names the Kubernetes repository that was closed in 2024."""
    return "@legacy" in answer.splitlines()


def _expiry(path: str, encoded: str) -> datetime | None:
    if encoded == "@unreadable":
        raise Unreadable(f"{path} cannot be read", fix=f"chmod a+r {path}")
    try:
        content = base64.b64decode(encoded)
        packets = list(_packets(_dearmored(content)))
        ends = list(_ends(packets))
    except (binascii.Error, IndexError, ValueError, OverflowError) as exc:
        raise Unreadable(f"{path} is not understood") from exc
    if not ends:
        raise Unreadable(f"{path} holds no key")
    known = [end for end in ends if end is not None]
    return max(known) if len(known) == len(ends) else None


def _dearmored(content: bytes) -> bytes:
    match = _ARMOR.search(content)
    if match is None:
        return content
    # Headers end with an empty line; the checksum begins with `=`.
    lines = match[1].replace(b"\r", b"").split(b"\n\n", 1)[-1].split(b"\n")
    return base64.b64decode(b"".join(line for line in lines if not line.startswith(b"=")))


def _packets(content: bytes) -> Iterator[_Packet]:
    """Take a keyring apart.

    Raises:
        ValueError, IndexError: it is none.
    """
    at = 0
    while at < len(content):
        head = content[at]
        if not head & 0x80:
            raise ValueError("no packet")
        tag, at, size = _new_header(content, at) if head & 0x40 else _old_header(content, at)
        if at + size > len(content):
            raise ValueError("the last packet is cut off")
        yield _Packet(tag, content[at : at + size])
        at += size


def _old_header(content: bytes, at: int) -> tuple[int, int, int]:
    head = content[at]
    width = (1, 2, 4)[head & 3]
    return (head >> 2) & 15, at + 1 + width, int.from_bytes(content[at + 1 : at + 1 + width])


def _new_header(content: bytes, at: int) -> tuple[int, int, int]:
    start, size = _length(content, at + 1)
    return content[at] & 63, start, size


def _length(content: bytes, at: int) -> tuple[int, int]:
    """Where what follows begins, and its length."""
    first = content[at]
    if first < 192:  # noqa: PLR2004 - RFC 4880, 4.2.2
        return at + 1, first
    if first < 255:  # noqa: PLR2004
        return at + 2, ((first - 192) << 8) + content[at + 1] + 192
    return at + 5, int.from_bytes(content[at + 1 : at + 5])


def _ends(packets: list[_Packet]) -> Iterator[datetime | None]:
    """When each key ends; None: never.

    Raises:
        ValueError, IndexError: it is of a kind that is not known here.
    """
    for index, packet in enumerate(packets):
        if packet.tag != _PUBLIC_KEY:
            continue
        if packet.body[0] != 4:  # noqa: PLR2004 - the version
            raise ValueError("a key of another version")
        made_at = datetime.fromtimestamp(int.from_bytes(packet.body[1:5]), UTC)
        following = packets[index + 1 :]
        end = next((n for n, one in enumerate(following) if one.tag == _PUBLIC_KEY), None)
        own = [one.body for one in following[:end] if one.tag == _SIGNATURE]
        lasts_s = _lasts_s(own, key_id=_key_id(packet.body))
        yield made_at + timedelta(seconds=lasts_s) if lasts_s else None


def _key_id(body: bytes) -> bytes:
    framed = b"\x99" + len(body).to_bytes(2) + body
    return hashlib.sha1(framed, usedforsecurity=False).digest()[-8:]


def _lasts_s(signatures: list[bytes], *, key_id: bytes) -> int:
    """Seconds that a key lasts, by the newest signature of the key by itself; 0: for ever."""
    newest = (-1, 0)
    for body in signatures:
        if body[0] != 4 or body[1] not in _SELF_CERTIFICATIONS:  # noqa: PLR2004
            continue
        fields = dict(_subpackets(body))
        if fields.get(_ISSUER_FINGERPRINT, fields.get(_ISSUER, b""))[-8:] == key_id:
            signed_at = int.from_bytes(fields.get(_SIGNED_AT, b""))
            newest = max(newest, (signed_at, int.from_bytes(fields.get(_EXPIRES_AFTER, b""))))
    return newest[1]


def _subpackets(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Of a signature: the signed ones, then the others."""
    at = 4
    for _ in range(2):
        end = at + 2 + int.from_bytes(body[at : at + 2])
        at += 2
        while at < end:
            at, size = _length(body, at)
            yield body[at] & 127, body[at + 1 : at + size]
            at += size
