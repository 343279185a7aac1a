"""What an etcd member answers, as values. Numbers are strings in its JSON.

Source: etcd API reference; api/etcdserverpb/rpc.proto.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Header(msgspec.Struct, frozen=True):
    """What stands before every answer. Numbers are strings in this protocol."""

    cluster_id: str = "0"
    member_id: str = "0"
    revision: str = "0"


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """How a member sees itself."""

    header: Header
    version: str = ""
    db_size: int = 0  #: bytes of its file
    db_size_in_use: int = 0  #: bytes that are not free for reuse
    db_size_quota: int = 0  #: bytes; at it, the cluster takes no writes; 0: not told, before 3.6
    leader: str = "0"  #: member id; 0: none
    is_learner: bool = False
    errors: tuple[str, ...] = ()

    @property
    def member_id(self) -> str:
        """The member that answered."""
        return self.header.member_id


class Member(msgspec.Struct, frozen=True, rename="camel"):
    """One member of the cluster."""

    id: str = msgspec.field(name="ID", default="0")
    name: str = ""  #: empty: it was added and never started
    client_urls: tuple[str, ...] = msgspec.field(name="clientURLs", default=())
    is_learner: bool = False


class Alarm(msgspec.Struct, frozen=True):
    """An alarm that a member raised."""

    member_id: str = msgspec.field(name="memberID", default="0")
    alarm: str = ""  #: ``NOSPACE``, ``CORRUPT``


class Hash(msgspec.Struct, frozen=True):
    """A number made of every key and value up to a revision."""

    header: Header
    hash: int = 0
    compact_revision: int = -1  #: two hashes can be compared only if theirs are equal
    hash_revision: int = 0  #: 0: a member before 3.6 does not say


class Members(msgspec.Struct, frozen=True):
    """Everybody who belongs to the cluster."""

    members: tuple[Member, ...] = ()


class Alarms(msgspec.Struct, frozen=True):
    """What the members raised."""

    alarms: tuple[Alarm, ...] = ()


class KeyValue(msgspec.Struct, frozen=True):
    """One key and its value."""

    key: bytes = b""
    value: bytes = b""


class Range(msgspec.Struct, frozen=True):
    """Keys in a range, or how many."""

    header: Header
    kvs: tuple[KeyValue, ...] = ()
    count: int = 0


class Piece(msgspec.Struct, frozen=True):
    """A part of a snapshot."""

    blob: bytes = b""
    remaining_bytes: int = 0


class Failure(msgspec.Struct, frozen=True):
    """Why there is no answer."""

    message: str = ""
    error: str | dict[str, Any] = ""
    code: int = 0


class Line(msgspec.Struct, frozen=True):
    """One line of a stream of pieces."""

    result: Piece | None = None
    error: Failure | None = None
