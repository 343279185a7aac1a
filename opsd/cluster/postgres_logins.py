"""As whom does one log in to a PostgreSQL that somebody else set up?

The workload itself knows: its variables name the Secrets that hold the password. What stands
there is turned into places to look at, best first; nothing is read here. Pure.

Limits: a password that was changed in the server and not in the Secret is wrong; the server
says so. Values that a program of the image makes up at its start are not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from opsd.clients.kube.objects import Container, EnvVar, PodSpec, Volume, VolumeMount

SUPERUSER = "postgres"
_REFERENCE = ("$(", ")")
_SUPERUSERS = (  # variables of the user, of the password; both together or not at all
    (("PGUSER_SUPERUSER",), ("PGPASSWORD_SUPERUSER",)),  # Spilo
    (("PATRONI_SUPERUSER_USERNAME",), ("PATRONI_SUPERUSER_PASSWORD",)),
    # Bitnami's beside a user of one's own; sclorg's
    ((), ("POSTGRES_POSTGRES_PASSWORD", "POSTGRESQL_POSTGRES_PASSWORD")),
    ((), ("POSTGRESQL_ADMIN_PASSWORD",)),
    (
        ("POSTGRES_USER", "POSTGRESQL_USERNAME", "POSTGRESQL_USER"),
        ("POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD"),
    ),
)
_TRUST = "POSTGRES_HOST_AUTH_METHOD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A value in an object of the workload's namespace."""

    kind: Literal["secret", "configmap"]
    name: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}, key {self.key}"


@dataclass(frozen=True, slots=True)
class Plain:
    """A value that stands in the workload itself; printing does not show it."""

    text: str = field(repr=False)


Value = Key | Plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One way in; of each, the first value that is there."""

    user: tuple[Value, ...]  #: never empty
    password: tuple[Value, ...]  #: empty: the server asks for none


def of_workload(container: Container, spec: PodSpec) -> tuple[Login, ...]:
    """The ways in that the variables of a server tell, superusers first."""
    environment = _Environment(container, spec.volumes)
    logins = []
    for user_names, password_names in _SUPERUSERS:
        passwords = environment.any_of(password_names)
        if passwords:
            users = (*environment.any_of(user_names), Plain(SUPERUSER))
            logins.append(Login(user=users, password=passwords))
    if environment.plain(_TRUST) == "trust":
        users = (*environment.any_of(_SUPERUSERS[-1][0]), Plain(SUPERUSER))
        logins.append(Login(user=users, password=()))
    return tuple(logins)


def of_secret(
    name: str, *, users: Sequence[str] = ("username", "user"), key: str = "", user: str = ""
) -> Login:
    """The way in that one Secret tells.

    Args:
        name: of the Secret.
        users: keys in which the user may be.
        key: of the password; empty: the usual ones.
        user: the user, if it is known already.
    """
    keys = (key,) if key else ("password", "postgres-password", "POSTGRES_PASSWORD")
    known: tuple[Value, ...] = tuple(Key(kind="secret", name=name, key=one) for one in users)
    return Login(
        user=(Plain(user),) if user else (*known, Plain(SUPERUSER)),
        password=tuple(Key(kind="secret", name=name, key=one) for one in keys),
    )


class _Environment:
    """The variables of a container, as far as they can be told without reading anything."""

    def __init__(self, container: Container, volumes: tuple[Volume, ...]) -> None:
        self._container = container
        self._volumes = {volume.name: volume for volume in volumes}
        self._own: Mapping[str, EnvVar] = {one.name: one for one in container.env}

    def any_of(self, names: Sequence[str]) -> tuple[Value, ...]:
        """Where these variables, or the files that they name, have their values."""
        return tuple(value for name in names for value in self._with_file(name))

    def plain(self, name: str) -> str:
        """The value that stands in the workload itself; empty when it does not."""
        values = self._of(name)
        return values[0].text if values and isinstance(values[0], Plain) else ""

    def _with_file(self, name: str) -> Iterator[Value]:
        yield from self._of(name)
        path = self.plain(f"{name}_FILE")
        if path:
            yield from self._in_file(PurePosixPath(path))

    def _of(self, name: str) -> tuple[Value, ...]:
        variable = self._own.get(name)
        if variable is None:
            return tuple(self._from_all(name))
        source = variable.value_from
        if source is None:
            return self._text(variable)
        reference = source.secret_key_ref or source.config_map_key_ref
        if reference is None:
            return ()
        kind: Literal["secret", "configmap"] = "secret" if source.secret_key_ref else "configmap"
        return (Key(kind=kind, name=reference.name, key=reference.key),)

    def _text(self, variable: EnvVar) -> tuple[Value, ...]:
        opened, closed = _REFERENCE
        inner = variable.value.removeprefix(opened).removesuffix(closed)
        is_reference = variable.value == f"{opened}{inner}{closed}"
        if is_reference:
            names = list(self._own)  # a reference leads to what stands before it, or nowhere
            is_before = inner in names and names.index(inner) < names.index(variable.name)
            return self._of(inner) if is_before else ()
        return (Plain(variable.value),) if variable.value else ()

    def _from_all(self, name: str) -> Iterator[Value]:
        """In the objects whose keys are all variables; the last one counts."""
        for source in reversed(self._container.env_from):
            if not name.startswith(source.prefix):
                continue
            key = name.removeprefix(source.prefix)
            if source.secret_ref:
                yield Key(kind="secret", name=source.secret_ref.name, key=key)
            elif source.config_map_ref:
                yield Key(kind="configmap", name=source.config_map_ref.name, key=key)

    def _in_file(self, path: PurePosixPath) -> Iterator[Value]:
        """The key that is mounted as this file."""
        for mount in self._container.volume_mounts:
            volume = self._volumes.get(mount.name)
            inside = _inside(path, mount)
            if volume is not None and inside:
                yield from _keys_of(volume, inside)


def _inside(path: PurePosixPath, mount: VolumeMount) -> str:
    """The path within the volume; empty when the mount does not lead there."""
    place = PurePosixPath(mount.mount_path)
    if path != place and place not in path.parents:
        return ""
    inside = PurePosixPath(mount.sub_path) / path.relative_to(place)
    return "/".join(inside.parts)


def _keys_of(volume: Volume, path: str) -> Iterator[Value]:
    sources = []
    if volume.secret:
        sources.append((volume.secret.secret_name, volume.secret.items))
    projected = volume.projected.sources if volume.projected else ()
    sources += [(one.secret.name, one.secret.items) for one in projected if one.secret]
    for name, items in sources:
        keys = {item.path: item.key for item in items} if items else {path: path}
        if path in keys:
            yield Key(kind="secret", name=name, key=keys[path])
