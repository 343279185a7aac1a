"""Which machines opsd may believe: host keys in the format of OpenSSH's known_hosts.

An entry under a machine's name counts before one under its address, so that an address that
went to another machine vouches for nobody. Files that `ssh-keyscan` wrote work as they are.

Limits: certificates of host authorities (``@cert-authority``) are not used.
Source: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

SSH_PORT = 22
REVOKED = "@revoked"


@dataclass(frozen=True, slots=True)
class HostKey:
    """The public key of a machine."""

    type: str  #: ``ssh-ed25519``
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it: ``SHA256:...``."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"

    def __str__(self) -> str:
        return f"{self.type} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line."""

    hosts: str  #: comma-separated names and patterns, or one hashed name
    key: HostKey
    is_revoked: bool = False

    def is_of(self, host: str) -> bool:
        """Whether it is about a machine of this name, or at ``[address]:port``."""
        if self.hosts.startswith("|1|"):
            return _is_hash_of(self.hosts, host)
        patterns = self.hosts.lower().split(",")
        if any(_fits(host, one[1:]) for one in patterns if one.startswith("!")):
            return False
        return any(_fits(host, one) for one in patterns)

    def __str__(self) -> str:
        return f"{REVOKED} " * self.is_revoked + f"{self.hosts} {self.key}"


@dataclass(frozen=True, slots=True)
class KnownHosts:
    """All entries."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def parse(cls, text: str) -> KnownHosts:
        """Read lines; those that make no sense vouch for nobody."""
        found = (_entry(line) for line in text.splitlines())
        return cls(tuple(entry for entry in found if entry is not None))

    def __add__(self, other: KnownHosts) -> KnownHosts:
        return KnownHosts(self.entries + other.entries)

    def keys_of(self, name: str, *, address: str, port: int) -> tuple[HostKey, ...]:
        """The keys that are believed of a machine; empty: it is not known."""
        by_name = self._keys(name)
        return by_name or self._keys(place(address, port))

    def is_revoked(self, key: HostKey) -> bool:
        """Whether somebody said that this key must not be believed, of whomever."""
        return any(one.is_revoked and one.key == key for one in self.entries)

    def _keys(self, host: str) -> tuple[HostKey, ...]:
        return tuple(
            one.key for one in self.entries if not one.is_revoked and one.is_of(host.lower())
        )


def place(address: str, port: int) -> str:
    """What an address is called in these files."""
    return address if port == SSH_PORT else f"[{address}]:{port}"


def replaced(text: str, name: str, keys: Iterable[HostKey]) -> str:
    """The lines of a file with these keys, and no others, under a machine's name."""
    kept = [line for line in text.splitlines() if not _is_alone_of(line, name)]
    return "".join(f"{line}\n" for line in [*kept, *(f"{name} {key}" for key in keys)])


def _is_alone_of(line: str, name: str) -> bool:
    entry = _entry(line)
    return entry is not None and not entry.is_revoked and entry.hosts == name


def _entry(line: str) -> Entry | None:
    fields = line.split()
    is_revoked = bool(fields) and fields[0] == REVOKED
    if is_revoked:
        fields = fields[1:]
    if len(fields) < 3 or fields[0].startswith(("#", "@")):  # noqa: PLR2004 - host, type, key
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except binascii.Error:
        return None
    return Entry(hosts=fields[0], key=HostKey(fields[1], blob), is_revoked=is_revoked)


def _fits(host: str, pattern: str) -> bool:
    # In these files only ``*`` and ``?`` are special; an address may stand in brackets.
    return fnmatch.fnmatchcase(host, pattern.replace("[", "[[]"))


def _is_hash_of(hashed: str, host: str) -> bool:
    _, _, salt, digest = (*hashed.split("|"), "", "")[:4]
    try:
        expected = base64.b64decode(digest)
        made = hmac.new(base64.b64decode(salt), host.encode(), hashlib.sha1).digest()
    except binascii.Error:
        return False
    return hmac.compare_digest(made, expected)
