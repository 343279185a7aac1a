"""A secret that stands where none belongs: the configuration is refused without repeating it."""

from __future__ import annotations

import copy
import tomllib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from jobs import JOBS
from opsd.configfile import load
from opsd.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "config.toml.example"
CANARIES = (
    "c4nary-Passw0rd/+=",
    "postgres://user:c4naryPassw0rd@host/db?x=1#y",
    "c4nary Passw0rd\nof two \x1b[2J lines",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nc4naryPassw0rd",
    "AGE-SECRET-KEY-1C4NARYPASSW0RD",
)
MARKS = ("c4nary", "Passw0rd", "C4NARY")
SHAPES: dict[str, Callable[[str], Any]] = {
    "text": lambda secret: secret,
    "list": lambda secret: [secret],
    "table": lambda secret: {"x": secret},
    "tables": lambda secret: [{"name": secret}],
    "deep": lambda secret: [[{"x": [secret]}]],
}
#: Keys that take any text, because it is a name: it can be shown, so it is no place for a secret.
NAMES = {
    "alerts.escalate_to",
    "alerts.routes.checks",
    "alerts.routes.subjects",
    "alerts.routes.to",
    "alerts.targets.name",
    "alerts.targets.tags",
    "http.hosts",
    "jobs.etcd-backup.absent",
    "jobs.etcd-backup.cluster",
    "jobs.nfs-backup.shares.destination",
    "jobs.nfs-backup.shares.exclude",
    "jobs.nfs-backup.shares.name",
    "jobs.nfs-backup.shares.sentinel",
    "jobs.node-remedy.allow",
    "jobs.node-remedy.fences.command",
    "jobs.node-remedy.fences.name",
    "jobs.node-remedy.fences.nodes",
    "jobs.node-remedy.protected",
    "jobs.postgres-backup.client_dirs",
    "jobs.postgres-backup.exclude_namespaces",
    "jobs.postgres-backup.namespaces",
    "jobs.postgres-backup.servers.databases",
    "jobs.postgres-backup.servers.exclude",
    "jobs.postgres-backup.servers.host",
    "jobs.postgres-backup.servers.maintenance_database",
    "jobs.postgres-backup.servers.name",
    "jobs.postgres-backup.servers.user",
    "jobs.pv-guard.cluster",
    "jobs.pv-guard.shares.ignore",
    "jobs.pv-guard.shares.name",
    "kubernetes.context",
    "maintenance.jobs",
    "maintenance.name",
    "maintenance.subjects",
    "repositories.offsite.bucket",
    "repositories.offsite.prefix",
    "repositories.offsite.region",
    "repositories.offsite.storage_class",
    "ssh.exclude",
    "ssh.jump",
    "ssh.user",
}

Key = tuple[str | int, ...]


def keys(value: Any, place: Key = ()) -> Iterator[Key]:
    """Every key of a configuration that holds no further table."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from keys(inner, (*place, name))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, inner in enumerate(value):
            yield from keys(inner, (*place, index))
    else:
        yield place


def changed(document: dict[str, Any], value: Any, *places: Key) -> str:
    """The file with the values of some keys replaced."""
    copied = copy.deepcopy(document)
    for *above, key in places:
        table: Any = copied
        for part in above:
            table = table[part]
        table[key] = value
    return tomlkit.dumps(copied)


def refusal(path: Path, text: str) -> str | None:
    """Everything that a refused file makes opsd print, also with --debug; None when it loads."""
    path.write_text(text)
    try:
        load(path, JOBS)
    except ConfigError:
        return traceback.format_exc()
    return None


@pytest.mark.parametrize(("shape", "canary"), [("text", CANARIES[2]), ("list", CANARIES[2])])
def test_a_secret_in_any_key_is_not_repeated(tmp_path: Path, shape: str, canary: str) -> None:
    document = tomllib.loads(EXAMPLE.read_text())
    places = list(keys(document))
    taken: set[str] = set()

    for key in places:
        told = refusal(tmp_path / "config.toml", changed(document, SHAPES[shape](canary), key))
        if told is None:
            taken.add(".".join(str(part) for part in key if isinstance(part, str)))
        else:
            assert not [mark for mark in MARKS if mark in told], (key, told)

    assert len(places) > 80, "the example is complete"
    assert taken - NAMES == set()


@pytest.mark.parametrize(
    ("shape", "canary"),
    [*(("text", canary) for canary in CANARIES), *((shape, CANARIES[0]) for shape in SHAPES)],
)
def test_secrets_in_all_keys_at_once_are_not_repeated(
    tmp_path: Path, shape: str, canary: str
) -> None:
    document = tomllib.loads(EXAMPLE.read_text())
    places = [key for key in keys(document) if key[-1] != "type"]  # it says which keys there are

    told = refusal(tmp_path / "config.toml", changed(document, SHAPES[shape](canary), *places))

    assert told is not None
    assert told.count("config.toml:") > len(places) / 2
    assert not [mark for mark in MARKS if mark in told]


def test_a_login_in_the_address_of_a_server_is_refused_as_it_is_no_name(tmp_path: Path) -> None:
    document = tomllib.loads(EXAMPLE.read_text())
    endpoint: Key = ("repositories", "offsite", "endpoint")
    destination: Key = ("jobs", "nfs-backup", "shares", 0, "destination")

    for key, address in (
        (endpoint, "https://user:c4nary@s3.example.org"),
        (endpoint, "https://c4nary@s3.example.org"),
        (endpoint, "https://s3.example.org?token=c4nary"),
        (destination, "rest:https://user:c4nary@nas/"),
        (destination, "s3:https://user:c4nary@nas/bucket"),
    ):
        told = refusal(tmp_path / "config.toml", changed(document, address, key))

        assert told is not None, address
        assert "c4nary" not in told
        assert str(key[-1]) in told


@pytest.mark.parametrize(
    "broken",
    [
        'url = "{}',
        "url = {}",
        '[alerts]\nquiet_hours = "{}"\nquiet_hours = "{}"',
        '[[alerts]]\n"x" = "{}"\n[alerts]',
        'x = "{}" y',
        "x = '''{}",
        '[opsd]\nstate_dir = ["{}"',
    ],
)
def test_a_secret_in_a_file_that_is_no_toml_is_not_repeated(tmp_path: Path, broken: str) -> None:
    for canary in CANARIES[:2]:
        told = refusal(tmp_path / "config.toml", broken.replace("{}", canary))

        assert told is not None
        assert not [mark for mark in MARKS if mark in told]
