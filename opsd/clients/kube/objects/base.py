"""What every object of the Kubernetes API has: a place, a name, an identity that is used once.

Only the fields that opsd uses are declared; all others are skipped while decoding, which is
what makes a list of ten thousand pods cheap. A field that is not there has its default: an
empty string, tuple or mapping, or None where empty means something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, dataclass_transform
from urllib.parse import quote

import msgspec

_INITIALS = {"ip": "IP", "ips": "IPs", "id": "ID", "uuid": "UUID", "cidr": "CIDR", "api": "API"}


def _api_name(field: str) -> str:
    """``pod_ip`` as the API writes it: ``podIP``."""
    first, *others = field.split("_")
    return first + "".join(_INITIALS.get(word, word.title()) for word in others)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class _FrozenMeta(msgspec.StructMeta):
    """Tells the type checker what `Struct` sets for all that derive from it."""


class Struct(
    msgspec.Struct, metaclass=_FrozenMeta, frozen=True, kw_only=True, rename=_api_name, gc=False
):
    """A part of an object. Frozen; the API's camelCase stands as snake_case."""


@dataclass(frozen=True, slots=True)
class Resource:
    """Where objects of one kind lie in the API."""

    group_version: str  #: ``v1``, ``apps/v1``
    plural: str  #: ``pods``
    kind: str  #: ``Pod``
    namespaced: bool = True

    @property
    def group(self) -> str:
        """``apps``; empty for the core group."""
        return self.group_version.rpartition("/")[0]

    @property
    def noun(self) -> str:
        """One of them, as kubectl takes it: ``pod``, ``postgresql.acid.zalan.do``."""
        return self.kind.lower() + self._suffix

    @property
    def nouns(self) -> str:
        """Many of them: ``pods``, ``postgresqls.acid.zalan.do``."""
        return self.plural + self._suffix

    @property
    def _suffix(self) -> str:
        is_built_in = "." not in self.group or self.group.endswith(".k8s.io")
        return "" if is_built_in else f".{self.group}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of the collection, of one object, or of something below it."""
        root = "apis" if self.group else "api"
        inside = ("namespaces", namespace) if self.namespaced and namespace else ()
        parts = (root, *self.group_version.split("/"), *inside, self.plural, name, subresource)
        return "/" + "/".join(quote(part, safe="") for part in parts if part)


class OwnerReference(Struct):
    """Who made the object, and whose end is its end."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class Identity(Struct):
    """Which object it is, and whether it is on its way out."""

    name: str = ""
    namespace: str = ""  #: empty for what belongs to the whole cluster
    uid: str = ""  #: never used twice, unlike the name
    resource_version: str = ""
    deletion_timestamp: datetime | None = None  #: when it should be gone, grace included


class Metadata(Identity):
    """Identity and bookkeeping. Times are of the API server's clock."""

    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()


class Outline(Struct):
    """An object of which no more than its identity is read: cheap where there are thousands."""

    resource: ClassVar[Resource]

    metadata: Identity = Identity()

    @property
    def name(self) -> str:
        """Unique in its namespace, at one time."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """Empty for what belongs to the whole cluster."""
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        """Its identity."""
        return self.metadata.uid

    def __str__(self) -> str:
        """As kubectl takes it and people read it: ``pod db/pg-0``."""
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.resource.noun} {where}"


class Object(Outline):
    """Base of all kinds: what is known of any object."""

    metadata: Metadata = Metadata()

    @property
    def labels(self) -> Mapping[str, str]:
        """For selecting."""
        return self.metadata.labels

    @property
    def annotations(self) -> Mapping[str, str]:
        """Notes of people and programs."""
        return self.metadata.annotations

    @property
    def controller(self) -> OwnerReference | None:
        """Who replaces it when it is gone; None: nobody."""
        owners = self.metadata.owner_references
        return next((owner for owner in owners if owner.controller), None)


class Condition(Struct):
    """One aspect of an object's state; ``status`` is True, False or Unknown."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
    last_heartbeat_time: datetime | None = None  #: of nodes only


def condition(conditions: tuple[Condition, ...], kind: str) -> Condition | None:
    """The condition of this type; None: it was never told."""
    return next((one for one in conditions if one.type == kind), None)


class LabelRequirement(Struct):
    """What a label must be: ``In``, ``NotIn``, ``Exists``, ``DoesNotExist``."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()

    def admits(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels fulfil it."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


class LabelSelector(Struct):
    """Which objects are meant, by their labels; an empty one means all."""

    match_labels: Mapping[str, str] = {}
    match_expressions: tuple[LabelRequirement, ...] = ()

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant."""
        wanted = self.match_labels.items()
        return all(labels.get(key) == value for key, value in wanted) and all(
            one.admits(labels) for one in self.match_expressions
        )


class LocalReference(Struct):
    """An object of the same namespace."""

    name: str = ""


class Reference(Struct):
    """Any object."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
