r"""The list of checksums beside an rsync snapshot: what ``sha256sum --check`` reads.

A disk that rots does not say so. With the list any machine can tell which file is no longer
what was backed up. Names with newlines or backslashes are escaped as GNU sha256sum does,
and the list is sorted by the bytes of the names, so that equal trees have equal lists.

Limits: links, devices and permissions are not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from zlib import crc32

_DIGEST = 64  # hex digits


def line(digest: bytes, path: bytes) -> bytes:
    """One line of the list, with its newline. `path` begins with ``./``."""
    if any(byte in path for byte in (b"\\", b"\n", b"\r")):
        escaped = path.replace(b"\\", rb"\\").replace(b"\n", rb"\n").replace(b"\r", rb"\r")
        return b"\\" + digest + b"  " + escaped + b"\n"
    return digest + b"  " + path + b"\n"


def parse(text: bytes) -> tuple[bytes, bytes]:
    """(digest, path) of a line without its newline."""
    if not text.startswith(b"\\"):
        return text[:_DIGEST], text[_DIGEST + 2 :]
    return text[1 : _DIGEST + 1], _unescape(text[_DIGEST + 3 :])


def _unescape(escaped: bytes) -> bytes:
    parts = escaped.split(rb"\\")
    return b"\\".join(part.replace(rb"\n", b"\n").replace(rb"\r", b"\r") for part in parts)


def in_part(path: bytes, *, n: int, of: int) -> bool:
    """Whether `path` belongs to the n-th of `of` parts, from 1."""
    return crc32(path) % of == n - 1


def reuse(
    now: Iterable[tuple[bytes, bytes]],
    before: Iterable[tuple[bytes, bytes]],
    listed: Iterable[tuple[bytes, bytes]],
) -> Iterator[tuple[bytes, bytes]]:
    """Take over the checksums of files that share their inode with the snapshot before.

    Args:
        now: (path, inode) of the new snapshot, sorted by path.
        before: the same of the snapshot before.
        listed: (path, digest) of that snapshot's list, sorted by path.

    Yields:
        (path, digest) for every file of `now`; the digest is empty when it must be computed.
    """
    olds, digests = iter(before), iter(listed)
    old, digest = next(olds, None), next(digests, None)
    for path, inode in now:
        while old is not None and old[0] < path:
            old = next(olds, None)
        while digest is not None and digest[0] < path:
            digest = next(digests, None)
        linked = old is not None and old == (path, inode)
        known = linked and digest is not None and digest[0] == path
        yield path, digest[1] if known and digest is not None else b""
