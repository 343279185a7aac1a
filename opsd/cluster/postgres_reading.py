"""Read what finding databases needs from the API, and the very Secrets that they name.

Workloads and Services are listed; Secrets and ConfigMaps are read one by one, by the names that
the workload itself mentions, never listed. What may not be read is told with the command that
changes it.

Limits: the namespaces that hold databases are searched anew in each run; nothing found, and no
password, is kept on disk. While the API is away, databases that only it knows are not dumped.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from opsd.clients.kube.errors import Forbidden, NotFound
from opsd.clients.kube.objects import (
    CnpgCluster,
    ConfigMap,
    Deployment,
    Object,
    Secret,
    Service,
    StatefulSet,
    ZalandoPostgresql,
)
from opsd.cluster.postgres import Found, Objects
from opsd.cluster.postgres_logins import Key, Login, Plain, Value
from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.secrets import Secret as SecretReference
from opsd.secrets import conceal

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube

ObjectT = TypeVar("ObjectT", bound=Object)

OPERATORS: tuple[type[Object], ...] = (CnpgCluster, ZalandoPostgresql)
_PATTERN = frozenset("*?[")
_ACCOUNT = re.compile(r"serviceaccount ([\w.-]+)/([\w.-]+) ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """Where databases are looked for."""

    include: tuple[str, ...] = ("*",)  #: names or patterns
    exclude: tuple[str, ...] = ()

    def has(self, namespace: str) -> bool:
        """Whether it is one of them."""
        return _matches(namespace, self.include) and not _matches(namespace, self.exclude)

    @property
    def scopes(self) -> tuple[str, ...]:
        """Namespaces to list one by one; one empty name: all at once."""
        if any(_PATTERN & set(name) for name in self.include):
            return ("",)
        return tuple(name for name in self.include if self.has(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What could be read, and why some of it could not."""

    objects: Objects
    errors: tuple[OpsdError, ...] = ()


class Unresolved(PermanentError):
    """Nothing that the workload names is a way in; `remedy` says what to do."""

    def __init__(self, reason: str, *, remedy: str, is_forbidden: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.is_forbidden = is_forbidden  # it may be there, which is more than one that is not


@dataclass(frozen=True, slots=True)
class HeldSecret(SecretReference):
    """A secret that was read from the API; it is nowhere else on this machine."""

    value: str = field(repr=False, default="")

    def __str__(self) -> str:
        return self.reference

    def reveal(self) -> str:
        """The value."""
        conceal(self.value)
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """As whom to log in."""

    user: str
    password: HeldSecret | None  #: None: the server asks for none


def read_objects(kube: Kube, namespaces: Namespaces) -> Reading:
    """Everything in which a PostgreSQL may be.

    Raises:
        ConfigError: there is no cluster.
        DeadlineExceeded: no time is left.
    """
    reader = _Lists(kube, namespaces)
    objects = Objects(
        stateful_sets=reader.all_of(StatefulSet),
        deployments=reader.all_of(Deployment),
        services=reader.all_of(Service),
        cnpg_clusters=reader.all_of(CnpgCluster),
        zalando=reader.all_of(ZalandoPostgresql),
    )
    return Reading(objects=objects, errors=tuple(reader.errors))


class _Lists:
    """Lists of several kinds; one that fails stops none of the others."""

    def __init__(self, kube: Kube, namespaces: Namespaces) -> None:
        self._kube = kube
        self._namespaces = namespaces
        self._is_away = False  # each question would wait for half a minute
        self.errors: list[OpsdError] = []

    def all_of(self, kind: type[ObjectT]) -> tuple[ObjectT, ...]:
        return tuple(
            item
            for scope in self._namespaces.scopes
            for item in self._list(kind, scope)
            if self._namespaces.has(item.namespace)
        )

    def _list(self, kind: type[ObjectT], namespace: str) -> tuple[ObjectT, ...]:
        if self._is_away:
            return ()
        try:
            return tuple(self._kube.list(kind, namespace=namespace))
        except NotFound as exc:
            if kind not in OPERATORS:  # else the operator is not installed
                self.errors.append(exc)
        except Forbidden as exc:
            if kind not in OPERATORS or self._is_served(kind):
                self.errors.append(exc)
        except PermanentError as exc:
            self.errors.append(exc)
        except TransientError as exc:
            self.errors.append(exc)
            self._is_away = True
        return ()

    def _is_served(self, kind: type[Object]) -> bool:
        """Whether the API has the kind at all; a forbidden list does not tell."""
        from opsd.clients.kube.calls import Request  # noqa: PLC0415 - with the client only

        version = kind.resource.group_version
        request = Request(what=f"look for {version}", path=f"/apis/{version}")
        try:
            self._kube.transport.read(request, self._kube.deadline)
        except NotFound:
            return False
        except (TransientError, PermanentError):
            return True
        return True


class LoginReader:
    """Turns what a workload names into users and passwords; reads each object once."""

    def __init__(self, kube: Kube) -> None:
        """Nothing is read yet."""
        self._kube = kube
        self._seen: dict[tuple[str, str, str], Secret | ConfigMap] = {}

    def credentials(self, server: Found) -> Credentials:
        """The first way in whose values are all there.

        Raises:
            Unresolved: none is; with the reason of the best one.
            TransientError: the API does not answer.
        """
        refusals: list[Unresolved] = []
        for login in server.logins:
            try:
                return self._through(login, server)
            except Unresolved as exc:
                refusals.append(exc)
        if refusals:
            raise _best(refusals)
        remedy = f"name the Secret: annotate it with opsd.dev/secret ({server.workload})"
        raise Unresolved("the workload names no Secret with a password", remedy=remedy)

    def _through(self, login: Login, server: Found) -> Credentials:
        if not login.password:
            user, _ = self._first(login.user, server)
            return Credentials(user=user, password=None)
        password, place = self._first(login.password, server)
        user, _ = self._first(login.user, server)
        return Credentials(user=user, password=HeldSecret(place, password))

    def _first(self, values: Sequence[Value], server: Found) -> tuple[str, str]:
        """The first value that is there, and where that is."""
        reasons: list[Unresolved] = []
        for value in values:
            if isinstance(value, Plain):
                return value.text, f"in {server.workload}"
            try:
                text = self._of(value, server)
            except Unresolved as exc:
                reasons.append(exc)
            else:
                return text, f"{value.kind}:{server.namespace}/{value.name}#{value.key}"
        raise _best(reasons)

    def _of(self, key: Key, server: Found) -> str:
        where = f"{key.kind} {server.namespace}/{key.name}"
        look = f"kubectl -n {server.namespace} get {key.kind} {key.name}"
        try:
            holder = self._get(key, server.namespace)
        except NotFound:
            raise Unresolved(f"{where} is not there", remedy=look) from None
        except Forbidden as exc:
            grant = _grant(key, server.namespace, str(exc))
            raise Unresolved(str(exc), remedy=grant, is_forbidden=True) from exc
        text = _text_of(holder, key.key)
        if not text:
            remedy = f"{look} -o yaml; name another key with opsd.dev/password-key"
            raise Unresolved(f"{where} has no key {key.key}", remedy=remedy)
        return text

    def _get(self, key: Key, namespace: str) -> Secret | ConfigMap:
        place = (key.kind, namespace, key.name)
        if place not in self._seen:
            kind: type[Secret | ConfigMap] = Secret if key.kind == "secret" else ConfigMap
            self._seen[place] = self._kube.get(kind, key.name, namespace=namespace)
        return self._seen[place]


def _best(reasons: Sequence[Unresolved]) -> Unresolved:
    return next((one for one in reasons if one.is_forbidden), reasons[0])


def _text_of(holder: Secret | ConfigMap, key: str) -> str:
    if key not in holder.data:
        return ""
    return holder.reveal(key) if isinstance(holder, Secret) else holder.data[key]


def _grant(key: Key, namespace: str, refusal: str) -> str:
    """The commands that let opsd read this one object."""
    account = _ACCOUNT.search(refusal)
    who = f"{account[1]}:{account[2]}" if account else "NAMESPACE:SERVICEACCOUNT"
    name = f"opsd-read-{key.name}"
    return (
        f"kubectl -n {namespace} create role {name} --verb=get --resource={key.kind}s"
        f" --resource-name={key.name} && kubectl -n {namespace} create rolebinding {name}"
        f" --role={name} --serviceaccount={who}"
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(name == one or fnmatch.fnmatchcase(name, one) for one in patterns)
